"""One rule for moments, whichever way they come in."""

from datetime import UTC, datetime

import pytest
import typer
from pydantic import TypeAdapter, ValidationError

from api.audit_filter import AuditQuestion
from api.schemas import Moment, MomentInUrl
from projections.moments import exact_moment, first_moment, last_moment
from scripts.cli import moments as cli

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)

MOMENTS = {
    "2026-11-26T12:00:00Z": NOON,
    "2026-11-26t12:00:00z": NOON,
    "2026-11-26T12:00:00-00:00": NOON,
    "2026-11-26T13:30:00+01:30": NOON,
    "2026-11-25T12:01:00-23:59": NOON,
    "2026-11-26T12:00:00.5Z": NOON.replace(microsecond=500_000),
    "2026-11-26T12:00:00.1234569Z": NOON.replace(microsecond=123_456),
    "0001-01-01T00:00:00Z": datetime(1, 1, 1, tzinfo=UTC),
}
NO_MOMENTS = (
    *("", "yesterday", "1795651200", "20261126", "2026-W48", "2026-11", "2026-330", "2026-02-30", "٢٠٢٦-11-26"),
    *("2026-11-26T12:00:00", "2026-11-26 12:00:00Z", "2026-11-26T12:00Z", "2026-11-26T12Z", "20261126T120000Z"),
    *("2026-11-26T12:00:00,5Z", "2026-11-26T12:00:00.Z", "2026-11-26T12:00:00+01", "2026-11-26T12:00:00+0100"),
    *("2026-11-26T12:00:00+01:60", "2026-11-26T12:00:00+24:00", "2026-11-26T12:00:00 01:00", "2026-11-26T12:00:00Z\n"),
    *("2016-12-31T23:59:60Z", "2026-11-26T24:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
)


def test_a_moment_is_the_same_whichever_way_it_comes():
    for text, moment in MOMENTS.items():
        ways = (
            *(read(text) for read in (exact_moment, first_moment, last_moment, cli.moment, cli.last_moment)),
            *(TypeAdapter(kind).validate_python(text) for kind in (Moment, MomentInUrl)),
        )
        assert {(at, at.utcoffset()) for at in ways} == {(moment, UTC.utcoffset(None))}, text
        AuditQuestion(start_date=text, end_date=text)


def test_a_date_is_that_day_in_utc():
    first, last = datetime(2026, 11, 26, tzinfo=UTC), datetime(2026, 11, 26, 23, 59, 59, 999_999, tzinfo=UTC)
    assert first_moment("2026-11-26") == cli.moment("2026-11-26") == first
    assert last_moment("2026-11-26") == cli.last_moment("2026-11-26") == last
    assert last_moment("9999-12-31").year == 9999
    with pytest.raises(ValueError, match="RFC 3339"):
        exact_moment("2026-11-26")


def test_what_is_neither_is_refused_everywhere():
    for text in NO_MOMENTS:
        for read in (first_moment, last_moment):
            with pytest.raises(ValueError):
                read(text)
        for read in (cli.moment, cli.last_moment):
            with pytest.raises(typer.BadParameter):
                read(text)
        for kind in (Moment, MomentInUrl):
            with pytest.raises(ValidationError):
                TypeAdapter(kind).validate_python(text)
        for parameter in ("start_date", "end_date"):
            with pytest.raises(ValidationError, match=parameter):
                AuditQuestion(**{parameter: text})
