"""What `./scripts/bench --only history` measures: a log as the ledger writes it, and a script that folds it right."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import select

from api.service import Service
from projections.rebuild import rebuild
from projections.sessions import SessionsProjection
from scripts.benchmarks import by_hand, history_report, past
from scripts.benchmarks.databases import Kind
from scripts.benchmarks.history import History
from scripts.benchmarks.load import Run
from scripts.benchmarks.rebuilding import Rebuilt

EVENTS = 2_000


def test_the_past_is_what_the_ledger_itself_would_have_stored(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(past, "AT_ONCE", 50)
    past.live_through(service.database, EVENTS)
    facts = [service.mapper.to_domain_event(stored) for stored in service.recorder.select_notifications(None, EVENTS)]
    assert len(facts) == EVENTS
    assert [service.mapper.to_stored_event(fact).state for fact in facts] == [
        stored.state for stored in service.recorder.select_notifications(None, EVENTS)
    ]


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
