"""A rebuild beside a ledger that is in use: killed and run again, read across the switch, followed across it."""

import asyncio
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from projections import shadow
from projections.audit import AuditProjection
from projections.leadership import leadership
from projections.rebuild import RebuildRunning, rebuild
from projections.sessions import SessionsProjection
from store.database import Database as Store
from tests.postgres import Database
from tests.projections.driver import Driver, until
from tests.projections.other_process import OtherProcess

ROOT = Path(__file__).parents[2]
PAGE = 40
LISTS = 10_000
READERS = 8


class Rebuilding:
    """The rebuild's process, from the test's end."""

    def __init__(self, database: Database) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.proof.rebuild_worker", database.url, str(PAGE)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def positions(self) -> Iterator[int]:
        assert self.process.stdout
        for line in self.process.stdout:
            self.last = line.strip()
            if line.startswith("at "):
                yield int(line.split()[1])

    def kill_at(self, position: int) -> tuple[int, int]:
        """SIGKILL once it has come so far: the first and the last position that it told of."""
        told = []
        for at in self.positions():
            told.append(at)
            if at >= position:
                self.process.kill()
        self.process.wait()
        return told[0], told[-1]


@contextmanager
def reading_all_the_time(driver: Driver, user_id: str, session_id: UUID) -> Iterator[None]:
    """Another service's worth of readers: each list must be right."""
    stopped, wrong = threading.Event(), list[object]()
    stream, reader = driver.stream(user_id), Store(driver.service.database.url.render_as_string(hide_password=False))
    sessions = SessionsProjection().sessions
    query = select(sessions.c.session_id).where(sessions.c.stream == stream, sessions.c.ended_at.is_(None))

    def read() -> None:
        while not stopped.is_set():
            try:
                with reader.reading() as connection:
                    found = connection.execute(query).scalars().all()
                wrong.extend([found] if found != [session_id] else [])
            except Exception as error:
                wrong.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        reader.close()
    assert wrong == []


def test_killed_at_10_50_and_90_percent_while_two_processes_write_it_goes_on_and_is_identical(
    driver: Driver, database: Database, other_process: OtherProcess, tmp_path: Path
):
    known = driver.sign_in("bob")
    for waiting in [driver.signing_in(f"user-{number}") for number in range(1500)]:
        waiting.result(60)
    writers = [other_process, OtherProcess(database, tmp_path / "master.key")]
    for writer in writers:
        writer.tell("append", 120)
    reached = 0
    with reading_all_the_time(driver, "bob", known):
        for percent in (10, 50, 90):
            first, reached_now = Rebuilding(database).kill_at(driver.head() * percent // 100)
            assert first > reached, "it went on where it was"
            reached = reached_now
            assert driver.active("bob") == [known]
        last = Rebuilding(database)
        assert next(last.positions()) > reached
        assert [*last.positions()]
    assert last.last == "identical"
    acknowledged = [UUID(told.split("@")[0]) for writer in writers for told in writer.answer().split()]
    writers[1].kill()
    assert all(driver.by_id(session_id) for session_id in acknowledged)
    assert rebuild(driver.service.database, SessionsProjection).identical


def test_lists_over_the_switch_are_the_old_or_the_new_ones_and_never_an_error(driver: Driver):
    for _ in range(5):
        driver.sign_in()
    with driver.service.database.transaction() as connection:
        connection.execute(update(SessionsProjection().sessions).values(device="Old"))
    done: list[int] = []
    rebuilding = threading.Thread(target=lambda: done.append(rebuild(database, SessionsProjection).differing))
    database = driver.service.database

    async def read_on(told: list[str], wanted: int) -> None:
        while len(told) < wanted or rebuilding.is_alive():
            views = await driver.service.sessions.active(driver.stream())
            told.append(hashlib.sha256(repr(views).encode()).hexdigest())
            await asyncio.sleep(0)
            if len(told) == wanted // 3 and not rebuilding.ident:
                rebuilding.start()

    async def read() -> list[list[str]]:
        told: list[list[str]] = [[] for _ in range(READERS)]
        await asyncio.gather(*(read_on(each, LISTS // READERS) for each in told))
        await read_on(told[0], len(told[0]) + 1)
        return told

    told = driver.ask(read())
    rebuilding.join()
    assert done == [5]
    old, new = told[0][0], told[0][-1]
    assert old != new
    assert {digest for each in told for digest in each} == {old, new}
    assert all(each == sorted(each, key=lambda digest: digest == new) for each in told), "nobody saw the old one again"
    assert sum(map(len, told)) >= LISTS


def test_a_follower_goes_on_in_the_new_tables(driver: Driver):
    driver.service.start()
    stopped = threading.Event()

    def sign_in_all_the_time() -> None:
        number = 0
        while not stopped.wait(0.002):
            driver.signing_in(f"user-{(number := number + 1) % 50}").result(20)

    writing = threading.Thread(target=sign_in_all_the_time)
    writing.start()
    try:
        for _ in range(5):
            assert rebuild(driver.service.database, AuditProjection).identical
    finally:
        stopped.set()
        writing.join()
    until(lambda: driver.tracked(AuditProjection.name) == driver.head())
    assert rebuild(driver.service.database, AuditProjection, dry_run=True).identical
    with driver.service.database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(AuditProjection().audit)).scalar() == driver.head()


def test_a_second_rebuild_at_once_is_refused(driver: Driver):
    driver.sign_in()
    lead = leadership(driver.service.database, "rebuild")
    assert lead.is_held()
    with pytest.raises(RebuildRunning):
        rebuild(driver.service.database, SessionsProjection)
    lead.release()
    assert rebuild(driver.service.database, SessionsProjection).identical


def test_what_other_code_has_begun_to_fold_is_not_gone_on_with(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stopped

    monkeypatch.setattr(shadow, "PAGE", 1)
    driver.sign_in()
    driver.sign_in("bob")
    with monkeypatch.context() as before:
        before.setattr(shadow, "code", lambda: "older")
        with pytest.raises(Stopped):
            rebuild(driver.service.database, SessionsProjection, report=stop)
    told: list[int] = []
    assert rebuild(driver.service.database, SessionsProjection, report=lambda done, total: told.append(done)).identical
    assert told[0] == 1
