"""What `./scripts/bench --only history` measures: a log as the ledger writes it, and a script that folds it right."""

import json
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import select

from api.service import Service
from domain.events import ClientDetails, EndReason
from projections.rebuild import rebuild
from projections.sessions import SessionsProjection
from scripts.benchmarks import by_hand, history_report, past
from scripts.benchmarks.databases import Kind
from scripts.benchmarks.history import History
from scripts.benchmarks.load import Run
from scripts.benchmarks.rebuilding import Rebuilt
from tests.projections.driver import Driver

EVENTS = 2_000


def test_the_past_is_what_the_ledger_itself_would_have_stored(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """Of each type the same members, in the same order and of the same kind."""
    monkeypatch.setattr(past, "AT_ONCE", 50)
    past.live_through(driver.service.database, EVENTS)
    client = ClientDetails("203.0.113.7", "Mozilla/5.0")
    session_id = driver.sign_in(
        "alice@example.com", remember_me=True, idp_name="okta", amr=("pwd", "otp"), client=client
    )
    driver.service.clock.advance(600)
    driver.touch(session_id, "alice@example.com")
    driver.revoke(session_id, EndReason.SIGNED_OUT, "alice@example.com", actor="self")
    log = driver.service.recorder.select_notifications(None, EVENTS + 4)
    shapes = {stored.topic: shape(stored.state) for stored in log[EVENTS:]}
    assert len(shapes) == 4
    assert [stored for stored in log[:EVENTS] if shape(stored.state) != shapes[stored.topic]] == []


def shape(state: bytes) -> list[tuple[str, str]]:
    return [(name, type(value).__name__) for name, value in json.loads(state).items()]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_script_that_was_written_by_hand_folds_the_same_rows(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(past, "AT_ONCE", 50)
    past.live_through(service.database, EVENTS)
    rebuild(service.database, SessionsProjection)
    with closing(sqlite3.connect(service.database.path, isolation_level=None)) as connection:
        by_hand.fold(connection)
    live, other = SessionsProjection(), SessionsProjection(by_hand.SUFFIX)
    with service.database.reading() as reader:
        for table, rows in ((live.sessions, other.sessions), (live.users, other.users)):
            key = next(iter(table.c.keys()))
            expected = [tuple(row) for row in reader.execute(select(table).order_by(key))]
            assert [tuple(row) for row in reader.execute(select(rows).order_by(key))] == expected
            assert expected


def test_a_row_says_which_targets_are_met():
    run = Run(rate=100, requests=100, seconds=1, p50_ms=1, p99_ms=5, cpu_ms=1, failed=0)
    history = History(Kind.SQLITE, "3", 1_000, [Rebuilt(1_000, 0.01, True, 100)], [150_000], [run], [run] * 3)
    history.verify_rate, history.export_rate = 250_000, 1
    told = history_report.row(history)
    assert "| 100,000 | 150,000 | **0.67** | **100** | **0** | **1.0** | **250,000** | 1 (missed) |" in told
