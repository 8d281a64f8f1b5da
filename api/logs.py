"""What the process says about itself: one JSON object a line on stderr (OBS-03), whatever anybody sent us (T-08)."""

import asyncio
import json
import logging
import logging.config
import time
from functools import lru_cache

_access = logging.getLogger("ledger.access")

# Encodes in printable ASCII: control characters, U+2028, bidi and C1 all come out escaped.
_encode = json.JSONEncoder(check_circular=False, default=str).encode


class JsonFormatter(logging.Formatter):
    """A record as one line of ASCII JSON; `extra={"fields": {…}}` becomes members of it.

    A record of `ledger.access` is one or more such lines already: `api/edge.py` writes one on every request.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class AccessLog:
    """Lines of `ledger.access`, told together at the end of each turn of the loop: one write for many requests."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._tell)
        self._lines.append(line)

    def _tell(self) -> None:
        lines, self._lines = self._lines, []
        _access.info("\n".join(lines))


def timestamp(since_1970: float) -> str:
    """A moment in seconds as RFC 3339 writes it, in UTC, to the millisecond."""
    return f"{_second(int(since_1970))}.{int(since_1970 % 1 * 1000):03d}Z"


@lru_cache(maxsize=2)
def _second(since_1970: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_1970))


def configure_logging() -> None:
    """Send every log of this process to stderr as JSON. Start uvicorn with `log_config=None`, or it undoes this."""
    _collect_only_what_is_logged()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "json"},
                "as_is": {"class": "logging.StreamHandler"},
            },
            "root": {"handlers": ["stderr"], "level": "INFO"},
            "loggers": {
                "ledger.access": {"handlers": ["as_is"], "propagate": False},
                "uvicorn": {"handlers": [], "propagate": True},
                "uvicorn.error": {"handlers": [], "propagate": True},
                # Its lines hold query strings; `ledger.access` takes its place (WEB-03).
                "uvicorn.access": {"handlers": [], "propagate": False},
            },
        }
    )


def _collect_only_what_is_logged() -> None:
    """Python's own advice (Logging HOWTO, "Optimization"): 5 µs a record that would go to unused fields."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
