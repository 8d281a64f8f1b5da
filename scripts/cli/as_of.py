"""`./scripts/ledger as-of`: who was signed in at a moment, and how that ended, as the log has it."""

from datetime import datetime
from typing import Annotated, Any

import typer

from projections.as_of import NotYet, Then, at_moment, at_position, sessions_as_of
from projections.session_views import SessionView
from projections.story import is_known
from scripts.cli.moments import moment, shown
from scripts.cli.names import user_id
from scripts.cli.opening import Reading, reading
from scripts.cli.output import AsJson, print_json, print_table
from scripts.cli.refusing import Refused

COLUMNS = (
    *("id", "device", "created_at", "last_active_at", "expires_at", "idp_name"),
    *("ended_at", "end_reason", "ended_by"),
)


def as_of(
    user: Annotated[str, typer.Option(parser=user_id, metavar="ID", help="Whose sessions: the user's id.")],
    at: Annotated[
        datetime | None,
        typer.Argument(
            parser=moment, metavar="TIME", help="The moment: RFC 3339; or a date, its first instant in UTC."
        ),
    ] = None,
    position: Annotated[int | None, typer.Option(help="The moment at which this event was recorded.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which sessions of a user were active at a moment, and how and why each has ended since."""
    if (at is None) == (position is None):
        raise typer.BadParameter("Name a moment or a position, one of them.", param_hint="TIME / --position")
    with reading() as opened:
        then, views = _asked(opened, user, at, position)
    sessions = [_members(view) for view in views]
    if as_json:
        print_json({"user_id": user, "as_of": then.moment, "position": then.position, "sessions": sessions})
    else:
        typer.echo(f"At {shown(then.moment)}, position {then.position}, {len(sessions)} sessions were active.")
        print_table([{name: _cell(value) for name, value in session.items()} for session in sessions], COLUMNS)


def _asked(opened: Reading, user: str, at: datetime | None, position: int | None) -> tuple[Then, list[SessionView]]:
    stream, now = opened.keys.pseudonym(user), opened.clock.now()
    with opened.database.reading() as connection:
        try:
            then = at_position(connection, position or 0) if at is None else at_moment(connection, at, now)
        except NotYet as error:
            raise Refused(str(error)) from error
        if not is_known(connection, stream):
            raise Refused(f"The log knows no user {user}.")
        return then, sessions_as_of(connection, opened.mapper, stream, user, then, now)


def _members(view: SessionView) -> dict[str, Any]:
    end_at, end_reason = view.end or (None, None)
    return {
        "id": view.session_id,
        "device": view.device,
        "created_at": view.created_at,
        "last_active_at": view.last_active_at,
        "expires_at": view.expires_at,
        "idp_name": view.idp_name,
        "remember_me": view.remember_me,
        "ended_at": end_at,
        "end_reason": end_reason,
        "ended_by": view.ended_by,
    }


def _cell(value: Any) -> Any:
    return shown(value) if isinstance(value, datetime) else value
