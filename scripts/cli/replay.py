"""`./scripts/ledger replay`: what happened to a user or to a session, event by event, as the log has it."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic_core import to_json

from projections.actors import ActorNames
from projections.story import Storyteller, Told, is_known, stream_of_session
from scripts.cli.moments import last_moment, moment, shown
from scripts.cli.names import user_id
from scripts.cli.opening import Reading, reading
from scripts.cli.output import AsJson, pause, print_parts, printable
from scripts.cli.refusing import Refused
from store.clock import from_micros, to_micros
from store.log import last_position, position_at

LOOKS_EVERY_S = 0.2
ALL = 2**63 - 1


def replay(
    user: Annotated[str | None, typer.Option(parser=user_id, metavar="ID", help="Whose story: the user's id.")] = None,
    session: Annotated[str | None, typer.Option(help="Which session's story: its public id.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--from", parser=moment, metavar="TIME", help="From this moment on: RFC 3339, or a date."),
    ] = None,
    to: Annotated[
        datetime | None,
        typer.Option("--to", parser=last_moment, metavar="TIME", help="Up to this moment; a date: all of that day."),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Go on with new events as they come, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a user or to a session. With --follow, --json prints one document a line."""
    if (user is None) == (session is None):
        raise typer.BadParameter("Name a user or a session, one of them.", param_hint="--user / --session")
    if follow and to is not None:
        raise typer.BadParameter("What is followed has no end.", param_hint="--to / --follow")
    with reading() as opened:
        stream, session_id = _named(opened, user, session)
        told = _told(opened, stream, session_id, since, to, follow=follow)
        if not as_json:
            for line in told:
                typer.echo(_line(line))
        elif follow:
            for line in told:
                typer.echo(to_json(line))
        else:
            print_parts('{"events":[', told, "]}")


def _named(opened: Reading, user: str | None, session: str | None) -> tuple[UUID, UUID | None]:
    """The stream, and the session in it that is asked for."""
    with opened.database.reading() as connection:
        if user is not None:
            stream = opened.keys.pseudonym(user)
            if is_known(connection, stream):
                return stream, None
        with suppress(ValueError):
            if session is not None and (of := stream_of_session(connection, UUID(session))):
                return of, UUID(session)
    raise Refused(f"The log knows no {'session' if user is None else 'user'} {session or user}.")


def _told(
    opened: Reading,
    stream: UUID,
    session_id: UUID | None,
    since: datetime | None,
    to: datetime | None,
    *,
    follow: bool,
) -> Iterator[dict[str, Any]]:
    """Each event as it is printed; while it follows, names are looked up anew each time, as people are erased."""
    with opened.database.reading() as connection:
        after = position_at(connection, to_micros(since) - 1) if since else 0
        last = position_at(connection, to_micros(to)) if to else ALL
        while True:
            names = ActorNames(opened.database, opened.keys, opened.mapper)
            until = min(last, last_position(connection))
            for told in Storyteller(connection, opened.mapper).tell(stream, session_id, after=after, until=until):
                yield _members(told, names)
            if not follow:
                return
            after = until
            while last_position(connection) == until:
                pause(LOOKS_EVERY_S)


def _members(told: Told, names: ActorNames) -> dict[str, Any]:
    record, fact, cause = told
    details = told.details()
    details.pop("session_id", None)
    return {
        "position": record.position,
        "recorded_at": from_micros(record.recorded_at),
        "time": fact.timestamp,
        "event": record.topic,
        "event_id": fact.event_id,
        "session_id": told.session_id,
        "actor": fact.actor,
        "actor_name": names.name(fact.actor, fact.originator_id),
        "reason": details.pop("reason", None),
        "cause": cause and {"position": cause.position, "event": cause.topic, "event_id": cause.event_id},
        "correlation_id": fact.correlation_id,
        "details": details,
    }


def _line(event: dict[str, Any]) -> str:
    """One event for people: position, time, event, then what there is to say of it."""
    name, cause = event["actor_name"], event["cause"]
    said = chain(
        (f"session {event['session_id']}" if event["session_id"] else None,),
        (f"by {event['actor']}" + (f" ({name})" if name else ""), event["reason"]),
        (cause and f"because of {cause['position']} {cause['event']}",),
        (f"{word.replace('_', ' ')}: {_value(value)}" for word, value in event["details"].items()),
    )
    told = "  ".join(printable(part) for part in said if part)
    return f"{event['position']:>9}  {shown(event['recorded_at'])}  {event['event']:<26}  {told}"


def _value(value: Any) -> Any:
    match value:
        case datetime():
            return shown(value)
        case tuple():
            return " ".join(map(str, value))
        case _:
            return value
