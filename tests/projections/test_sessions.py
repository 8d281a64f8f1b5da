import asyncio
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import insert, select

from domain.aggregate import Context
from domain.events import ClientDetails, EndReason, SessionCreated, SessionRevoked
from domain.session import Limits, Timeouts
from domain.user import DISABLED, EXPIRY, User
from projections.session_views import SessionView, streams_to_settle
from projections.sessions import SessionsProjection
from store.clock import to_micros
from store.database import connect_sqlite_reader
from store.reads import Query
from store.schema import identities
from store.sealing import unseal_client
from tests.clock import NOON, ManualClock
from tests.conftest import OpenService
from tests.postgres import Database
from tests.projections.conftest import Drive
from tests.projections.driver import ACTOR, Driver, token_hash, until

IDLE, ABSOLUTE = Limits().normal.idle, Limits().normal.absolute
A_MOMENT = 1e-6


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


# -- look-ups


def test_a_session_is_found_by_its_token_and_by_its_id_with_everything_that_was_said_of_it(driver: Driver):
    auth_time = NOON - seconds(90)
    said = {"remember_me": True, "idp_name": "okta", "auth_time": auth_time, "amr": ("pwd", "otp")}
    session_id = driver.sign_in(client=ClientDetails("192.0.2.7", "Mozilla/5.0"), **said)
    created = driver.facts(SessionCreated)[0]
    view = driver.view(session_id)
    assert view.client is not None
    key = driver.service.keys.find([view.stream])[view.stream]
    client = unseal_client(key, view.client, view.stream, view.created_version, view.created_event)
    assert client == ClientDetails("192.0.2.7", "Mozilla/5.0")
    assert view == SessionView(
        session_id=session_id,
        stream=driver.stream("alice"),
        user_id="alice",
        created_version=created.originator_version,
        created_event=created.event_id,
        created_at=NOON,
        last_active_at=NOON,
        timeouts=Limits().remembered,
        expires_at=NOON + seconds(Limits().remembered.idle),
        remember_me=True,
        idp_name="okta",
        auth_time=auth_time,
        amr=("pwd", "otp"),
        device="Chrome on macOS",
        client=view.client,
        end=None,
        ended_by=None,
    )


def test_a_session_of_which_little_was_said_is_found_with_the_rest_left_empty(driver: Driver):
    view = driver.view(driver.sign_in())
    assert (view.remember_me, view.idp_name, view.auth_time, view.amr, view.client) == (False, None, None, (), None)


def test_an_authentication_at_the_epoch_is_a_time_like_any_other(driver: Driver):
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert driver.view(driver.sign_in(auth_time=epoch)).auth_time == epoch


def test_an_unknown_token_and_an_unknown_id_find_nothing(driver: Driver):
    driver.sign_in()
    assert driver.by_token(uuid4()) is None
    assert driver.by_id(uuid4()) is None
    assert driver.active("nobody") == driver.history("nobody") == []


def test_checks_that_wait_together_each_get_their_own_session(driver: Driver):
    ids = [driver.sign_in(user_id) for user_id in ("alice", "bob", "carol")]
    asked = [*ids, uuid4(), ids[0]]

    async def check_all() -> list[SessionView | None]:
        return await asyncio.gather(*(driver.service.sessions.by_token(token_hash(each)) for each in asked))

    found = driver.ask(check_all())
    assert [view and view.user_id for view in found] == ["alice", "bob", "carol", None, "alice"]


# -- active or not, at the very moment


def test_a_session_is_active_until_just_before_its_deadline(driver: Driver, clock: ManualClock):
    session_id = driver.sign_in()
    clock.advance(IDLE - A_MOMENT)
    assert driver.active() == [session_id]
    assert driver.is_accepted(session_id)
    clock.advance(A_MOMENT)
    assert driver.active() == []
    assert not driver.is_accepted(session_id)


