"""One JSON object a line, whatever is in it (OBS-03, T-08)."""

import json
import logging
import subprocess
import sys

import pytest

from api.logs import JsonFormatter, timestamp


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("ledger", logging.INFO, "", 0, message, (), None)
    made.fields = fields
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        "a\r\nb",
        "\x1b[31mred",
        "line\u2028separator\u2029",
        "\u202ebidi",
        "\x7f\x85\x9b",
        "\ud800",
        "\x00",
        '"}{"',
        "é😀",
    ],
)
def test_a_record_is_one_printable_ascii_line_that_gives_the_text_back(hostile: str) -> None:
    line = JsonFormatter().format(record(hostile, agent=hostile))

    assert all(" " <= character <= "~" for character in line)
    assert json.loads(line)["message"] == json.loads(line)["agent"] == hostile


def test_a_traceback_stays_on_the_line() -> None:
    failed = record("failed")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        failed.exc_info = sys.exc_info()

    line = JsonFormatter().format(failed)

    assert "\n" not in line
    assert "two\nlines" in json.loads(line)["exception"]


def test_time_is_rfc_3339_in_utc() -> None:
    assert timestamp(1_790_000_000.0625) == "2026-09-21T14:13:20.062Z"


PROCESS = """
import logging
from api.logs import configure_logging
configure_logging()
logging.getLogger("ledger.store").warning("a %s", "word")
logging.getLogger("ledger.access").info('{"route":"/"}')
logging.getLogger("uvicorn.error").info("started")
logging.getLogger("uvicorn.access").info("GET /?token=secret")
"""


def test_a_configured_process_writes_json_lines_to_stderr_and_no_query_string() -> None:
    ran = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True)

    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line.get("message", line.get("route")) for line in lines] == ["a word", "/", "started"]
    assert ran.stdout == ""
