"""`./scripts/ledger export`: the log, or a part of it, as a file that can be verified, or as one to read."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from projections.audit_filter import AuditFilter, event_types
from projections.cloud_events import Unreadable
from projections.export import Chunk, Format, export
from scripts.cli.moments import last_moment, moment
from scripts.cli.names import name, user_id
from scripts.cli.opening import CANNOT_READ_OR_WRITE, reading
from scripts.cli.output import AsJson, print_json
from store.clock import to_micros
from store.durable_file import replacing


def command(
    form: Annotated[Format, typer.Option("--format", help="CloudEvents with the leaf bytes, or a table to read.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to; it is there when it is whole. Otherwise standard output.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Go on behind this position.")] = 0,
    event_type: Annotated[str | None, typer.Option(help="One type of event.")] = None,
    user: Annotated[str | None, typer.Option(parser=user_id, metavar="ID", help="About this user.")] = None,
    session: Annotated[UUID | None, typer.Option(help="About this session.")] = None,
    actor: Annotated[
        str | None, typer.Option(parser=name, metavar="ACTOR", help="By this actor, as events name actors.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option("--from", parser=moment, metavar="TIME", help="Recorded from this moment on.")
    ] = None,
    to: Annotated[
        datetime | None, typer.Option("--to", parser=last_moment, metavar="TIME", help="Recorded up to this moment.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write events out, oldest first; then say on stderr how many, and the position to go on behind.

    With --json that is a document: on standard output with --output, else on stderr, beside the export.
    """
    if output and (output.is_symlink() or (output.exists() and not output.is_file())):
        raise typer.BadParameter(
            f"{output} is no file that could be replaced; without --output it goes to standard output."
        )
    if event_type is not None and event_type not in event_types():
        raise typer.BadParameter(f"There is no type {event_type!r}: {', '.join(event_types())}.")
    with reading() as opened, _told():
        stream = opened.keys.pseudonym(user) if user is not None else None
        start, end = to_micros(since) if since else None, to_micros(to) if to else None
        asked = AuditFilter(event_type, stream, session, actor, start, end)
        chunks = export(opened.database, asked, form, opened.settings.origin, after, os.cpu_count() or 1)
        if output is None:
            events, position = _write(chunks, sys.stdout.buffer.write)
            sys.stdout.buffer.flush()
        else:
            with replacing(output) as file:
                events, position = _write(chunks, file.write)
    if as_json:
        told = {"events": events, "position": position, "selection": asked.selection() or None}
        print_json(told, err=output is None)
    else:
        _say(events, position, form, asked.selection())


def _write(chunks: Iterator[Chunk], write: Callable[[bytes], object]) -> tuple[int, int]:
    events = position = 0
    for chunk in chunks:
        write(chunk.lines)
        events, position = events + chunk.events, chunk.position
    return events, position


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        typer.echo(f"{error}. What was written is not complete.", err=True)
        raise typer.Exit(CANNOT_READ_OR_WRITE) from error


def _say(events: int, position: int, form: Format, selection: str) -> None:
    typer.echo(f"{events} events. To go on later: --after {position}", err=True)
    if form is Format.CSV:
        typer.echo("A CSV file is for reading and is no evidence; NDJSON can be verified.", err=True)
    elif selection:
        typer.echo(f"A selection, as each line says ({selection}): only a whole export can be verified.", err=True)
