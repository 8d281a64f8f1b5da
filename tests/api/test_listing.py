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
from tests.api.client import ADMIN, Api, Headers, SignedIn, bearer, told, until
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
    assert admin_ids(api) == [third.id, second.id, first.id]
    api.clock.advance(61)
    assert api.is_active(first.bearer)
    until(lambda: admin_ids(api) == [first.id, third.id, second.id])


def test_exactly_one_session_is_the_current_one_by_whatever_credential(api: Api):
    alice, other = api.sign_in(), api.sign_in()
    for headers in alice.ways_in.values():
        assert [s["id"] for s in api.sessions(headers) if s["is_current"]] == [alice.id]
        assert [s["id"] for s in api.sessions(headers, "?status=all") if s["is_current"]] == [alice.id]
    new = api.sign_in(replaces=alice.token)
    for headers in new.ways_in.values():
        assert [(s["id"], s["is_current"]) for s in api.sessions(headers)] == [(new.id, True), (other.id, False)]


def test_none_is_current_for_a_key_or_for_another_person(api: Api):
    api.sign_in(), api.sign_in()
    admin = api.sign_in("root")
    for headers in (ADMIN, bearer(admin.access_token(scope="users:admin"))):
        for status in ("active", "all"):
            listed = api.get(f"/api/users/alice/sessions?status={status}", headers).json()["sessions"]
            assert [session["is_current"] for session in listed] == [False, False]


def test_an_administrator_sees_his_own_current_session_as_such(api: Api):
    root, there = api.sign_in("root"), api.sign_in("root")
    listed = api.get("/api/users/root/sessions", bearer(root.access_token(scope="users:admin"))).json()["sessions"]
    assert {s["id"]: s["is_current"] for s in listed} == {root.id: True, there.id: False}


def test_fifty_live_sessions_among_five_hundred_ended_ones_are_all_listed(api: Api):
    everyone = sign_in_many(api, 550)
    live = everyone[500:]
    listed = api.sessions(live[0].bearer)
    assert [s["id"] for s in listed] == [s.id for s in reversed(live)]
    assert {(s["device"], s["ip_address"]) for s in listed} == {("curl", "203.0.113.7")}
    assert [s["user_agent"] for s in listed] == [f"curl/{i}" for i in reversed(range(500, 550))]
    newest = api.sign_in()
    assert api.ids(newest.bearer) == [newest.id, *(s.id for s in reversed(live[1:]))]


def test_paging_parameters_change_nothing_in_the_list_of_active_ones(api: Api):
    alice = sign_in_many(api, 3)[0]
    answer = api.get("/api/sessions?limit=1&cursor=whatever", alice.bearer)
    assert len(answer.json()["sessions"]) == 3
    assert "Link" not in answer.headers


def test_each_ended_session_says_when_why_and_by_whom(open_api: OpenApi):
    api = open_api(max_sessions_per_user=6)
    capped, idle = api.sign_in(), api.sign_in()
    by_himself, by_others, by_admin = (api.sign_in(remember_me=True) for _ in range(3))
    alice = api.sign_in(remember_me=True)
    last = api.sign_in(remember_me=True)
    api.clock.advance(10)
    api.delete(f"/api/sessions/{by_others.id}", alice.bearer)
    api.post("/api/auth/signout", by_himself.bearer)
    api.delete(f"/api/users/alice/sessions/{by_admin.id}", ADMIN)
    api.clock.advance(1800)
    ends = {s["id"]: (s["ended_at"], s["end_reason"], s["ended_by"]) for s in api.sessions(last.bearer, "?status=all")}
    assert ends == {
        capped.id: (after(0), "session_limit", "key:bootstrap"),
        idle.id: (after(1800), "inactivity_timeout", "policy:end-sessions-on-timeout"),
        by_others.id: (after(10), "revoked_by_user", "self"),
        by_himself.id: (after(10), "signed_out", "self"),
        by_admin.id: (after(10), "revoked_by_admin", "key:bootstrap"),
        alice.id: (None, None, None),
        last.id: (None, None, None),
    }
    assert {s["id"] for s in api.sessions(last.bearer, "?status=ended")} == {i for i, end in ends.items() if end[0]}


