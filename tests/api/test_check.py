"""The session check has two implementations, the short path and FastAPI's route: whoever calls, they answer alike."""

from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.check import PATH, SessionCheck
from api.edge import Edge
from tests.api.client import ORIGIN, Api, SignedIn
from tests.api.corpus import accepted, refused
from tests.store.given import until

CASES = [*accepted(), *refused()]


def by_the_route(api: Api, method: str, path: str, headers: Any = None, **more: Any) -> httpx.Response:
    """What FastAPI's route answers, behind the same edge."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Edge(partial(FastAPI.__call__, api.app)), client=("192.0.2.7", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            return await client.request(method, path, headers=headers, **more)

    return api.ask(ask)


def told(answer: httpx.Response) -> Any:
    """Everything but the id of the request."""
    body = answer.json()
    body.pop("instance", None)
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "x-request-id")
    return answer.status_code, headers, body


def short_path(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each request that takes the short path."""
    taken: list[str] = []
    answer = SessionCheck._answer

    async def noted(check: SessionCheck, scope: Any) -> bytes:
        taken.append(scope["method"])
        return await answer(check, scope)

    monkeypatch.setattr(SessionCheck, "_answer", noted)
    return taken


def test_every_credential_gets_the_same_answer_from_both(api: Api, monkeypatch: pytest.MonkeyPatch):
    taken = short_path(api, monkeypatch)
    alice = api.sign_in()
    for case in CASES:
        headers = case.headers(api, alice)
        short, route = api.get(PATH, headers), by_the_route(api, "GET", PATH, headers)
        assert (case.name, told(short)) == (case.name, told(route))
        assert (case.name, short.status_code) == (case.name, case.answer[0])
    assert len(taken) == len(CASES)


def test_both_answer_in_the_same_bytes(api: Api):
    alice = api.sign_in(
        "ålice", ip_address="2001:db8::1", user_agent='Mo"zilla\\ é\u2028', remember_me=True, idp_name="a/b"
    )
    bare = api.sign_in("bob")
    for who in (alice, bare):
        assert api.get(PATH, who.bearer).content == by_the_route(api, "GET", PATH, who.bearer).content


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", PATH, b"{}"),
        ("GET", PATH, b'{"x":1}'),
        ("GET", PATH, b"{"),
        ("GET", f"{PATH}?limit=1", b""),
        ("GET", f"{PATH}?token=x", b""),
        ("GET", f"{PATH}/", b""),
        ("GET", f"{PATH}%0a", b""),
        ("GET", "/api//auth/session", b""),
        ("GET", "/API/auth/session", b""),
        ("HEAD", PATH, b""),
        ("POST", PATH, b""),
        ("DELETE", PATH, b""),
        ("OPTIONS", PATH, b""),
    ],
)
def test_every_way_to_ask_is_answered_alike(shared_api: Api, method: str, path: str, body: bytes):
    alice = shared_api.sign_in()
    headers = {**alice.bearer, **({"Content-Type": "application/json"} if body else {})}
    short, route = (
        ask(method, path, headers, content=body) for ask in (shared_api.request, partial(by_the_route, shared_api))
    )
    if method == "HEAD":
        assert (short.status_code, short.headers["allow"]) == (route.status_code, route.headers["allow"])
    else:
        assert told(short) == told(route)


def test_a_use_is_recorded_by_both(api: Api):
    alice = api.sign_in()
    for ask in (api.request, partial(by_the_route, api)):
        api.clock.advance(60)
        before = len(api.log())
        assert ask("GET", PATH, alice.bearer).status_code == 200
        until(lambda before=before: len(api.log()) == before + 1)


def test_an_end_is_told_by_both(api: Api):
    def both(alice: SignedIn) -> set[int]:
        return {ask("GET", PATH, alice.bearer).status_code for ask in (api.request, partial(by_the_route, api))}

    alice = api.sign_in()
    assert both(alice) == {200}
    api.delete(f"/api/sessions/{alice.id}", alice.bearer)
    assert both(alice) == {401}
    bob = api.sign_in("bob")
    api.clock.advance(1800)
    assert both(bob) == {401}


def test_what_nobody_foresaw_is_a_500_of_both(api: Api, monkeypatch: pytest.MonkeyPatch):
    alice = api.sign_in()

    async def broken(*_: Any) -> Any:
        raise RuntimeError("canary")

    monkeypatch.setattr(api.app.state.presenter, "one", broken)
    for ask in (api.request, partial(by_the_route, api)):
        answer = ask("GET", PATH, alice.bearer)
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (500, "internal-error")
        assert "canary" not in answer.text
