"""Whether the ledger, its read model and HTTP show what the model says, at one moment."""

from concurrent.futures import Future
from datetime import datetime
from typing import Any
from unittest.mock import patch

import httpx
from eventsourcing.application import AggregateNotFoundError
from sqlalchemy import func, select

from api.listing import NEWEST
from api.service import Service
from domain.events import SessionRevoked
from domain.ledger import Recorded
from domain.user import DISABLED, EXPIRY
from projections.session_views import read_invalidations
from store.schema import events, head
from tests.api.client import ADMIN, Api, Headers, bearer
from tests.proof.model import End, Model, Session
from tests.store.given import facts

USERS = ("alice", "bob")
WAYS = ("cookie", "token", "access token")
ENDED_BY = {
    "signed_out": "self",
    "revoked_by_user": "self",
    "revoke_all": "self",
    "revoked_by_admin": "key:bootstrap",
    "session_limit": "key:bootstrap",
    "replaced": "key:bootstrap",
    "user_disabled": DISABLED,
    "inactivity_timeout": EXPIRY,
    "absolute_timeout": EXPIRY,
}


class Observer:
    """Looks, and changes nothing: what it asks counts as nobody's use."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.shown: dict[Session, End] = {}

    def all_agree(self, api: Api, turn: int) -> None:
        for user in USERS:
            self.the_ledger_agrees(api.service, user)
            self.the_read_model_agrees(api, user)
        self.http_agrees(api, turn)
        self.no_end_has_changed()
        assert_no_gap(api.service)

    def the_ledger_agrees(self, service: Service, user: str) -> None:
        try:
            aggregate = service.ledger.repository.get(service.keys.pseudonym(user))
        except AggregateNotFoundError:
            assert self.model.of(user) == []
            assert user not in self.model.disabled
            return
        assert bool(aggregate.disabled) == (user in self.model.disabled)
        with service.database.reading() as connection:
            invalidations = read_invalidations(connection)
        live = [s for s in aggregate.sessions.values() if s.is_live(self.model.now) and not aggregate.disabled]
        in_it = [s for s in live if not s.invalidation(invalidations)]
        assert [(str(s.session_id), s.last_active_at) for s in in_it] == [
            (session.told.id, session.used) for session in self.model.live(user)
        ]

    def the_read_model_agrees(self, api: Api, user: str) -> None:
        sessions, stream = api.service.sessions, api.service.keys.pseudonym(user)
        views = api.ask(lambda: sessions.history(stream, ended_only=False, before=NEWEST, limit=1000))
        seen = [(str(v.session_id), v.last_active_at, v.end and (v.end.at, v.end.reason, v.ended_by)) for v in views]
        assert seen == [(s.told.id, s.used, how(s.end)) for s in reversed(self.model.of(user))]
        active = api.ask(lambda: sessions.active(stream))
        assert [str(view.session_id) for view in active] == self.newest_activity_first(user)

    def http_agrees(self, api: Api, turn: int) -> None:
        """Every list, and every token that was ever given out."""
        asked = [
            (f"/api/users/{user}/sessions{query}", ADMIN, seen) for user in USERS for query, seen in self.lists(user)
        ]
        for number, session in enumerate(self.model.sessions):
            headers = headers_of(session, WAYS[(number + turn) % len(WAYS)], self.model.now)
            asked.append(("/api/auth/session", headers, 401 if session.end else session.told.id))
            if not session.end:
                query, seen = self.lists(session.user)[(number + turn) % 3]
                asked.append((f"/api/sessions{query}", headers, seen))
        with unnoticed(api):
            answers = api.at_once([("GET", path, headers) for path, headers, _ in asked])
        for answer, (path, _, expected) in zip(answers, asked, strict=True):
            assert told(answer) == expected, path

    def lists(self, user: str) -> list[tuple[str, Any]]:
        """Each list of this user, and what it must show."""
        history = [(session.told.id, how(session.end)) for session in reversed(self.model.of(user))]
        return [
            ("", [(session_id, None) for session_id in self.newest_activity_first(user)]),
            ("?status=all&limit=100", history),
            ("?status=ended&limit=100", [(session_id, end) for session_id, end in history if end]),
        ]

    def newest_activity_first(self, user: str) -> list[str]:
        return [s.told.id for s in sorted(self.model.live(user), key=lambda s: s.used)[::-1]]

    def no_end_has_changed(self) -> None:
        """All that was looked at agrees with the model; so its ends are what was shown."""
        for session in self.model.sessions:
            if session.end:
                assert self.shown.setdefault(session, session.end) == session.end

    def the_log_agrees(self, service: Service) -> None:
        """Each end is told once, as it was shown, and nothing else is."""
        ends = [fact for fact in facts(service) if isinstance(fact, SessionRevoked)]
        seen = sorted((str(fact.session_id), (fact.ended_at, fact.reason, fact.actor)) for fact in ends)
        assert seen == sorted((s.told.id, how(s.end)) for s in self.model.sessions if s.end)


def headers_of(session: Session, way: str, now: datetime) -> Headers:
    if way == "access token":
        return bearer(session.told.access_token(iat=now.timestamp(), exp=now.timestamp() + 600))
    return session.told.by_cookie if way == "cookie" else session.told.bearer


def unnoticed(api: Api) -> Any:
    """What is asked meanwhile counts as nobody's use."""
    nothing: Future[Recorded[bool]] = Future()
    nothing.set_result(Recorded(True, 0))
    return patch.object(api.service.ledger, "touch_session", lambda *_: nothing)


def how(end: End | None) -> tuple[datetime, str, str] | None:
    return end and (end.at, end.reason, end.by or ENDED_BY[end.reason])


def told(answer: httpx.Response) -> Any:
    """The id of the session of a check; of each in a list also how it ended; otherwise the status."""
    if answer.status_code != 200:
        return answer.status_code
    body = answer.json()
    return body["session"]["id"] if "session" in body else [(s["id"], told_end(s)) for s in body["sessions"]]


def told_end(session: dict[str, Any]) -> tuple[datetime, str, str] | None:
    ended_at = session.get("ended_at")
    return ended_at and (datetime.fromisoformat(ended_at), session["end_reason"], session["ended_by"])


def assert_no_gap(service: Service) -> None:
    with service.database.reading() as connection:
        counted = connection.execute(select(func.count(), func.max(events.c.position))).one()
        assert counted in ((0, None), (connection.execute(select(head.c.position)).scalar(),) * 2)
