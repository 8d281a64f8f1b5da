"""A disk that is full (F-08): writes are a 503, reads go on, nothing is half there, and space is all it needs again.

The disks are real and small: file systems in memory, which only root can mount.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import text

from domain.errors import StoreUnavailable
from domain.events import SessionCreated
from store.backup import back_up
from store.database import Database as Store
from store.durable_file import create, replacing
from store.master_key import MasterKeyError, replace
from tests.api.client import ADMIN, Api, SignedIn, running, settings_of, settled, told, until
from tests.api.test_store_down import disk_full as may_not_grow
from tests.clock import ManualClock
from tests.postgres import Database, PostgresCluster
from tests.store.given import assert_consistent, everything, facts

LONG = "Mozilla/5.0 " + "x" * 480
REFUSED = (503, "store-unavailable")
DOWN = (REFUSED, (503, "outcome-unknown"))
MANY = 3_000
ROOM = 512 * 1024
SEGMENT = 16 * 1024 * 1024  # of PostgreSQL's write-ahead log


class Disk:
    """A small file system, and a file that takes what is left of it."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(directory)]
        mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")

    def fill(self, room: int) -> None:
        """All but so many bytes, which are for a few writes that succeed."""
        with (self.directory / "ballast").open("wb", buffering=0) as ballast:
            with suppress(OSError):
                while ballast.write(b"\0" * 4096) == 4096:
                    pass
            ballast.truncate(ballast.tell() - room)

    def free(self) -> None:
        (self.directory / "ballast").unlink()

    @contextmanager
    def full(self, room: int = ROOM) -> Iterator[None]:
        self.fill(room)
        try:
            yield
        finally:
            self.free()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.directory)], check=True)


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", getattr(request, "param", 4))
    yield disk
    disk.close()


@contextmanager
def sqlite_api(log: Path, keys: Path, elsewhere: Path) -> Iterator[Api]:
    database = Database("sqlite", f"sqlite:///{log}/ledger.db", None, f"sqlite:///{keys}/keys.db")
    with running(settings_of(database, elsewhere), ManualClock()) as api:
        yield api


def kept(api: Api) -> dict[str, list[object]]:
    """Every row but the users' keys: a key is durable before the fact that it seals, so one may be there in vain."""
    return {table: rows for table, rows in everything(api.service).items() if table != "keys.user_keys"}


def sign_in_until_refused(api: Api, user_id: Callable[[int], str]) -> list[SignedIn]:
    """Everybody who was let in; of the first one who was not, nothing is anywhere."""
    let_in: list[SignedIn] = []
    for number in range(MANY):
        before = kept(api)
        body = {"user_id": user_id(number), "user_agent": LONG, "ip_address": "203.0.113.7"}
        answer = api.begin(body)
        if answer.status_code != 201:
            assert told(answer) == REFUSED
            assert kept(api) == before
            assert let_in
            return let_in
        let_in.append(signed_in(answer, body["user_id"]))
    pytest.fail("the disk was never full")


def write_little_until_refused(api: Api) -> None:
    """What is too little room for a sign-in may be enough for a smaller fact."""
    for number in range(MANY):
        answer = api.post(f"/api/users/user-0/{'enable' if number % 2 else 'disable'}", ADMIN)
        if answer.status_code != 200:
            assert told(answer) == REFUSED
            return
    pytest.fail("the disk was never full")


def signed_in(answer: httpx.Response, user_id: str) -> SignedIn:
    made = answer.json()
    return SignedIn(user_id, made["session"]["id"], made["token"], made["cookie"])


def refused_and_nothing_changed(api: Api, method: str, path: str, headers: dict[str, str], **more: object) -> None:
    before = kept(api)
    answer = api.request(method, path, headers, **more)
    assert told(answer) == REFUSED
    assert answer.headers["Retry-After"]
    assert "Set-Cookie" not in answer.headers
    assert kept(api) == before


def all_let_in(api: Api, sessions: list[SignedIn]) -> list[bool]:
    return [api.is_active(session.bearer) for session in sessions]


def at_rest(api: Api) -> None:
    """The uses that checks have queued are recorded, as this sign-in behind them is; and the policies have answered."""
    api.sign_in("somebody last")
    settled(api)


