"""What a person can set, call, run or find in the log has its row in the README, and no row tells of what is not."""

import ast
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.main import get_command

from api.app import create_app
from api.errors import KINDS
from api.settings import Settings, settings_table
from domain.events import EndReason, Fact
from scripts.cli.commands import app as ledger

ROOT = Path(__file__).parents[1]
PACKAGES = ("domain", "store", "projections", "api", "scripts")

NEVER_DOCUMENTED = {
    "bad-request": "the client has left",
    "internal-error": "nobody foresaw it",
    "method-not-allowed": "a document names the methods that there are",
    "not-found": "a document names the paths that there are",
}
"""Kinds of problems that are no answer of an operation."""


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    directory = tmp_path_factory.mktemp("app")
    settings = Settings(
        database_url=f"sqlite:///{directory}/ledger.db",
        keys_database_url=f"sqlite:///{directory}/keys.db",
        master_key_file=directory / "master.key",
    )
    return create_app(settings)


def told(readme: str, heading: str) -> list[str]:
    """The first cell of each row of the table under a heading: what stands in its code marks."""
    section = readme.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*?) \|", section, re.MULTILINE)
    assert cells, heading
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# -- settings


@pytest.mark.parametrize("row", settings_table(), ids=lambda row: row.variable)
def test_each_setting_has_its_row(row, readme: str):
    assert f"| `{row.variable}` | `{row.default}` | {row.allowed} | {row.meaning} |" in readme


def test_each_row_is_a_setting(readme: str):
    assert told(readme, "Settings") == [row.variable for row in settings_table()]


def test_nothing_else_that_is_told_or_read_is_called_like_a_setting(readme: str):
    known = {row.variable for row in settings_table()}
    places = [*(path for package in PACKAGES for path in files(package)), *scripts()]
    texts = [readme, *(path.read_text() for path in places)]
    assert {name for text in texts for name in re.findall(r"\bLEDGER_[A-Z_]*[A-Z]\b", text)} - known == set()


# -- events


def test_each_event_has_its_row(readme: str):
    for package in PACKAGES[:-1]:
        for path in files(package):
            importlib.import_module(f"{package}.{path.stem}")
    assert sorted(told(readme, "Events")) == sorted({fact.TOPIC for fact in subclasses(Fact)})


def test_each_reason_of_an_end_is_told(readme: str):
    [row] = re.findall(r"^\| `SessionRevoked` \| (.*) \|$", readme, re.MULTILINE)
    assert re.findall(r"`([^`]+)`", row) == [reason.value for reason in EndReason]


def subclasses(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        if each.__module__.partition(".")[0] in PACKAGES:
            yield each
            yield from subclasses(each)


# -- routes


def test_each_route_has_its_row(readme: str, app: FastAPI):
    assert sorted(told(readme, "API")) == sorted(set(routes(app)) - {"GET /openapi.json", "HEAD /openapi.json"})
    assert "`/openapi.json`" in readme


def test_each_route_is_in_the_document(app: FastAPI):
    """Also one that hides: `include_in_schema=False` would keep it from every test that walks the document."""
    documented = {f"{method.upper()} {path}" for path, calls in app.openapi()["paths"].items() for method in calls}
    assert set(routes(app)) - documented == {"GET /openapi.json", "HEAD /openapi.json"}


def routes(app: FastAPI) -> Iterator[str]:
    """Each route as `GET /api/sessions`."""
    for route in app.routes:
        for each in route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else [route]:
            yield from (f"{method} {each.path_format}" for method in each.methods)


# -- problems


def test_each_kind_of_problem_is_raised_somewhere_and_each_that_is_raised_is_in_the_table():
    assert problems_in_the_code() == KINDS.keys()


def test_each_kind_of_problem_is_documented_by_a_route(app: FastAPI):
    documented = {kind for answer in answers(app) for media in answer.values() for kind in media.get("examples", ())}
    assert documented | NEVER_DOCUMENTED.keys() == KINDS.keys()
    assert documented & NEVER_DOCUMENTED.keys() == set()


def answers(app: FastAPI) -> list[dict[str, Any]]:
    calls = [call for path in app.openapi()["paths"].values() for call in path.values()]
    return [answer.get("content", {}) for call in calls for answer in call["responses"].values()]


def problems_in_the_code() -> set[str]:
    """What `Problem(…)` is called with, be it a kind or not, and the kinds to which other errors are mapped."""
    nodes = [
        n for package in ("api", "scripts") for path in files(package) for n in ast.walk(ast.parse(path.read_text()))
    ]
    raised = {text for node in nodes for text in raised_by(node)}
    return raised | ({text for node in nodes for text in mapped_by(node)} & KINDS.keys())


def raised_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Name(id="Problem"), args=[ast.Constant(value=str(text)), *_]):
            yield text


def mapped_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Attribute(attr="__init__"), args=[ast.Constant(value=str(text)), *_]):
            yield text
        case ast.IfExp(body=ast.Constant(value=str(text)), orelse=ast.Constant(value=str(other))):
            yield from (text, other)
        case ast.Dict():
            for value in node.values:
                match value:
                    case ast.Constant(value=str(text)) | ast.Tuple(elts=[ast.Constant(value=str(text)), *_]):
                        yield text


# -- scripts


def test_each_script_has_its_row(readme: str):
    assert sorted(told(readme, "Two commands")) == sorted(f"scripts/{path.name}" for path in scripts())


def scripts() -> list[Path]:
    return [path for path in (ROOT / "scripts").iterdir() if path.is_file() and os.access(path, os.X_OK)]


def test_each_command_of_the_operator_is_told(readme: str):
    [row] = re.findall(r"^\| `scripts/ledger` \| (.*) \|$", readme, re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", row)) == sorted(commands(get_command(ledger)))


def commands(command: Any, *path: str) -> Iterator[str]:
    """Each that does something, as `keys create`."""
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path)
    for name, each in (below or {}).items():
        yield from commands(each, *path, name)


# -- files


def test_each_file_has_its_place(readme: str):
    written = {f"{package}/{path.name}" for package in PACKAGES for path in files(package)}
    assert written - set(told(readme, "Where things are")) == set()


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


def files(package: str) -> list[Path]:
    return [path for path in sorted((ROOT / package).glob("*.py")) if path.name != "__init__.py"]
