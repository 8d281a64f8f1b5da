"""What a command prints: a table for people, or with `--json` one JSON document for programs."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.console import Console
from rich.table import Table

UNBOUNDED = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(document: Any) -> None:
    """One document on one line: moments in RFC 3339, ids as text."""
    typer.echo(to_json(document))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A row a line; a column is as wide as it must be, also where nobody looks on from a terminal."""
    table = Table(box=None)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*("" if row[column] is None else _text(row[column]) for column in columns))
    width = None if sys.stdout.isatty() else UNBOUNDED
    Console(highlight=False, markup=False, width=width).print(table, crop=False)


def _text(value: Any) -> str:
    """Nothing that a terminal would obey: what people have sent stands in some of it (T-08)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
