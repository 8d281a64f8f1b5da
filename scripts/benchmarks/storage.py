"""What sessions and their uses take: memory of the server, and bytes of the database."""

from dataclasses import dataclass
from pathlib import Path

from api.service import Service
from scripts.benchmarks import commands, load, seeding, servers
from scripts.benchmarks.databases import Place
from scripts.benchmarks.requests import NO_TOUCH, USERS, creates

SESSIONS = 200_000
SLICE_S = 5
TOUCHED = 10_000


@dataclass(frozen=True)
class Storage:
    """`start_mb` and `memory_mb` are the server's resident memory before and after `sessions` were created."""

    sessions: int
    start_mb: float
    memory_mb: float
    touches: int
    bytes_a_touch: float


def measure(place: Place, directory: Path, sessions: int = SESSIONS) -> Storage:
    made, start, end = _memory(place, directory, sessions)
    touches, size = _touches(place)
    return Storage(made, start, end, touches, size)


def _memory(place: Place, directory: Path, sessions: int) -> tuple[int, float, float]:
    """Sessions created over HTTP, by one server process, until there are so many."""
    with seeding.opened(place, **NO_TOUCH) as service:
        people = seeding.seed(service, USERS, 1)
        key = seeding.api_key(service)
    requests = directory / "requests"
    load.write_requests(requests, creates(people, key))
    with servers.ledger({**place.settings, **NO_TOUCH}, directory / "ledger.log") as server:
        load.run(server, requests, seconds=1)
        start, made = server.memory_bytes(), 0
        while made < sessions:
            made += load.run(server, requests, seconds=SLICE_S).requests
        return made, start / 1e6, server.memory_bytes() / 1e6


def _touches(place: Place) -> tuple[int, float]:
    """Bytes that the database grows by for each recorded touch, indexes included."""
    with seeding.opened(place, **commands.SETTINGS) as service:
        sessions = commands.Sessions(service)
        commands.rate(service, "create", sessions.creates(TOUCHED))
        before = _size(service)
        touches = sum(commands.rate(service, "touch", sessions.touches()).events for _ in range(5))
        return touches, (_size(service) - before) / touches


def _size(service: Service) -> int:
    """Bytes of tables and indexes, without the write-ahead log."""
    if service.database.is_sqlite:
        with service.database.transaction() as connection:
            pages = connection.exec_driver_sql("SELECT page_count FROM pragma_page_count").scalar_one()
            free = connection.exec_driver_sql("SELECT freelist_count FROM pragma_freelist_count").scalar_one()
            size = connection.exec_driver_sql("SELECT page_size FROM pragma_page_size").scalar_one()
        return int(pages - free) * int(size)
    with service.database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
