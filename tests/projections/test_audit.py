"""The audit read model: its rows, its answers against a full scan of the log, and the ways it looks them up."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, insert, inspect, select, text

from domain.events import ClientDetails, EndReason, SessionCreated, SessionRevoked, SessionTouched, UserDisabled
from projections.audit import (
    AuditProjection,
    AuditRow,
    by_event_id,
    counts,
    following,
    freshness,
    last_before,
    newest,
)
from projections.audit_filter import AuditFilter
from projections.places import entries
from store.clock import to_micros
from store.log import pages
from store.recorder import Entry
from tests.clock import NOON
from tests.postgres import Database
from tests.projections.conftest import NewDriver
from tests.projections.driver import ACTOR, Driver, has_caught_up, until

LIMITS = (1, 2, 3, 7, 50)
EVERYTHING = AuditFilter()


@pytest.fixture(scope="module")
def storied(new_driver: NewDriver) -> Driver:
    """A log of three users with sessions of every fate over two days, folded in batches and live."""
    driver = new_driver()
    _story(driver)
    driver.service.start()
    until(lambda: has_caught_up(driver))
    _story(driver)
    until(lambda: has_caught_up(driver, name=AuditProjection.name))
    return driver


def _story(driver: Driver) -> None:
    clock = driver.service.clock
    for user in ("alice", "bob", "carol"):
        first, second = driver.sign_in(user), driver.sign_in(user)
        clock.advance(300)
        driver.touch(first, user)
        driver.revoke(second, EndReason.REVOKED_BY_ADMIN, user, actor=f"user:{driver.stream('alice')}")
        clock.advance(3600 * 4)
    driver.disable("bob")
    driver.enable("bob")


def log_of(driver: Driver) -> list[Entry]:
    """A full scan of the log, oldest first."""
    with driver.service.database.reading() as connection:
        records = itertools.chain.from_iterable(pages(connection, 0, driver.head()))
        return [*entries(driver.service.mapper, [*records])]


def expected(entry: Entry) -> AuditRow:
    fact = entry.fact
    return AuditRow(
        entry.position, fact.event_id, fact.TOPIC, fact.originator_id, getattr(fact, "session_id", None), fact.actor,
        getattr(fact, "reason", None), fact.correlation_id, fact.causation_id, to_micros(fact.timestamp),
        entry.recorded_at,
    )  # fmt: skip


def filters(log: Sequence[Entry]) -> Iterator[AuditFilter]:
    """Each filter by itself and with others, with values that occur and some that do not."""
    session = next(e.fact.session_id for e in log if isinstance(e.fact, SessionRevoked))
    streams = sorted({e.fact.originator_id for e in log}, key=str)
    times = sorted({e.recorded_at for e in log})
    given: dict[str, list[Any]] = {
        "event_type": [None, SessionTouched.TOPIC, UserDisabled.TOPIC],
        "stream": [None, streams[0], uuid4()],
        "session_id": [None, session],
        "actor": [None, ACTOR, f"user:{streams[0]}"],
        "start": [None, times[2], times[-1] + 1],
        "end": [None, times[-3], times[0] - 1],
    }
    for values in itertools.product(*given.values()):
        yield AuditFilter(**dict(zip(given, values, strict=True)))


def test_each_event_of_the_log_has_its_row(storied: Driver):
    log = log_of(storied)
    with storied.service.database.reading() as connection:
        rows = newest(connection, EVERYTHING, 10_000)
        position = freshness(connection)
    assert rows == [expected(entry) for entry in reversed(log)]
    assert position == (len(log), storied.head())


def test_each_filter_and_page_says_what_a_full_scan_of_the_log_says(storied: Driver):
    """Every filter, limits 1, 2, 3, 7 and 50, and every cursor."""
    log = log_of(storied)
    with storied.service.database.reading() as connection:
        for asked in filters(log):
            wanted = [expected(entry) for entry in reversed(log) if asked.matches(entry)]
            for limit in LIMITS:
                found: list[AuditRow] = []
                while page := newest(connection, asked, limit, before=found[-1].position if found else None):
                    found += page
                assert found == wanted, (asked, limit)
                assert newest(connection, asked, limit, offset=3) == wanted[3 : 3 + limit]


def test_what_follows_a_position_comes_in_the_order_of_the_log(storied: Driver):
    log = log_of(storied)
    with storied.service.database.reading() as connection:
        for asked in filters(log):
            wanted = [expected(entry) for entry in log if asked.matches(entry)]
            for after in (0, 4, len(log) - 1):
                behind = [row for row in wanted if after < row.position <= len(log) - 1]
                assert following(connection, asked, 50, after, len(log) - 1) == behind


def test_an_event_is_found_by_its_id(storied: Driver):
    log = log_of(storied)
    with storied.service.database.reading() as connection:
        found = [by_event_id(connection, entry.fact.event_id) for entry in log]
        unknown = by_event_id(connection, uuid4())
    assert found == [expected(entry) for entry in log]
    assert unknown is None


def test_types_are_counted(storied: Driver):
    with storied.service.database.reading() as connection:
        assert counts(connection) == Counter(entry.fact.TOPIC for entry in log_of(storied))


def test_the_place_of_a_moment_in_the_log_is_found(storied: Driver):
    log = log_of(storied)
    with storied.service.database.reading() as connection:
        places = [last_before(connection, entry.recorded_at) for entry in log]
    assert places == [sum(other.recorded_at < entry.recorded_at for other in log) for entry in log]


def test_no_personal_data_stands_in_clear_in_it(driver: Driver, database: Database):
    driver.sign_in("alice@example.com", client=ClientDetails("203.0.113.7", "Mozilla/5.0 (canary)"))
    driver.service.start()
    until(lambda: has_caught_up(driver, name=AuditProjection.name))
    with driver.service.database.reading() as connection:
        tables = [name for name in inspect(connection).get_table_names() if name.startswith("audit")]
        rows = repr([[*connection.execute(text(f"SELECT * FROM {table}"))] for table in tables])
    assert str(driver.stream("alice@example.com")) in rows
    for secret in ("alice@example.com", "203.0.113.7", "canary"):
        assert secret not in rows


# -- how it looks rows up

OTHERS, EACH = 400, 20


@pytest.fixture(scope="module")
def crowded(new_driver: NewDriver) -> Driver:
    """So many users with so many events that no table is worth a scan."""
    driver = new_driver()
    streams = [uuid4() for _ in range(OTHERS)]
    rows = [
        a_row(1 + number, streams[number % OTHERS], streams[number * 7 % OTHERS]) for number in range(OTHERS * EACH)
    ]
    with driver.service.database.transaction() as connection:
        connection.execute(insert(AuditProjection().audit), rows)
        if not driver.service.database.is_sqlite:
            connection.exec_driver_sql("ANALYZE")
    return driver


def a_row(position: int, stream: UUID, actor: UUID) -> dict[str, Any]:
    topics = (SessionTouched.TOPIC, SessionCreated.TOPIC, SessionRevoked.TOPIC)
    at = to_micros(NOON) + position * 1_000_000
    return AuditRow(
        position, uuid4(), topics[position % 3] if position % 499 else UserDisabled.TOPIC, stream, uuid4(),
        f"user:{actor}", None, uuid4(), None, at, at,
    )._asdict()  # fmt: skip


def _asked(**values: Any) -> Callable[[Any, AuditRow], object]:
    """A page of what fits the row in the middle of the table in these columns."""

    def ask(connection: Any, row: AuditRow) -> object:
        given = {name: getattr(row, name) for name in values if name not in ("start", "end")}
        day = {"start": row.recorded_at, "end": row.recorded_at + 10**9} if "start" in values else {}
        return newest(connection, AuditFilter(**given, **day), 10, before=6_000)

    return ask


QUESTIONS: dict[str, tuple[str | None, Callable[[Any, AuditRow], object]]] = {
    "everything": (None, _asked()),
    "user": ("audit_stream", _asked(stream=1)),
    "session": ("audit_session_id", _asked(session_id=1)),
    "actor": ("audit_actor", _asked(actor=1)),
    "day": ("audit_recorded_at", _asked(start=1)),
    "user and day": ("audit_stream", _asked(stream=1, start=1)),
    "user and type": ("audit_stream", _asked(stream=1, event_type=1)),
    "session, user and actor": ("audit_session_id", _asked(session_id=1, stream=1, actor=1)),
    "event": ("audit_event_id", lambda connection, row: by_event_id(connection, row.event_id)),
    "type that is rare": (
        "audit_event_type", lambda connection, _: newest(connection, AuditFilter(event_type=UserDisabled.TOPIC), 50),
    ),
}  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_goes_through_its_index_and_sorts_nothing(crowded: Driver, question: str):
    index, ask = QUESTIONS[question]
    with crowded.service.long_reads.connection() as connection:
        row = newest(connection, EVERYTHING, 1, before=4_001)[0]
        statements: list[tuple[str, Any]] = []
        listener = lambda *told: statements.append((told[2], told[3]))  # noqa: E731
        event.listen(connection.engine, "before_cursor_execute", listener)
        ask(connection, row)
        event.remove(connection.engine, "before_cursor_execute", listener)
        [(sql, values)] = statements
        plan = "EXPLAIN QUERY PLAN" if crowded.service.database.is_sqlite else "EXPLAIN"
        steps = "\n".join(str(line[-1]) for line in connection.exec_driver_sql(f"{plan} {sql}", values))
    assert index is None or index in steps, steps
    for slow in ("SCAN audit\n", "TEMP B-TREE", "Seq Scan", "Sort"):
        assert slow not in steps, steps


def test_the_live_tables_are_those_that_a_rebuild_would_make(driver: Driver):
    rebuilt = AuditProjection("_rebuilt")
    with driver.service.database.transaction() as connection:
        rebuilt.create_tables(connection)
        names = {*inspect(connection).get_table_names()}
        empty = connection.execute(select(rebuilt.audit)).all()
    assert {"audit", "audit_types", "audit_rebuilt", "audit_types_rebuilt"} <= names
    assert empty == []
