import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from store.grouping import GROUP_SIZE, GroupedLookup


class Reads:
    """Keeps every group of keys that it was asked for; each answer is the key and how many reads had begun."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self, keys: list[Any]) -> dict[Any, Any]:
        self.groups.append(keys)
        number = len(self.groups)
        await self.may_end.wait()
        return {key: (key, number) for key in keys}


def play(scenario: Coroutine[Any, Any, None]) -> None:
    """A look-up that is never answered fails its test."""
    asyncio.run(asyncio.wait_for(scenario, 10))


async def until(is_true: Callable[[], Any]) -> None:
    while not is_true():
        await asyncio.sleep(0)


def test_look_ups_of_one_turn_share_one_read_that_names_each_key_once():
    async def scenario():
        reads = Reads()
        lookup = GroupedLookup(reads)
        answers = await asyncio.gather(*(lookup.get(key) for key in ("a", "b", "a", "c", "b")))
        assert reads.groups == [["a", "b", "c"]]
        assert answers == [("a", 1), ("b", 1), ("a", 1), ("c", 1), ("b", 1)]

    play(scenario())


def test_a_key_that_is_not_found_is_answered_with_none():
    async def nothing(keys: list[str]) -> dict[str, Any]:
        return {}

    assert asyncio.run(GroupedLookup(nothing).get("a")) is None


def test_no_read_is_larger_than_a_group():
    async def scenario():
        reads = Reads()
        lookup = GroupedLookup(reads)
        answers = await asyncio.gather(*(lookup.get(key) for key in range(2 * GROUP_SIZE + 1)))
        assert [len(group) for group in reads.groups] == [256, 256, 1]
        assert [key for key, _ in answers] == list(range(2 * GROUP_SIZE + 1))

    play(scenario())


def test_look_ups_of_different_turns_are_read_apart():
    async def scenario():
        reads = Reads()
        lookup = GroupedLookup(reads)
        assert await lookup.get("a") == ("a", 1)
        assert await lookup.get("a") == ("a", 2)

    play(scenario())


def test_a_key_asked_for_after_a_read_has_begun_gets_a_later_read_of_its_own():
    async def scenario():
        reads = Reads()
        reads.may_end.clear()
        lookup = GroupedLookup(reads)
        early = asyncio.create_task(lookup.get("a"))
        await until(lambda: reads.groups)
        late = asyncio.create_task(lookup.get("a"))
        await until(lambda: len(reads.groups) == 2)
        reads.may_end.set()
        assert (await early, await late) == (("a", 1), ("a", 2))

    play(scenario())


def test_while_reads_are_under_way_those_who_come_wait_for_one_read_together():
    async def scenario():
        reads = Reads()
        reads.may_end.clear()
        lookup = GroupedLookup(reads)
        tasks = []
        for turn in range(6):
            tasks.append(asyncio.create_task(lookup.get(turn)))
            for _ in range(3):
                await asyncio.sleep(0)
        assert reads.groups == [[0], [1]]
        reads.may_end.set()
        assert [key for key, _ in await asyncio.gather(*tasks)] == [0, 1, 2, 3, 4, 5]
        assert reads.groups == [[0], [1], [2, 3, 4, 5]]

    play(scenario())


@pytest.mark.parametrize("begun", [False, True], ids=["before the read", "during the read"])
def test_the_cancellation_of_one_changes_nothing_for_the_others(begun: bool):
    async def scenario():
        reads = Reads()
        reads.may_end.clear()
        lookup = GroupedLookup(reads)
        leaving, staying, twin = (asyncio.create_task(lookup.get(key)) for key in ("a", "b", "a"))
        await asyncio.sleep(0)
        if begun:
            await until(lambda: reads.groups)
        leaving.cancel()
        reads.may_end.set()
        assert await asyncio.gather(staying, twin) == [("b", 1), ("a", 1)]
        assert leaving.cancelled()

    play(scenario())


def test_a_failed_read_fails_each_of_its_look_ups_and_no_later_one():
    async def scenario():
        broken = True

        async def read(keys: list[str]) -> dict[str, str]:
            if broken:
                raise ConnectionError("gone")
            return dict.fromkeys(keys, "found")

        lookup = GroupedLookup(read)
        leaving = asyncio.create_task(lookup.get("c"))
        await asyncio.sleep(0)
        leaving.cancel()
        failures = await asyncio.gather(lookup.get("a"), lookup.get("b"), return_exceptions=True)
        assert [type(failure) for failure in failures] == [ConnectionError, ConnectionError]
        broken = False
        assert await lookup.get("a") == "found"

    play(scenario())


def test_one_group_that_fails_leaves_the_other_groups_of_the_turn_alone():
    async def scenario():
        async def read(keys: list[int]) -> dict[int, int]:
            if 0 in keys:
                raise ConnectionError("gone")
            return {key: key for key in keys}

        lookup = GroupedLookup(read)
        answers = await asyncio.gather(*(lookup.get(key) for key in range(GROUP_SIZE + 2)), return_exceptions=True)
        assert all(isinstance(answer, ConnectionError) for answer in answers[:GROUP_SIZE])
        assert answers[GROUP_SIZE:] == [GROUP_SIZE, GROUP_SIZE + 1]

    play(scenario())