def test_a_recorded_use_moves_the_idle_deadline_and_never_the_absolute_one(driver: Driver, clock: ManualClock):
    session_id = driver.sign_in()
    for _ in range(ABSOLUTE // IDLE * 2 - 1):
        clock.advance(IDLE / 2)
        assert driver.touch(session_id)
    assert driver.view(session_id).expires_at == NOON + seconds(ABSOLUTE)
    clock.advance(IDLE / 2 - A_MOMENT)
    assert driver.is_accepted(session_id)
    clock.advance(A_MOMENT)
    assert not driver.is_accepted(session_id)


def test_an_ended_session_is_refused_as_soon_as_its_end_is_acknowledged(driver: Driver):
    kept, ended = driver.sign_in(), driver.sign_in()
    driver.revoke(ended)
    assert driver.active() == [kept]
    assert (driver.is_accepted(kept), driver.is_accepted(ended)) == (True, False)


def test_a_disabled_users_sessions_are_refused_though_no_policy_runs(driver: Driver):
    alices, bobs = driver.sign_in("alice"), driver.sign_in("bob")
    driver.disable("alice")
    assert driver.facts(SessionRevoked) == []
    assert (driver.active("alice"), driver.active("bob")) == ([], [bobs])
    assert (driver.is_accepted(alices), driver.is_accepted(bobs)) == (False, True)


def test_enabling_revives_nothing_and_later_sessions_live(driver: Driver):
    old = driver.sign_in()
    driver.disable()
    driver.enable()
    assert driver.active() == []
    new = driver.sign_in()
    assert driver.active() == [new]
    assert not driver.is_accepted(old)


def test_a_disable_cuts_off_for_good_even_where_nobody_recorded_the_ends(driver: Driver):
    session_id = driver.sign_in()
    user: User = driver.ledger.repository.get(driver.stream())
    user.acting(Context(NOON, ACTOR, uuid4(), None, uuid4))
    user.trigger_event(User.UserDisabled)
    user.trigger_event(User.UserEnabled)
    driver.service.recorder.insert_events([driver.service.mapper.to_stored_event(f) for f in user.collect_events()])
    driver.sign_in("bob")
    assert driver.view(session_id).end == (NOON, EndReason.USER_DISABLED)
    assert driver.active() == []
    assert ids(driver.history(ended_only=True)) == [session_id]


def test_a_disable_that_falls_on_a_deadline_ends_by_the_deadline(driver: Driver, clock: ManualClock):
    session_id = driver.sign_in()
    clock.advance(IDLE)
    driver.disable()
    assert driver.view(session_id).end == (NOON + seconds(IDLE), EndReason.INACTIVITY_TIMEOUT)


# -- the list


def test_the_list_has_the_newest_activity_first(driver: Driver, clock: ManualClock):
    first, second, third = (driver.sign_in() for _ in range(3))
    assert driver.active() == [third, second, first]
    clock.advance(90)
    driver.touch(second)
    assert driver.active() == [second, third, first]
    clock.advance(90)
    driver.touch(first)
    assert driver.active() == [first, second, third]


def test_the_list_has_every_live_session_of_a_user_with_many_ended_ones(driver: Driver):
    signing_in = [driver.signing_in() for _ in range(550)]
    ids = [future.result().result.session_id for future in signing_in]
    assert len(driver.facts(SessionRevoked)) == 500
    assert driver.active() == ids[:-51:-1]


# -- judged before it is recorded, and the same afterwards


def by_the_sweeper(driver: Driver) -> None:
    driver.service.sweeper.sweep()


def by_the_next_command(driver: Driver) -> None:
    driver.sign_in()


def by_the_policy(driver: Driver) -> None:
    driver.service.start()
    until(lambda: driver.facts(SessionRevoked))


def by_enabling(driver: Driver) -> None:
    driver.enable()


JUDGED = {
    "idle, swept": (Timeouts(60, 3600), False, by_the_sweeper, EndReason.INACTIVITY_TIMEOUT),
    "idle, settled": (Timeouts(60, 3600), False, by_the_next_command, EndReason.INACTIVITY_TIMEOUT),
    "absolute, swept": (Timeouts(3600, 60), False, by_the_sweeper, EndReason.ABSOLUTE_TIMEOUT),
    "absolute, settled": (Timeouts(3600, 60), False, by_the_next_command, EndReason.ABSOLUTE_TIMEOUT),
    "both at once": (Timeouts(60, 60), False, by_the_sweeper, EndReason.ABSOLUTE_TIMEOUT),
    "disabled, by the policy": (Timeouts(60, 3600), True, by_the_policy, EndReason.USER_DISABLED),
    "disabled, by enabling": (Timeouts(60, 3600), True, by_enabling, EndReason.USER_DISABLED),
}


@pytest.mark.parametrize(("timeouts", "disabled", "record", "reason"), JUDGED.values(), ids=JUDGED.keys())
def test_the_end_that_was_judged_is_the_end_that_is_recorded(
    open_service: OpenService,
    drive: Drive,
    clock: ManualClock,
    timeouts: Timeouts,
    disabled: bool,
    record: Callable[[Driver], None],
    reason: EndReason,
):
    driver = drive(open_service(Limits(normal=timeouts)))
    session_id = driver.sign_in()
    clock.advance(10)
    if disabled:
        driver.disable()
    clock.advance(7200)
    judged = driver.view(session_id)
    assert driver.facts(SessionRevoked) == []
    assert judged.end == (NOON + seconds(10 if disabled else 60), reason)
    assert judged.ended_by == (DISABLED if disabled else EXPIRY)
    record(driver)
    assert len(driver.facts(SessionRevoked)) == 1
    assert driver.view(session_id) == judged
    assert driver.history(ended_only=True) == [judged]


def test_a_disable_whose_recording_comes_after_another_disable_keeps_its_own_time(driver: Driver, clock: ManualClock):
    first = driver.sign_in()
    driver.disable()
    clock.advance(10)
    driver.enable()
    second = driver.sign_in()
    clock.advance(10)
    driver.disable()
    assert driver.view(first).end == (NOON, EndReason.USER_DISABLED)
    assert driver.view(second).end == (NOON + seconds(20), EndReason.USER_DISABLED)


# -- every reason of the closed list

TOLD = (EndReason.SIGNED_OUT, EndReason.REVOKED_BY_USER, EndReason.REVOKED_BY_ADMIN, EndReason.REVOKE_ALL)


@pytest.mark.parametrize("reason", TOLD)
def test_a_revocation_is_shown_with_its_reason_its_time_and_who_did_it(
    driver: Driver, clock: ManualClock, reason: EndReason
):
    session_id = driver.sign_in()
    clock.advance(5)
    assert driver.revoke(session_id, reason, actor="key:admin")
    ended = driver.view(session_id)
    assert (ended.end, ended.ended_by) == ((NOON + seconds(5), reason), "key:admin")
    assert driver.history(ended_only=True) == [ended]


def test_a_session_evicted_at_the_cap_is_shown_with_that_reason(open_service: OpenService, drive: Drive):
    driver = drive(open_service(Limits(max_sessions=1)))
    evicted = driver.sign_in()
    driver.sign_in()
    assert (driver.view(evicted).end, driver.view(evicted).ended_by) == ((NOON, EndReason.SESSION_LIMIT), ACTOR)


def test_a_replaced_session_is_shown_with_that_reason(driver: Driver):
    replaced = driver.sign_in()
    replacement = driver.sign_in(replaces=replaced)
    assert (driver.view(replaced).end, driver.view(replaced).ended_by) == ((NOON, EndReason.REPLACED), ACTOR)
    assert driver.active() == [replacement]


def test_these_tests_know_every_reason():
    judged = {reason for *_, reason in JUDGED.values()}
    never_shown = EndReason.USER_ERASED
    assert {*TOLD, *judged, EndReason.SESSION_LIMIT, EndReason.REPLACED, never_shown} == set(EndReason)


# -- erased


def test_of_an_erased_user_nothing_is_shown_from_the_commit_on_though_no_policy_runs(driver: Driver):
    live, ended = driver.sign_in(), driver.sign_in()
    others = driver.sign_in("bob")
    driver.revoke(ended)
    driver.erase()
    assert driver.active() == driver.history() == []
    assert [driver.by_token(each) or driver.by_id(each) for each in (live, ended)] == [None, None]
    assert driver.is_accepted(others)


def test_it_is_noted_when_a_user_was_erased(driver: Driver, clock: ManualClock):
    driver.sign_in()
    clock.advance(60)
    driver.erase()
    with driver.service.database.reading() as connection:
        assert connection.execute(select(SessionsProjection().erasures)).all() == [
            (driver.stream(), to_micros(NOON + seconds(60)))
        ]


def test_a_sign_in_and_the_erasure_of_one_batch_leave_nothing(driver: Driver):
    signing_in = driver.signing_in()
    driver.erase()
    assert driver.by_id(signing_in.result(20).result.session_id) is None
    assert driver.active() == []


# -- history


def ids(views: list[SessionView]) -> list[UUID]:
    return [view.session_id for view in views]


def test_history_has_the_newest_sign_in_first_whatever_was_used_since(driver: Driver, clock: ManualClock):
    first, second, third = (driver.sign_in() for _ in range(3))
    clock.advance(90)
    driver.touch(first)
    driver.revoke(second)
    assert ids(driver.history()) == [third, second, first]


def test_history_of_the_ended_has_those_that_were_ended_by_time_too_and_no_other(driver: Driver, clock: ManualClock):
    expired = driver.sign_in()
    remembered = driver.sign_in(remember_me=True)
    revoked = driver.sign_in()
    driver.revoke(revoked)
    driver.sign_in("bob")
    clock.advance(IDLE - A_MOMENT)
    assert ids(driver.history(ended_only=True)) == [revoked]
    clock.advance(A_MOMENT)
    assert ids(driver.history(ended_only=True)) == [revoked, expired]
    assert driver.active() == [remembered]
    driver.disable()
    assert ids(driver.history(ended_only=True)) == ids(driver.history()) == [revoked, remembered, expired]


@pytest.mark.parametrize("ended_only", [False, True], ids=["all", "ended"])
def test_history_begins_below_any_version_and_ends_at_any_limit(driver: Driver, ended_only: bool):
    sessions = [driver.sign_in() for _ in range(6)]
    for session_id in sessions:
        driver.revoke(session_id)
    newest_first = driver.history()
    assert ids(newest_first) == sessions[::-1]
    versions = [view.created_version for view in newest_first]
    for before, limit in itertools.product((0, *versions, versions[0] + 1), (1, 2, 3, 6, 7, 100)):
        expected = [view for view in newest_first if view.created_version < before][:limit]
        assert driver.history(ended_only=ended_only, before=before, limit=limit) == expected


@pytest.mark.parametrize("ended_only", [False, True], ids=["all", "ended"])
def test_pages_show_each_session_once_while_others_come_and_go(driver: Driver, ended_only: bool):
    sessions = [driver.sign_in() for _ in range(9)]
    for session_id in sessions:
        driver.revoke(session_id)
    seen: list[SessionView] = []
    while page := driver.history(ended_only=ended_only, before=seen[-1].created_version if seen else 10**6, limit=2):
        seen += page
        driver.revoke(driver.sign_in())
        driver.sign_in()
    assert ids(seen) == sessions[::-1]


# -- past their deadline


def past_deadline(driver: Driver, after: UUID | None = None, limit: int = 10) -> list[UUID]:
    with driver.service.database.reading() as connection:
        return streams_to_settle(connection, driver.service.clock.now(), after, limit)


def test_users_with_sessions_past_their_deadline_are_named_once_each_in_order(driver: Driver, clock: ManualClock):
    for user_id in ("alice", "bob", "carol"):
        driver.sign_in(user_id)
        driver.sign_in(user_id)
    streams = sorted(driver.stream(user_id) for user_id in ("alice", "bob", "carol"))
    clock.advance(IDLE - A_MOMENT)
    assert past_deadline(driver) == []
    clock.advance(A_MOMENT)
    assert past_deadline(driver) == streams
    assert past_deadline(driver, limit=2) == streams[:2]
    assert past_deadline(driver, after=streams[0]) == streams[1:]


def test_the_absolute_deadline_names_a_user_too(open_service: OpenService, drive: Drive, clock: ManualClock):
    driver = drive(open_service(Limits(normal=Timeouts(3600, 60))))
    driver.sign_in()
    clock.advance(60 - A_MOMENT)
    assert past_deadline(driver) == []
    clock.advance(A_MOMENT)
    assert past_deadline(driver) == [driver.stream()]


def test_disabled_users_and_ended_or_remembered_sessions_are_not_past_their_deadline(
    driver: Driver, clock: ManualClock
):
    driver.sign_in("disabled")
    driver.disable("disabled")
    driver.revoke(driver.sign_in("signed-out"), user_id="signed-out")
    driver.sign_in("remembered", remember_me=True)
    clock.advance(IDLE)
    assert past_deadline(driver) == []


# -- what a question costs

OTHERS = 2_000


@pytest.fixture
def crowded(driver: Driver) -> Driver:
    """Alice has 300 ended sessions and 50 live ones, and so many others have a few that no table is worth a scan."""
    tables = SessionsProjection()
    others = [uuid4() for _ in range(OTHERS)]
    driver.sign_in()
    rows = [a_row(user, version, ended=version < 3) for user in others for version in (1, 2, 3)]
    rows += [a_row(driver.stream(), version, ended=version <= 300) for version in range(3, 353)]
    with driver.service.database.transaction() as connection:
        enabled = {"enabled": True, "disabled_version": 0, "disabled_at": None}
        connection.execute(insert(tables.users), [{"stream": user, **enabled} for user in others])
        connection.execute(insert(identities), [{"stream": user, "user_id": str(user)} for user in others])
        connection.execute(insert(tables.sessions), rows)
        if not driver.service.database.is_sqlite:
            connection.exec_driver_sql("ANALYZE")  # as the autovacuum daemon does; SQLite serves without statistics
    return driver


def a_row(stream: UUID, version: int, *, ended: bool) -> dict[str, Any]:
    session_id, noon = uuid4(), to_micros(NOON)
    return {
        **{"session_id": session_id, "stream": stream, "token_hash": token_hash(session_id)},
        **{"created_version": version, "created_event": uuid4(), "created_at": noon, "last_active_at": noon},
        **{"idle_timeout": IDLE, "absolute_timeout": ABSOLUTE, "remember_me": False, "amr": "[]", "device": "Firefox"},
        "ended_at": noon if ended else None,
        "end_reason": "signed_out" if ended else None,
        "ended_by": "self" if ended else None,
    }


QUESTIONS: dict[str, tuple[str, Callable[[Driver], Any]]] = {
    "check": ("sessions_token", lambda driver: driver.by_token(uuid4())),
    "list": ("sessions_live", lambda driver: driver.active()),
    "history": ("sessions_history", lambda driver: driver.history(limit=10)),
    "ended history": ("sessions_history", lambda driver: driver.history(ended_only=True, limit=10)),
}


def test_every_question_goes_through_its_index_and_scans_no_table_but_the_few_invalidations(
    crowded: Driver, database: Database, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str, dict[str, Any]]] = []
    rows = crowded.service.reads.rows

    async def remembering(query: Query, **values: Any) -> Any:
        sql, constants = query.sql(for_sqlite=database.kind == "sqlite")
        asked.append((sql, {**constants, **values}))
        return await rows(query, **values)

    monkeypatch.setattr(crowded.service.reads, "rows", remembering)
    plan = _plan_of_sqlite if database.kind == "sqlite" else _plan_of_postgresql
    for question, (index, ask) in QUESTIONS.items():
        ask(crowded)
        indexes, scans = plan(crowded, *asked.pop())
        assert index in indexes, question
        assert scans == [], question


def _plan_of_sqlite(driver: Driver, sql: str, values: dict[str, Any]) -> tuple[set[str], list[str]]:
    connection = connect_sqlite_reader(driver.service.database.path)
    steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    connection.close()
    indexes = {step.split("INDEX ")[1].split(" ")[0] for step in steps if "INDEX " in step}
    scans = [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step]
    return indexes, [step for step in scans if step != "SCAN earlier"]


def _plan_of_postgresql(driver: Driver, sql: str, values: dict[str, Any]) -> tuple[set[str], list[str]]:
    url = driver.service.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        [(plan,)] = connection.execute(f"EXPLAIN (FORMAT JSON) {sql}", values).fetchall()
    nodes = list(_nodes((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]))
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    scans = [node for node in nodes if node["Node Type"] in ("Seq Scan", "Sort")]
    return indexes, [node["Node Type"] for node in scans if node.get("Relation Name") != "invalidations"]


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