def test_the_end_of_a_session_is_shown_alike_before_and_after_it_is_recorded(api: Api):
    def ended() -> list[dict[str, Any]]:
        return api.get("/api/users/alice/sessions?status=ended", ADMIN).json()["sessions"]

    alice = api.sign_in()
    api.clock.advance(3600)
    judged = ended()
    assert api.service.sweeper.sweep() == 1
    assert ended() == judged
    assert [session["id"] for session in judged] == [alice.id]


# -- the history


@pytest.mark.parametrize("status", ["ended", "all"])
def test_following_next_leads_through_the_whole_history_newest_first(api: Api, status: str):
    everyone = sign_in_many(api, 57)
    ended, alice = everyone[:7], everyone[-1]
    expected = [s.id for s in reversed(ended if status == "ended" else everyone)]
    for limit in (1, 3, 7, 100) if status == "ended" else (10, 57, 56):
        by_user = list(pages(api, f"/api/sessions?status={status}&limit={limit}", alice.bearer))
        by_admin = list(pages(api, f"/api/users/alice/sessions?status={status}&limit={limit}", ADMIN))
        assert by_user == by_admin == [expected[i : i + limit] for i in range(0, len(expected), limit)]


def test_a_page_has_fifty_rows_unless_the_caller_says(api: Api):
    alice = sign_in_many(api, 103)[-1]
    sizes = [len(page) for page in pages(api, "/api/sessions?status=all", alice.bearer)]
    assert sizes == [50, 50, 3]


def test_paging_while_sessions_come_and_go_repeats_and_skips_nothing(api: Api):
    everyone = sign_in_many(api, 100)
    alice = everyone[-1]
    seen: list[str] = []
    for number, page in enumerate(pages(api, "/api/sessions?status=ended&limit=8", alice.bearer)):
        seen += page
        sign_in_many_more = [api.sign_in() for _ in range(2)]
        for session in (everyone[60 + number], sign_in_many_more[0]):
            api.delete(f"/api/sessions/{session.id}", alice.bearer)
    ended_before = [s.id for s in reversed(everyone[:50])]
    assert [session_id for session_id in seen if session_id in ended_before] == ended_before
    assert len(seen) == len(set(seen))


def test_the_next_page_of_an_administrator_names_the_user_as_he_did(api: Api):
    user_id = "tenant/ünï 100%?x"
    everyone = sign_in_many(api, 3, user_id)
    path = "/api/users/tenant%2F%C3%BCn%C3%AF%20100%25%3Fx/sessions?status=all&limit=2"
    assert [i for page in pages(api, path, ADMIN) for i in page] == [s.id for s in reversed(everyone)]


def test_t_22_a_cursor_answers_only_the_question_that_it_continues(api: Api):
    alice, bob = sign_in_many(api, 52)[-1], api.sign_in("bob")
    cursor = next_cursor(api, "/api/sessions?status=all&limit=1", alice.bearer)
    other_end = "B" if cursor[-1] == "A" else "A"
    refused = [
        ("status=ended", cursor, alice.bearer),
        ("status=all", cursor, bob.bearer),
        ("status=all", cursor[:-1] + other_end, alice.bearer),
        ("status=all", cursor[:-1], alice.bearer),
        ("status=all", cursor + "A", alice.bearer),
        ("status=all", "A" * len(cursor), alice.bearer),
        ("status=all", "", alice.bearer),
        ("status=all", "1", alice.bearer),
        ("status=all", "%C3%A9", alice.bearer),
        ("status=all", "%00", alice.bearer),
    ]
    for query, forged, headers in refused:
        assert told(api.get(f"/api/sessions?{query}&cursor={forged}", headers)) == (400, "invalid-cursor"), forged
    assert told(api.get(f"/api/users/bob/sessions?status=all&cursor={cursor}", ADMIN)) == (400, "invalid-cursor")
    assert api.get(f"/api/users/alice/sessions?status=all&cursor={cursor}", ADMIN).status_code == 200


def test_a_cursor_holds_over_a_restart(open_api: OpenApi, api: Api):
    everyone = sign_in_many(api, 3)
    cursor = next_cursor(api, "/api/sessions?status=all&limit=1", everyone[-1].bearer)
    later = open_api()
    assert later.ids(everyone[-1].bearer, f"?status=all&cursor={cursor}") == [everyone[1].id, everyone[0].id]


def admin_ids(api: Api) -> list[str]:
    return [session["id"] for session in api.get("/api/users/alice/sessions", ADMIN).json()["sessions"]]


def after(seconds: int) -> str:
    return (NOON + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
