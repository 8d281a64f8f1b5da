"""An export of the whole log is verified with a public key and notes that were kept, and nothing else (TEV-05)."""

import json
from base64 import b64decode
from collections.abc import Callable
from uuid import UUID

import pytest

from api.service import Service
from projections import export_check
from projections.audit_filter import AuditFilter
from projections.export import Format, export
from projections.export_check import PartOnly
from projections.export_check import verify_export as verify
from store import pieces
from store.checking import Finding
from store.log import leaf, record_of
from store.verifying import Report, Signed
from tests.projections.conftest import NewDriver
from tests.projections.driver import Driver

EVENTS, SIZES, SOURCE = 41, (10, 30), "ledger.example"
Line = dict[str, object]


@pytest.fixture(scope="module")
def shared(new_driver: NewDriver) -> Driver:
    """At the wheel of a service whose log is made once."""
    return new_driver()


@pytest.fixture(scope="module")
def signed(shared: Driver) -> list[Signed]:
    """What was signed of a log of 41 events."""
    found = []
    for number in range(EVENTS - 1):
        shared.sign_in(f"user {number}" if number == 0 else "user 0")
        if (head := shared.head()) in SIZES:
            shared.service.sealer.seal()
            found.append(Signed(head, shared.service.signing_key.remembered().root, "a note"))
    return found


@pytest.fixture(scope="module")
def lines(shared: Driver, signed: list[Signed]) -> list[bytes]:
    return exported(shared.service)


def exported(service: Service, asked: AuditFilter | None = None) -> list[bytes]:
    chunks = export(service.database, asked or AuditFilter(), Format.NDJSON, SOURCE)
    return b"".join(chunk.lines for chunk in chunks).splitlines(keepends=True)


def verify_export(lines: list[bytes], signed: list[Signed]) -> Report:
    return verify(lines, SOURCE, signed)


def changed(line: bytes, change: Callable[[Line], object]) -> bytes:
    told = json.loads(line)
    change(told)
    return json.dumps(told).encode() + b"\n"


def releafed(line: bytes, **columns: object) -> bytes:
    """The line of an event with other columns, consistent in itself."""
    told = json.loads(line)
    record = record_of(b64decode(told["leaf"]))._replace(**columns)
    [again] = [export_check.CloudEvents(told["source"])([export_check._row(record)])]
    assert b64decode(json.loads(again)["leaf"]) == leaf(record)
    return again


def test_an_export_of_a_log_that_nobody_altered_is_intact(lines: list[bytes], signed: list[Signed]):
    assert len(lines) == EVENTS
    assert verify_export(lines, signed) == Report(EVENTS, 30, 2, [], 0, [])
    assert verify_export(lines, signed[:1]) == Report(EVENTS, 10, 1, [], 0, [])


MEMBERS = (
    *("specversion", "id", "type", "subject", "time", "recordedat", "streamversion", "position", "data", "dataschema"),
    "datacontenttype",
)


@pytest.mark.parametrize("member", MEMBERS)
def test_each_readable_member_that_was_changed_is_named(lines: list[bytes], signed: list[Signed], member: str):
    for place, line in enumerate(lines):
        other = changed(line, lambda told: told.update({member: "other"}))
        findings = verify_export([*lines[:place], other, *lines[place + 1 :]], signed).findings
        assert findings == [Finding(place + 1, f"the line says something else than its leaf: {member}")]


def test_a_line_is_as_an_export_writes_it_to_the_byte(lines: list[bytes], signed: list[Signed]):
    """Whoever reads JSON takes one of two members of one name, false for 0, or a null for nothing, as he likes."""
    line = lines[20]
    for other, named in (
        (line.replace(b'{"specversion"', b'{"id":"other","specversion"', 1), "it is written in another way"),
        (line.replace(b'"data":{', b'"data":{"actor":"other",', 1), "data"),
        (line.replace(b',"leaf"', b',"comment":null,"leaf"', 1), "comment"),
        (line.replace(b'"remember_me":false', b'"remember_me":0', 1), "data"),
        (line.replace(b'"source":"%s"' % SOURCE.encode(), b'"source":"other"', 1), "source"),
        (changed(line, lambda told: None), "it is written in another way"),
        (line.rstrip(b"\n"), "it is written in another way"),
    ):
        assert other != line
        findings = verify_export([*lines[:20], other, *lines[21:]], signed).findings
        assert findings == [Finding(21, f"the line says something else than its leaf: {named}")]


