import asyncio
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from api.service import Service
from domain.errors import LedgerBusy, StoreUnavailable
from store import long_reads
from store.long_reads import WAITING, WORKERS, LongReads
from tests.postgres import Database

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def reads(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[LongReads]:
    monkeypatch.setattr(long_reads, "LONGEST_S", 0.2)
    reads = LongReads(service.database)
    yield reads
    reads.close()


def test_a_read_is_made_in_a_thread_of_its_own(reads: LongReads):
    def read(connection: Connection) -> tuple[int, str]:
        return connection.exec_driver_sql("SELECT 42").scalar_one(), threading.current_thread().name

    answer, thread = asyncio.run(reads.run(read))
    assert answer == 42
    assert thread.startswith("ledger-long-reads")


def test_it_cannot_write(reads: LongReads):
    with pytest.raises(StoreUnavailable):
        asyncio.run(reads.run(lambda connection: connection.exec_driver_sql("DELETE FROM tracking")))


def test_one_that_takes_too_long_is_ended_and_the_next_one_is_answered(reads: LongReads, database: Database):
    with pytest.raises(StoreUnavailable):
        asyncio.run(reads.run(lambda connection: connection.exec_driver_sql(ENDLESS).scalar()))
    assert asyncio.run(reads.run(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())) == 1


def test_only_so_many_wait(reads: LongReads):
    may_end = threading.Event()

    async def crowd() -> tuple[list[object], object]:
        waiting = [asyncio.ensure_future(reads.run(lambda _: may_end.wait(20))) for _ in range(WORKERS + WAITING)]
        await asyncio.sleep(0)
        try:
            with pytest.raises(LedgerBusy):
                await reads.run(lambda _: None)
        finally:
            may_end.set()
        return await asyncio.gather(*waiting), await reads.run(lambda _: "again")

    answers, again = asyncio.run(crowd())
    assert answers == [True] * (WORKERS + WAITING)
    assert again == "again"
