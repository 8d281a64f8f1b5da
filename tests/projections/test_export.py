"""What leaves the log: every event once, in order, as CloudEvents with its leaf, or as a row to read."""

import base64
import csv
import io
import itertools
import json
import multiprocessing
import os
import re
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from domain.errors import StoreUnavailable
from domain.events import ClientDetails, EndReason
from projections import export as exporting
from projections.audit_filter import AuditFilter
from projections.cloud_events import CloudEvents, Unreadable
from projections.csv_rows import HEADER, CsvRows
from projections.export import Chunk, Format, export
from projections.export_processes import in_processes
from store.clock import to_micros
from store.log import PAGE, Record, leaf
from store.schema import events
from store.stored_rows import StoredRow
from tests.clock import ManualClock
from tests.projections.driver import Driver, request

NOTHING = AuditFilter()
STATE = b'{"timestamp":1795000000000000,"event_id":"%s","actor":"self","correlation_id":"%s"}' % ((b"ab" * 16,) * 2)


def exported(
    driver: Driver, asked: AuditFilter = NOTHING, form: Format = Format.NDJSON, after: int = 0, processes: int = 1
) -> list[Chunk]:
    return list(export(driver.service.database, asked, form, "ledger.example/sessions", after, processes))


def lines(chunks: list[Chunk]) -> list[dict]:
    return [json.loads(line) for line in b"".join(chunk.lines for chunk in chunks).splitlines()]


def positions(chunks: list[Chunk]) -> list[int]:
    return [int(line["position"]) for line in lines(chunks)]


def log(driver: Driver) -> list[Record]:
    with driver.service.database.reading() as connection:
        columns = [events.c[name] for name in Record._fields]
        return [Record(*row) for row in connection.execute(select(*columns).order_by(events.c.position))]


def row(position: int = 1, topic: str = "SessionTouched", state: bytes = STATE) -> StoredRow:
    return position, UUID(int=7).bytes, 1, 1_795_000_000_000_000, topic, state


# -- CloudEvents


def test_a_line_is_a_cloud_event_with_the_bytes_of_its_leaf(driver: Driver):
    session_id = driver.sign_in(client=ClientDetails("203.0.113.7", "curl/8.0"))
    stored = log(driver)[1]
    line = lines(exported(driver))[1]
    data = line.pop("data")
    assert data == json.loads(stored.state)
    assert line == {
        "specversion": "1.0",
        "id": str(UUID(data["event_id"])),
        "source": "ledger.example/sessions",
        "type": "dev.session-ledger.SessionCreated",
        "dataschema": "https://session-ledger.dev/schemas/SessionCreated/1",
        "datacontenttype": "application/json",
        "subject": f"user/{driver.stream()}/session/{session_id}",
        "time": "2026-11-23T12:00:00.000000Z",
        "recordedat": "2026-11-23T12:00:00.000000Z",
        "streamversion": "2",
        "position": "2",
        "leaf": base64.b64encode(leaf(stored)).decode(),
    }
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in line)


def test_what_is_personal_stays_sealed(driver: Driver):
    driver.sign_in("alice@example.com", client=ClientDetails("203.0.113.7", "curl/8.0"))
    for form in Format:
        told = b"".join(chunk.lines for chunk in exported(driver, form=form))
        assert not re.search(rb"alice|203\.0\.113\.7|curl", told)


def test_a_fact_about_many_is_about_its_stream(driver: Driver):
    asked = request()
    driver.ledger.invalidate_sessions(None, EndReason.REVOKE_ALL, asked).result(20)
    [line] = lines(exported(driver))
    assert line["subject"] == f"stream/{asked.correlation_id}"


def test_a_position_may_be_greater_than_an_integer_of_cloud_events():
    assert json.loads(CloudEvents("x")([row(2**31 + 1)]))["position"] == "2147483649"


def test_whatever_is_stored_is_one_line_of_json():
    odd = STATE.replace(b'"actor"', b'\n"actor"')
    [line] = CloudEvents('a"b\n')([row(topic='T"\n', state=odd)]).splitlines()
    assert json.loads(line)["type"] == 'dev.session-ledger.T"\n'


@pytest.mark.parametrize("state", [b"", b"[]", b"{}", STATE.replace(b"abab", b'""', 1), STATE.replace(b"1795", b'"')])
@pytest.mark.parametrize("form", [CloudEvents("x"), CsvRows()])
def test_what_cannot_be_read_is_named_by_its_position(form, state: bytes):
    with pytest.raises(Unreadable, match="The event at position 2 cannot be read"):
        form([row(1), row(2, state=state)])


# -- which events