def test_every_line_must_name_the_log_that_was_signed(lines: list[bytes], signed: list[Signed]):
    others = [line.replace(b'"source":"%s"' % SOURCE.encode(), b'"source":"other"', 1) for line in lines]
    assert [finding.position for finding in verify_export(others, signed).findings] == [*range(1, EVENTS + 1)]


def test_a_member_within_data_that_was_changed_or_added_is_named(lines: list[bytes], signed: list[Signed]):
    for change in (lambda told: told["data"].update(actor="somebody"), lambda told: told.update(comment="trust me")):
        [finding] = verify_export([*lines[:20], changed(lines[20], change), *lines[21:]], signed).findings
        assert finding.position == 21


@pytest.mark.parametrize(
    "columns", [{"stream": UUID(int=7)}, {"version": 99}, {"topic": "UserEnabled"}, {"recorded_at": 1}]
)
def test_an_event_that_was_changed_with_its_leaf_is_found(lines: list[bytes], signed: list[Signed], columns):
    for place in range(30):
        forged = [*lines[:place], releafed(lines[place], **columns), *lines[place + 1 :]]
        findings = verify_export(forged, signed).findings
        assert findings
        assert place < 10 or findings[0].position > 10


def test_a_state_that_was_changed_with_its_leaf_lies_between_two_notes(lines: list[bytes], signed: list[Signed]):
    state = record_of(b64decode(json.loads(lines[20])["leaf"])).state.replace(b"macOS", b"Linux")
    forged = [*lines[:20], releafed(lines[20], state=state), *lines[21:]]
    assert verify_export(forged, signed).findings == [
        Finding(11, "one of the events from here to 30 is not the one that was signed")
    ]


def test_each_line_that_is_missing_is_named(lines: list[bytes], signed: list[Signed]):
    for place in range(1, EVENTS - 1):
        assert verify_export([*lines[:place], *lines[place + 1 :]], signed).findings[0] == (place + 1, "missing")


def test_an_export_that_is_cut_short_of_what_was_signed_is_found(lines: list[bytes], signed: list[Signed]):
    for keep in range(30):
        assert verify_export(lines[:keep], signed).findings[0].position == keep + 1


def test_lines_that_were_swapped_or_doubled_are_found(lines: list[bytes], signed: list[Signed]):
    assert not verify_export([*lines[:5], lines[6], lines[5], *lines[7:]], signed).is_intact
    assert not verify_export([*lines[:5], lines[4], *lines[5:]], signed).is_intact


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"nothing\n", b"[]\n", b"{}\n", b'{"leaf":"AAAA"}\n', b'{"leaf":7}\n', b'{"leaf":"!"}\n']
)
def test_a_line_that_is_none_is_a_finding(lines: list[bytes], signed: list[Signed], line: bytes):
    assert verify_export([*lines[:20], line, *lines[21:]], signed).findings[0].position == 21


def test_a_position_far_ahead_is_not_walked_to(lines: list[bytes], signed: list[Signed]):
    forged = [*lines[:20], releafed(lines[20], position=2**62), *lines[21:]]
    assert verify_export(forged, signed).findings[0].position == 21


def test_a_part_of_the_log_is_refused(lines: list[bytes], signed: list[Signed]):
    with pytest.raises(PartOnly, match="begins at position 6"):
        verify_export(lines[5:], signed)


def test_a_selection_is_refused_also_where_it_begins_as_the_log_does(shared: Driver, signed: list[Signed]):
    for asked in (AuditFilter(event_type="UserEnrolled"), AuditFilter(end=2**62)):
        with pytest.raises(PartOnly, match=f"is a selection .'{asked.selection()}'"):
            verify_export(exported(shared.service, asked), signed)


def test_a_line_further_on_makes_no_selection_of_an_export(lines: list[bytes], signed: list[Signed]):
    marked = changed(lines[20], lambda told: told.update(selection="actor=self"))
    findings = verify_export([*lines[:20], marked, *lines[21:]], signed).findings
    assert findings == [Finding(21, "the line says something else than its leaf: selection")]


def test_a_long_export_is_verified_in_pieces(lines: list[bytes], signed: list[Signed], monkeypatch: pytest.MonkeyPatch):
    for module in (pieces, export_check):
        monkeypatch.setattr(module, "PIECE", 8)
    monkeypatch.setattr(pieces, "LEVEL", 3)
    assert verify_export(lines, signed).is_intact
