"""What was true at a moment stays true: asked at any time later, the answer has the same bytes (§6 of the issue)."""

import os
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from api.service import Service
from domain.events import ClientDetails, EndReason, SessionRevoked
from projections.rebuild import rebuild
from projections.sessions import SessionsProjection
from tests.api.client import ADMIN, Api, running, settings_of
from tests.clock import ManualClock
from tests.postgres import Database
from tests.projections.driver import Driver, request

SEED = int(os.environ.get("PROOF_SEED", "20261126"))
USERS = [f"user-{n}@example.com" for n in range(24)]
PAIRS = 100
STEPS = 400
DAY = 86_400
ADDRESS = "203.0.113.77"

Pair = tuple[str, datetime]


@pytest.fixture
def driver(service: Service) -> Iterator[Driver]:
    """At the wheel of a service that records nothing by itself."""
    driver = Driver(service)
    yield driver
    driver.close()


@pytest.fixture
def api(driver: Driver, database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[Api]:
    """Another one on the same database, for the questions; nobody leads, so nobody sweeps."""
    with running(settings_of(database, tmp_path), clock) as api:
        api.service.follower.close()
        yield api


def test_an_answer_about_a_moment_never_changes(
    api: Api, driver: Driver, database: Database, tmp_path: Path, clock: ManualClock
):
    chance = random.Random(SEED)
    seen = list(lived(driver, clock, chance))
    clock.advance(31 * DAY)  # everything has ended by time; nothing of that is recorded
    pairs = [(user, at) for user, at, _ in chance.sample(seen, PAIRS)]
    before = answers(api, pairs)
    assert len(set(before)) > PAIRS / 2
    ends = len(driver.facts(SessionRevoked))

    assert driver.service.sweeper.sweep() > 10
    assert len(driver.facts(SessionRevoked)) > ends + 10
    assert answers(api, pairs) == before, "after the sweep"

    assert rebuild(driver.service.database, SessionsProjection).identical
    assert answers(api, pairs) == before, "after a rebuild"

    other = {"idle_timeout": 7, "absolute_timeout": 9, "remember_idle_timeout": 8, "remember_absolute_timeout": 8}
    with running(settings_of(database, tmp_path, **other, max_sessions_per_user=1), clock) as changed:
        assert answers(changed, pairs) == before, "after a change of settings"

    for user in USERS:
        assert driver.ledger.erase_user(user, request()).result(20).result
        driver.service.erasure.carry_out(driver.stream(user))
    after = answers(api, pairs)
    assert ADDRESS.encode() in b"".join(before)
    assert after == [*map(impersonal, before)], "after an erasure"
    assert rebuild(driver.service.database, SessionsProjection).identical
    assert answers(api, pairs) == after, "after the next rebuild"


def test_the_past_is_what_was_shown_when_it_was_the_present(api: Api, driver: Driver, clock: ManualClock):
    seen = list(lived(driver, clock, random.Random(SEED + 1)))
    clock.advance(DAY)
    driver.service.sweeper.sweep()
    for user, at, shown in seen:
        sessions = api.get(f"/api/users/{user}/sessions", ADMIN, params={"as_of": at.isoformat()}).json()["sessions"]
        assert [session["id"] for session in sessions] == shown, (user, at)


def lived(driver: Driver, clock: ManualClock, chance: random.Random) -> Iterator[tuple[str, datetime, list[str]]]:
    """A random story; after each step the ids that somebody's list shows at that moment."""
    for _ in range(STEPS):
        user = chance.choice(USERS)
        happen(driver, user, chance)
        somebody = chance.choice([user, chance.choice(USERS)])
        yield somebody, clock.now(), [str(session_id) for session_id in driver.active(somebody)]
        clock.advance(chance.choice([0.000_001, 1, 61, 600, 1_700, 3_600]))


def happen(driver: Driver, user: str, chance: random.Random) -> None:
    sessions = driver.active(user)
    match chance.choices(["sign in", "touch", "revoke", "disable", "enable", "everybody"], [8, 8, 2, 0.5, 2, 0.3])[0]:
        case "touch" if sessions:
            driver.touch(chance.choice(sessions), user)
        case "revoke" if sessions:
            driver.revoke(chance.choice(sessions), chance.choice([*EndReason][:4]), user)
        case "disable":
            driver.disable(user)
        case "enable":
            driver.enable(user)
        case "everybody":
            driver.ledger.invalidate_sessions(None, EndReason.REVOKE_ALL, request()).result(20)
        case _:
            driver.enable(user)
            client = ClientDetails(ADDRESS, None)
            driver.sign_in(user, client=client, remember_me=chance.random() < 0.3)


def impersonal(answer: bytes) -> bytes:
    """Personal fields aside."""
    return answer.replace(f'"{ADDRESS}"'.encode(), b"null")


def answers(api: Api, pairs: list[Pair]) -> list[bytes]:
    return [answer(api, user, at) for user, at in pairs]


def answer(api: Api, user: str, at: datetime) -> bytes:
    told = api.get(f"/api/users/{user}/sessions", ADMIN, params={"as_of": at.isoformat()})
    assert told.status_code == 200, told.text
    return told.content
