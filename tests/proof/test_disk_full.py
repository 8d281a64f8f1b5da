"""A disk that is full (F-08): writes are a 503, reads go on, nothing is half there, and space is all it needs again.

The disks are real and small: file systems in memory, which only root can mount.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from tests.api.client import ADMIN, Api, SignedIn, running, settings_of, told, until
from tests.clock import ManualClock
from tests.postgres import Database, PostgresCluster
from tests.store.given import assert_consistent, everything

LONG = "Mozilla/5.0 " + "x" * 480
REFUSED = (503, "store-unavailable")
MANY = 3_000


class Disk:
    """A small file system, and a file that takes what is left of it."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(directory)]
        mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")

    def fill(self) -> None:
        with (self.directory / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"\0" * 4096) == 4096:
                    pass
            except OSError:
                return

    def free(self) -> None:
        (self.directory / "ballast").unlink()

    @contextmanager
    def full(self) -> Iterator[None]:
        self.fill()
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


def sign_in_until_refused(api: Api, user_id: Callable[[int], str]) -> tuple[list[SignedIn], httpx.Response]:
    """Everybody who was let in, and the answer that was no longer one; what it was about is nowhere."""
    let_in = []
    for number in range(MANY):
        before = kept(api) if number % 50 == 0 or let_in == [] else None
        answer = api.begin({"user_id": user_id(number), "user_agent": LONG, "ip_address": "203.0.113.7"})
        if answer.status_code != 201:
            if before:
                assert kept(api) == before
            return let_in, answer
        made = answer.json()
        let_in.append(SignedIn(user_id(number), made["session"]["id"], made["token"], made["cookie"]))
    pytest.fail("the disk was never full")


def refused_and_nothing_changed(api: Api, method: str, path: str, headers: dict[str, str], **more: object) -> None:
    before = kept(api)
    answer = api.request(method, path, headers, **more)
    assert told(answer) == REFUSED
    assert answer.headers["Retry-After"]
    assert "Set-Cookie" not in answer.headers
    assert kept(api) == before


def all_let_in(api: Api, sessions: list[SignedIn]) -> list[bool]:
    return [api.is_active(session.bearer) for session in sessions]


def test_f_08_a_full_disk_under_sqlite(disk: Disk, tmp_path: Path):
    with sqlite_api(disk.directory, tmp_path, tmp_path) as api:
        alice = api.sign_in()
        with disk.full():
            let_in, refused = sign_in_until_refused(api, lambda number: f"user-{number % 10}")
            assert told(refused) == REFUSED
            for _ in range(3):
                body = {"user_id": "bob", "user_agent": LONG}
                refused_and_nothing_changed(api, "POST", "/api/sessions", ADMIN, json=body)
            refused_and_nothing_changed(api, "POST", "/api/users/alice/disable", ADMIN)
            refused_and_nothing_changed(api, "POST", "/api/auth/signout", alice.by_cookie)
            api.clock.advance(60)  # so that a check wants to record a use
            assert all(api.get("/api/auth/session", alice.bearer).status_code == 200 for _ in range(5))
            assert api.ids(alice.bearer) == [alice.id]
            assert api.get("/api/users/alice/sessions", ADMIN).status_code == 200
        until(lambda: api.begin({"user_id": "bob"}).status_code == 201)
        still = {session.id for n in range(10) for session in let_in if session.user_id == f"user-{n}"}
        assert still == {session.id for session in let_in}
        assert all(all_let_in(api, [alice, *let_in[-40:]]))
        assert api.post("/api/auth/signout", alice.by_cookie).status_code == 204
        assert not api.is_active(alice.bearer)
        assert_consistent(api.service)
        with api.service.database.reading() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"


def test_f_08_a_full_disk_under_the_keys_refuses_only_who_needs_a_new_key(disk: Disk, tmp_path: Path):
    with sqlite_api(tmp_path, disk.directory, tmp_path) as api:
        alice = api.sign_in(user_agent=LONG)
        with disk.full():
            _, refused = sign_in_until_refused(api, lambda number: f"new-{number}")
            assert told(refused) == REFUSED
            refused_and_nothing_changed(api, "POST", "/api/sessions", ADMIN, json={"user_id": "nobody yet"})
            again = api.sign_in(user_agent=LONG)  # her key is there
            assert api.sessions(again.bearer)[0]["user_agent"] == LONG
            assert api.delete(f"/api/sessions/{alice.id}", again.bearer).status_code == 200
            assert all_let_in(api, [alice, again]) == [False, True]
        until(lambda: api.begin({"user_id": "nobody yet"}).status_code == 201)
        assert_consistent(api.service)


@pytest.mark.parametrize("disk", [256], indirect=True)
def test_f_08_a_full_disk_under_postgresql(disk: Disk, tmp_path: Path):
    """It stops when it cannot write its log, and comes back by itself, or when it is started again."""
    cluster = PostgresCluster(disk.directory)
    try:
        with cluster.fresh_schema() as log, cluster.fresh_schema() as keys:
            database = Database("postgresql", log.app_url, log.owner_url, keys.app_url)
            with running(settings_of(database, tmp_path), ManualClock()) as api:
                alice = api.sign_in()
                disk.fill()
                let_in, refused = sign_in_until_refused(api, lambda number: f"user-{number % 200}")
                assert refused.status_code == 503
                for _ in range(3):
                    assert api.begin({"user_id": "bob", "user_agent": LONG}).status_code in (201, 503)
                    assert api.get("/api/auth/session", alice.bearer).status_code in (200, 503)
                answer = api.post("/api/auth/signout", alice.by_cookie)
                assert answer.status_code in (204, 503)
                assert (answer.status_code == 204) is ("Set-Cookie" in answer.headers)
                disk.free()
                cluster.start()
                until(lambda: api.begin({"user_id": "carol"}).status_code == 201)
                assert api.is_active(alice.bearer) is (answer.status_code == 503)
                assert all(all_let_in(api, let_in))
                assert_consistent(api.service)
    finally:
        cluster.close()