def in_the_log(api: Api) -> set[str]:
    return {str(fact.session_id) for fact in facts(api.service) if isinstance(fact, SessionCreated)}


def is_whole(database: Store) -> bool:
    with database.reading() as connection:
        return connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"


def refuses_writes_and_nothing_else(api: Api, full: AbstractContextManager[None]) -> None:
    """While the log's disk is full. When it has space again, the same process goes on."""
    alice = api.sign_in()
    with full:
        let_in = sign_in_until_refused(api, lambda number: f"user-{number % 50}")
        for _ in range(3):
            refused_and_nothing_changed(
                api, "POST", "/api/sessions", ADMIN, json={"user_id": "bob", "user_agent": LONG}
            )
        api.clock.advance(60)  # so that a check wants to record a use
        assert all(api.get("/api/auth/session", alice.bearer).status_code == 200 for _ in range(5))
        assert all(all_let_in(api, let_in))
        assert api.ids(alice.bearer) == [alice.id]
        assert api.get("/api/users/alice/sessions", ADMIN).status_code == 200
    until(lambda: api.begin({"user_id": "bob"}).status_code == 201)
    assert {session.id for session in let_in} <= in_the_log(api)
    assert all(all_let_in(api, [alice, *let_in]))
    assert api.post("/api/auth/signout", alice.by_cookie).status_code == 204
    assert not api.is_active(alice.bearer)
    assert api.post("/api/users/bob/disable", ADMIN).status_code == 200
    at_rest(api)
    assert_consistent(api.service)


def test_f_08_a_full_disk_under_sqlite(disk: Disk, tmp_path: Path):
    with sqlite_api(disk.directory, tmp_path, tmp_path) as api:
        refuses_writes_and_nothing_else(api, disk.full())
        assert is_whole(api.service.database)


def test_f_08_a_sqlite_file_that_may_not_grow(tmp_path: Path):
    """As on a full disk, which not everybody can make."""
    with sqlite_api(tmp_path, tmp_path, tmp_path) as api:
        refuses_writes_and_nothing_else(api, may_not_grow(api))
        assert is_whole(api.service.database)


def test_f_08_no_write_of_any_kind_is_half_there(disk: Disk, tmp_path: Path):
    with sqlite_api(disk.directory, tmp_path, tmp_path) as api:
        alice = api.sign_in()
        with disk.full():
            sign_in_until_refused(api, lambda number: f"user-{number % 50}")
            write_little_until_refused(api)
            refused_and_nothing_changed(api, "POST", "/api/users/alice/disable", ADMIN)
            refused_and_nothing_changed(api, "DELETE", "/api/users/alice/sessions", ADMIN)
            refused_and_nothing_changed(api, "DELETE", f"/api/sessions/{alice.id}", alice.bearer)
            refused_and_nothing_changed(api, "POST", "/api/sessions/revoke-all", alice.bearer, json={})
            refused_and_nothing_changed(api, "POST", "/api/auth/signout", alice.by_cookie)
            assert api.is_active(alice.bearer)


def test_f_08_a_full_disk_under_the_keys_refuses_only_who_needs_a_new_key(disk: Disk, tmp_path: Path):
    with sqlite_api(tmp_path, disk.directory, tmp_path) as api:
        alice = api.sign_in(user_agent=LONG)
        with disk.full():
            let_in = sign_in_until_refused(api, lambda number: f"new-{number}")
            refused_and_nothing_changed(api, "POST", "/api/sessions", ADMIN, json={"user_id": "nobody yet"})
            again = api.sign_in(user_agent=LONG)  # her key is there
            assert api.sessions(again.bearer)[0]["user_agent"] == LONG
            api.clock.advance(60)
            assert api.is_active(again.bearer)
            until(lambda: ("SessionTouched", "self") in api.log())
            assert api.delete(f"/api/sessions/{alice.id}", again.bearer).status_code == 200
            assert all_let_in(api, [alice, again]) == [False, True]
        until(lambda: api.begin({"user_id": "nobody yet"}).status_code == 201)
        assert all(all_let_in(api, [again, *let_in]))
        at_rest(api)
        assert_consistent(api.service)
        assert is_whole(api.service.keys_database)


