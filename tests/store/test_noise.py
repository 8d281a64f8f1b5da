"""Random bytes in blocks: none is given out twice, by no thread and no process."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

from store.noise import BLOCK_BYTES, noise


def test_nothing_comes_twice_from_many_threads():
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(noise, [12] * (3 * BLOCK_BYTES)))
    assert {len(each) for each in taken} == {12}
    assert len(set(taken)) == len(taken)


def test_sizes_that_do_not_divide_a_block_are_whole():
    sizes = [1, 10, 4095, BLOCK_BYTES, 3 * BLOCK_BYTES, 16]
    assert [len(noise(count)) for count in sizes] == sizes


def test_a_forked_child_does_not_repeat_its_parent():
    noise(1)
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        theirs = pool.apply(noise, (12,))
    assert noise(12) != theirs
