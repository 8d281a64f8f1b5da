"""UUIDv7 as RFC 9562 lays it out, in the order in which it is made."""

from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122

from api.ids import _Ticks, new_uuid7, uuid7


def test_the_layout_is_that_of_the_rfcs_own_example() -> None:
    random_bytes = (0xCC3 << 68 | 0x18C4DC0C0C07398F).to_bytes(10)

    assert str(uuid7(0x017F22E279B0, random_bytes)) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_version_and_variant_hold_whatever_the_random_bytes_are() -> None:
    for random_bytes in (b"\x00" * 10, b"\xff" * 10):
        made = uuid7(1_790_000_000_000, random_bytes)

        assert (made.version, made.variant, made.int >> 80) == (7, RFC_4122, 1_790_000_000_000)


def test_ids_grow_in_the_order_in_which_they_are_made() -> None:
    made = [new_uuid7() for _ in range(20_000)]

    assert made == sorted(set(made))


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [id for batch in pool.map(lambda _: [new_uuid7() for _ in range(2_000)], range(8)) for id in batch]

    assert len(set(made)) == 16_000


def test_order_survives_a_clock_that_steps_back() -> None:
    ticks = _Ticks()

    assert ticks.next(1_000, 7) < ticks.next(400, 9) < ticks.next(1_000, 1) < ticks.next(1_001, 0)


def test_a_full_counter_carries_into_the_next_millisecond() -> None:
    ticks = _Ticks()
    made = [ticks.next(1_000, 0x7FF) for _ in range(5_000)]

    assert made == sorted(set(made))
    assert made[-1] >> 12 == 1_001
