"""What a command prints: a table for people, or with `--json` one JSON document for programs."""

import os
import select
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.console import Console
from rich.table import Table

UNBOUNDED = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(document: Any, *, err: bool = False) -> None:
    """One document on one line: moments in RFC 3339, ids as text. On stderr where stdout carries something else."""
    typer.echo(to_json(document), err=err)


def print_parts(opening: str, parts: Iterable[Any], closing: str) -> None:
    """One document too long for memory, part by part. It is whole when its end is there and the exit code is 0."""
    sys.stdout.write(opening)
    for number, part in enumerate(parts):
        sys.stdout.write(("," if number else "") + to_json(part).decode())
    sys.stdout.write(closing + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A row a line; a column is as wide as it must be, also where nobody looks on from a terminal."""
    table = Table(box=None)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*("" if row[column] is None else printable(row[column]) for column in columns))
    width = None if sys.stdout.isatty() else UNBOUNDED
    Console(highlight=False, markup=False, width=width).print(table, crop=False)


def printable(value: Any) -> str:
    """Nothing that a terminal would obey: what people have sent stands in some of it (T-08)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def pause(seconds: float) -> None:
    """Wait; when whoever read our output leaves meanwhile, end as a write to him would have ended us."""
    reader = select.poll()
    reader.register(sys.stdout, 0)  # what is left of the events is that the other end was closed
    if reader.poll(seconds * 1000):
        os.kill(os.getpid(), signal.SIGPIPE)
