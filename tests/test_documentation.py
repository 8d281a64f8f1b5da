"""What a person can set, call, run or find in the log is named in the README."""

import os
import re
from pathlib import Path

import pytest

import domain.events
from api.settings import Settings, settings_table

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text()


@pytest.mark.parametrize("row", settings_table(), ids=lambda row: row.variable)
def test_each_setting_has_its_row(row, readme: str):
    assert f"| `{row.variable}` | `{row.default}` | {row.allowed} | {row.meaning} |" in readme


def test_each_event_is_told(readme: str):
    assert [topic for topic in event_topics() if f"`{topic}`" not in readme] == []


def test_each_route_is_told(readme: str, tmp_path: Path):
    assert [route for route in routes(tmp_path) if f"`{route}`" not in readme] == []


def test_each_script_is_told(readme: str):
    scripts = [path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and os.access(path, os.X_OK)]
    assert [name for name in sorted(scripts) if f"scripts/{name}" not in readme] == []


def event_topics() -> list[str]:
    topics = [item.TOPIC for item in vars(domain.events).values() if isinstance(item, type) and "TOPIC" in vars(item)]
    assert topics
    return topics


def routes(directory: Path) -> list[str]:
    """Each route as `GET /api/sessions`."""
    from api.app import create_app

    settings = Settings(
        database_url=f"sqlite:///{directory}/ledger.db",
        keys_database_url=f"sqlite:///{directory}/keys.db",
        master_key_file=directory / "master.key",
    )
    paths = create_app(settings).openapi()["paths"]
    return [f"{method.upper()} {path}" for path, operations in paths.items() for method in operations]


@pytest.mark.parametrize("document", ["README.md", "docs/promises.md", "docs/performance.md"])
def test_each_path_that_is_told_exists(document: str):
    told = set(
        re.findall(
            r"\b(?:(?:api|domain|store|projections|tests|docs)/[a-z_/]+\.(?:py|md)|scripts/[a-z_.]+)",
            (ROOT / document).read_text(),
        )
    )
    assert told
    assert [path for path in sorted(told) if not (ROOT / path).exists()] == []
