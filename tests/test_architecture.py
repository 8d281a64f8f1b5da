"""Who may import whom, and who may look at the clock, at chance and at the environment: read from the syntax tree."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "domain": {"domain"},
    "store": {"store", "domain"},
    "projections": {"projections", "store", "domain"},
    "api": {"api", "projections", "store", "domain"},
    "scripts": {"scripts", "api", "projections", "store", "domain"},
}

# The composition root, of which commands need the part without HTTP, the settings, and what a person runs.
MAY_KNOW_THE_SETTINGS = ("api/app.py", "api/opening.py", "api/settings.py", "scripts/")
ENVIRONMENT = {"api.settings", "os.environ", "os.environb", "os.getenv", "os.getenvb"}

CHANCE = {"random", "uuid.uuid1", "uuid.uuid4"}
WALL_CLOCK = {"time.time", "time.time_ns"} | {
    f"datetime.{name}" for name in ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")
}
# The one clock of a process is the one place of the store that reads the wall.
THE_CLOCK = "store/clock.py"

# Time, ids and randomness are arguments of the domain, so it gets no source of them at all.
FORBIDDEN_TO_THE_DOMAIN = (
    CHANCE
    | WALL_CLOCK
    | {"time", "secrets", "os.urandom", "os.getrandom", "uuid.uuid6", "uuid.uuid7"}
    | {"eventsourcing.domain.datetime_now_with_tzinfo", "eventsourcing.domain.create_utc_datetime_now"}
)


def violations(path: str, source: str) -> list[str]:
    """What the rules say against a file at that place with that text."""
    return [f"{path}: {name}" for name in _names_used(path, source) if not _may_use(path, name)]


def _may_use(path: str, name: str) -> bool:
    package = path.partition("/")[0]
    top = name.partition(".")[0]
    if top in MAY_IMPORT.keys() | {"tests"}:
        allowed = top in MAY_IMPORT[package]
    elif package == "domain":
        allowed = top in sys.stdlib_module_names or top == "eventsourcing"
    else:
        allowed = True
    return allowed and not _is_part_of(name, _forbidden(path))


def _forbidden(path: str) -> set[str]:
    forbidden = set() if path.startswith(MAY_KNOW_THE_SETTINGS) else set(ENVIRONMENT)
    if path.startswith("domain/"):
        return forbidden | FORBIDDEN_TO_THE_DOMAIN
    if path.startswith("store/"):
        return forbidden | CHANCE | (set() if path == THE_CLOCK else WALL_CLOCK)
    return forbidden


def _is_part_of(name: str, forbidden: set[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in forbidden)


def _names_used(path: str, source: str) -> list[str]:
    """The full dotted name of whatever is imported, and of whatever is reached through an import, by any alias."""
    tree = ast.parse(source)
    aliases: dict[str, str] = {}
    names: set[str] = set()
    for node in ast.walk(tree):
        for alias, name in _imports(path, node):
            aliases[alias] = name
            names.add(name)
    names.update(_dotted(node, aliases) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return sorted(names - {""})


def _imports(path: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    """Each local name that an import makes, with what it stands for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (top, top)
            yield alias.name, alias.name
    elif isinstance(node, ast.ImportFrom):
        origin = ".".join([*_parents(path, node.level), *([node.module] if node.module else [])])
        for alias in node.names:
            yield alias.asname or alias.name, f"{origin}.{alias.name}"


def _parents(path: str, level: int) -> list[str]:
    return list(Path(path).parts[:-level]) if level else []


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return aliases.get(node.id, "")
    if isinstance(node, ast.Attribute) and (origin := _dotted(node.value, aliases)):
        return f"{origin}.{node.attr}"
    return ""


def python_files() -> list[str]:
    return [str(path.relative_to(ROOT)) for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", python_files())
def test_a_file_keeps_to_its_layer(path: str):
    assert violations(path, (ROOT / path).read_text()) == []


def test_no_module_is_named_after_nothing():
    assert [path for path in python_files() if {"utils", "util", "helpers"} & {*Path(path).with_suffix("").parts}] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("domain/user.py", "import store.recorder"),
        ("domain/user.py", "from sqlalchemy import text"),
        ("domain/user.py", "def later():\n    from ..store import writer"),
        ("store/writer.py", "from projections.sessions import apply"),
        ("projections/sessions.py", "from api import errors"),
        ("api/users.py", "import scripts.server"),
        ("api/users.py", "from tests import postgres"),
    ],
)
def test_an_import_against_the_direction_is_seen(path: str, source: str):
    assert violations(path, source)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['HOME']",
        "from os import environ as e",
        "import os.path\nos.environ",
        "import os as o\no.getenv('HOME')",
        "from api.settings import Settings",
        "from api import settings",
        "from .settings import Settings",
        "from . import settings",
        "import api.settings",
    ],
)
def test_settings_outside_the_composition_root_are_seen(source: str):
    assert violations("api/users.py", source)
    assert violations("api/app.py", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from random import choice",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid1 as new",
        "import datetime as dt\ndt.datetime.utcnow()",
        "from datetime import datetime\nclock = datetime.now",
        "from datetime import date\ndate.today()",
        "import time\ntime.time()",
        "from time import time",
    ],
)
@pytest.mark.parametrize("path", ["domain/user.py", "store/writer.py"])
def test_chance_and_the_wall_clock_are_seen(path: str, source: str):
    assert violations(path, source)


@pytest.mark.parametrize(
    "source", ["import time", "import secrets", "from os import urandom", "from uuid import uuid7", "import httpx"]
)
def test_the_domain_has_no_source_of_time_or_chance(source: str):
    assert violations("domain/user.py", source)
    assert violations("store/writer.py", source) == []


def test_what_is_allowed_passes():
    domain = "from datetime import datetime, timedelta\nfrom uuid import UUID\nfrom eventsourcing.domain import event"
    assert violations("domain/user.py", f"{domain}\nfrom domain.events import UserEnrolled\nself.datetime.now") == []
    assert violations("store/clock.py", "import time\ntime.time_ns()") == []
