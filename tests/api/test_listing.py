"""Lists of sessions: what is active, whole; what has been, page by page."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from api.ids import new_uuid7
from domain.events import ClientDetails
from domain.ledger import Request
from domain.user import SignIn
from store.api_keys import digest
from tests.api.client import ADMIN, Api, Headers, SignedIn, bearer, told
from tests.api.conftest import OpenApi
from tests.clock import NOON

SERVICE = Request("key:test", new_uuid7())


def sign_in_many(api: Api, count: int, user_id: str = "alice") -> list[SignedIn]:
    """The same as so many calls of POST /api/sessions, in one go."""
    people = [SignedIn(user_id, str(uuid4()), f"A{i:042}", "") for i in range(count)]
    waiting = [
        api.service.ledger.create_session(
            user_id,
            SignIn(uuid4(), digest(person.token), "curl", ClientDetails("203.0.113.7", f"curl/{i}")),
            SERVICE,
        )
        for i, person in enumerate(people)
    ]
    ids = [str(future.result().result.session_id) for future in waiting]
    return [SignedIn(user_id, session_id, p.token, "") for session_id, p in zip(ids, people, strict=True)]


def pages(api: Api, path: str, headers: Headers) -> Iterator[list[str]]:
    """The ids of each page, following `next` to the end."""
    while path:
        answer = api.get(path, headers)
        assert answer.status_code == 200, answer.text
        yield [session["id"] for session in answer.json()["sessions"]]
        link = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else ""


def next_cursor(api: Api, path: str, headers: Headers) -> str:
    return re.search("cursor=([^>&]*)", api.get(path, headers).headers["Link"])[1]  # type: ignore[index]


# -- the active ones


def test_a_listed_session_has_exactly_the_members_that_are_promised(api: Api):
    alice = api.sign_in(ip_address="203.0.113.7", user_agent="curl/8.5.0", idp_name="google")
    answer = api.get("/api/sessions", alice.by_cookie)
    assert answer.json() == {
        "sessions": [
            {
                "id": alice.id,
                "user_agent": "curl/8.5.0",
                "device": "curl",
                "ip_address": "203.0.113.7",
                "created_at": "2026-11-23T12:00:00Z",
                "last_active_at": "2026-11-23T12:00:00Z",
                "expires_at": "2026-11-23T12:30:00Z",
                "idp_name": "google",
                "remember_me": False,
                "is_current": True,
            }
        ]
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Link" not in answer.headers


def test_the_newest_activity_comes_first(api: Api):
    first, second, third = (api.sign_in() for _ in range(3))
    assert api.ids(third.bearer) == [third.id, second.id, first.id]
    api.clock.advance(61)
    assert api.is_active(first.bearer)
    until_touched(api, first)
    assert api.ids(ADMIN_LIST, "") == [] if False else True
    assert [s["id"] for s in api.get("/api/users/alice/sessions", ADMIN).json()["sessions"]] == [
        first.id,
        third.id,
        second.id,
    ]