def test_every_filter_gives_what_a_scan_of_the_log_gives(driver: Driver, clock: ManualClock):
    ids = []
    for user in ("alice", "bob", "alice", "carol"):
        ids.append(driver.sign_in(user))
        clock.advance(10)
        driver.revoke(ids[-1], user_id=user, actor=f"key:{user}")
        clock.advance(1)
    entries = log(driver)
    whole = [driver.service.mapper.to_domain_event(record.stored) for record in entries]
    moment = to_micros(clock.now())
    choices = (
        (None, "SessionRevoked", "UserDisabled"),
        (None, driver.stream("alice"), uuid4()),
        (None, ids[0], ids[1]),
        (None, "key:alice", "self"),
        (None, moment - 30_000_000, moment + 1),
        (None, moment - 12_000_000, 0),
    )
    for values in itertools.product(*choices):
        asked = AuditFilter(*values)
        expected = [r.position for r, f in zip(entries, whole, strict=True) if fits(asked, r, f)]
        assert positions(exported(driver, asked)) == expected, asked
        for after in (1, 5):
            assert positions(exported(driver, asked, after=after)) == [p for p in expected if p > after]


def fits(asked: AuditFilter, record: Record, fact) -> bool:
    return (
        asked.event_type in (None, record.topic)
        and asked.stream in (None, record.stream)
        and asked.session_id in (None, getattr(fact, "session_id", None))
        and asked.actor in (None, fact.actor)
        and (asked.start is None or record.recorded_at >= asked.start)
        and (asked.end is None or record.recorded_at <= asked.end)
    )


def test_each_line_of_a_selection_says_what_was_asked_for(driver: Driver):
    driver.sign_in()
    assert not any("selection" in line for line in [*lines(exported(driver)), *lines(exported(driver, after=1))])
    [line] = lines(exported(driver, AuditFilter("SessionCreated", driver.stream(), end=2**62)))
    assert line["selection"] == f"event_type=SessionCreated&stream={driver.stream()}&end={2**62}"


def test_a_long_log_comes_in_chunks_each_of_which_may_be_the_last(driver: Driver):
    for _ in range(45):
        assert [driver.signing_in() for _ in range(60)][-1].result(20)  # each but the first 50 ends another one
    head = driver.head()
    assert head > 3 * PAGE
    for asked in (NOTHING, AuditFilter(stream=driver.stream())):
        chunks = exported(driver, asked)
        assert positions(chunks) == list(range(1, head + 1))
        assert [chunk.events for chunk in chunks[:3]] == [PAGE, PAGE, PAGE]
        for taken in range(1, len(chunks)):
            after = chunks[taken - 1].position
            rest = exported(driver, asked, after=after)
            assert positions(chunks[:taken]) + positions(rest) == list(range(1, head + 1))


def test_several_processes_tell_what_one_tells(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "PAGE", 3)
    monkeypatch.setattr(exporting, "FEW", 5)
    for user in ("alice", "bob", "carol", "dave"):
        driver.revoke(driver.sign_in(user), user_id=user)
    for asked in (NOTHING, AuditFilter(event_type="SessionRevoked"), AuditFilter(event_type="UserErased")):
        for form, after in ((Format.NDJSON, 0), (Format.NDJSON, 4), (Format.CSV, 0)):
            alone, together = (exported(driver, asked, form, after, processes) for processes in (1, 3))
            assert len(together) > 3
            assert b"".join(chunk.lines for chunk in together) == b"".join(chunk.lines for chunk in alone)
            assert together[-1] == alone[-1]
    with pytest.raises(Unreadable, match="position 8"):
        list(in_processes(driver.service.database, [4, 8], 2, unreadable_at_8))


def unreadable_at_8(position: int) -> Chunk:
    return Chunk(CloudEvents("x")([row(position, state=STATE if position < 8 else b"")]), 1, position)


def test_a_process_that_dies_is_told_and_none_is_left(driver: Driver):
    with pytest.raises(StoreUnavailable, match="has died"):
        list(in_processes(driver.service.database, [1, 2, 3], 2, os._exit))
    assert multiprocessing.active_children() == []


def test_an_empty_log_is_an_empty_export(driver: Driver):
    assert exported(driver) == [(b"", 0, 0)]


# -- CSV


def test_a_row_is_for_reading_and_says_so(driver: Driver):
    session_id = driver.sign_in()
    driver.revoke(session_id)
    heading, *rows = csv.reader(io.StringIO(b"".join(c.lines for c in exported(driver, form=Format.CSV)).decode()))
    assert tuple(heading) == HEADER
    assert heading[-1] == "data_for_reading_not_evidence"
    assert rows[2][:9] == [
        *("3", "2026-11-23T12:00:00.000000Z", "2026-11-23T12:00:00.000000Z", "SessionRevoked"),
        *(str(driver.stream()), "3", str(session_id), "key:front-desk", "revoked_by_user"),
    ]
    resumed = b"".join(chunk.lines for chunk in exported(driver, form=Format.CSV, after=2))
    assert resumed.startswith(b"3,")


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(formula: str):
    state = STATE.replace(b'"self"', json.dumps(formula).encode())
    told = CsvRows()([row(topic=formula, state=state)]).decode()
    [cells] = csv.reader(io.StringIO(told, newline=""))
    assert (cells[3], cells[7]) == ("'" + formula, "'" + formula)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