def test_f_08_files_beside_a_database_are_as_they_were_or_not_there(disk: Disk, tmp_path: Path):
    place = tmp_path / "ledger"
    place.mkdir()
    with sqlite_api(place, place, place) as api:
        api.sign_in()
        log, keys = api.service.database, api.service.keys_database
        ring, memory = disk.directory / "master.key", disk.directory / "signing.key.last"
        for file in (ring, memory):
            file.write_bytes((place / file.name).read_bytes())
        before = ring.read_bytes(), memory.read_bytes()
        with disk.full(room=0):
            there = set(disk.directory.iterdir())
            with pytest.raises(MasterKeyError, match="cannot be written"):
                replace(ring, [bytes(32)])
            with pytest.raises(OSError, match="No space left"), replacing(memory) as file:
                file.write(b"a note")
            with pytest.raises(OSError, match="No space left"):
                create(disk.directory / "signing.key", b"a key")
            with pytest.raises(StoreUnavailable):
                back_up(log, keys, place / "master.key", disk.directory / "backup")
            assert set(disk.directory.iterdir()) == there
            assert (ring.read_bytes(), memory.read_bytes()) == before


@contextmanager
def postgresql_api(cluster: PostgresCluster, directory: Path) -> Iterator[Api]:
    with cluster.fresh_database() as database, running(settings_of(database, directory), ManualClock()) as api:
        yield api


@contextmanager
def cluster_in(data: Path, wal: Path) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(data)
    try:
        cluster.move_wal(wal)
        yield cluster
    finally:
        cluster.close()


@pytest.mark.parametrize("disk", [96], indirect=True)
def test_f_08_a_full_disk_under_the_tables_of_postgresql(disk: Disk, tmp_path: Path):
    """A table that cannot grow is an error of the statement."""
    with cluster_in(disk.directory, tmp_path) as cluster, postgresql_api(cluster, tmp_path) as api:
        refuses_writes_and_nothing_else(api, disk.full(room=64 * 1024))


@pytest.mark.parametrize("disk", [64], indirect=True)
def test_f_08_a_full_disk_under_the_write_ahead_log_of_postgresql(disk: Disk, tmp_path: Path):
    """It panics when it cannot write its log, and comes back by itself or when it is started again.

    A COMMIT may have been under way, so a refusal may say that the outcome is unknown; nothing may be there by half.
    """
    with cluster_in(tmp_path, disk.directory) as cluster, postgresql_api(cluster, tmp_path) as api:
        alice = api.sign_in()
        disk.fill(room=2 * SEGMENT)
        let_in, refused = sign_in_until_it_panics(api, cluster)
        assert told(refused) in DOWN
        assert let_in
        assert "PANIC" in cluster.said()
        left = api.post("/api/auth/signout", alice.by_cookie)
        for answer in (left, api.get("/api/auth/session", alice.bearer), api.get("/api/sessions", alice.bearer)):
            assert answer.status_code in (200, 204) or (told(answer) in DOWN and answer.headers["Retry-After"])
        assert (left.status_code == 204) is ("Set-Cookie" in left.headers)
        disk.free()
        until(lambda: is_back(api, cluster))
        if told(left) != (503, "outcome-unknown"):
            assert api.is_active(alice.bearer) is (left.status_code == 503)
        assert {session.id for session in let_in} <= in_the_log(api)
        assert all(all_let_in(api, let_in))
        at_rest(api)
        assert_consistent(api.service)


def sign_in_until_it_panics(api: Api, cluster: PostgresCluster) -> tuple[list[SignedIn], httpx.Response]:
    """Each sign-in begins another segment of the server's log, and there is no space for many."""
    let_in: list[SignedIn] = []
    for number in range(MANY):
        answer = api.begin({"user_id": f"user-{number}", "user_agent": LONG})
        if answer.status_code != 201:
            return let_in, answer
        let_in.append(signed_in(answer, f"user-{number}"))
        with suppress(psycopg.OperationalError):
            cluster.execute("SELECT pg_switch_wal()")
    pytest.fail("the disk was never full")


def is_back(api: Api, cluster: PostgresCluster) -> bool:
    with suppress(subprocess.CalledProcessError):
        cluster.start()
    return api.begin({"user_id": "carol"}).status_code == 201
