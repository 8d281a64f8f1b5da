import asyncio
import threading
from collections.abc import Iterator

import pytest

from domain.errors import StoreUnavailable
from store.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(1, "test")
    yield workers
    workers.close()


def test_work_is_done_in_a_thread_of_its_kind(workers: Workers):
    assert asyncio.run(workers.run(lambda: threading.current_thread().name)).startswith("ledger-test")


def test_what_goes_wrong_in_it_is_told(workers: Workers):
    with pytest.raises(ZeroDivisionError):
        asyncio.run(workers.run(lambda: 1 // 0))


def test_who_waits_too_long_is_let_go_and_what_waited_behind_is_not_begun(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("store.workers.PATIENCE_S", 0.05)
    may_end, begun = threading.Event(), threading.Event()

    async def two() -> list[BaseException | bool | None]:
        return await asyncio.gather(
            workers.run(lambda: may_end.wait(20)), workers.run(begun.set), return_exceptions=True
        )

    assert [type(answer) for answer in asyncio.run(two())] == [StoreUnavailable, StoreUnavailable]
    may_end.set()
    monkeypatch.setattr("store.workers.PATIENCE_S", 20)
    assert asyncio.run(workers.run(lambda: "next")) == "next"
    assert not begun.is_set()
