"""What is said to be readable is what the mapper reads: whatever the pattern takes for granted is tried here."""

import random
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent

from store.legible import Legible
from store.sealing import NoKeys, SealingMapper
from tests.store.test_golden_corpus import EXAMPLES

MAPPER = SealingMapper(NoKeys())
LEGIBLE = Legible(MAPPER)
EXTRAS = b'"\\{}[],:0aZ=+ \x00\xff'
TRIES = 600

each_state = pytest.mark.parametrize(
    ("topic", "state"),
    [(topic, example["state"].encode()) for topic, example in EXAMPLES],
    ids=[f"{topic} {example['title']}" for topic, example in EXAMPLES],
)


def is_read(topic: str, state: bytes) -> bool:
    try:
        MAPPER.to_domain_event(StoredEvent(UUID(int=1), 1, topic, state))
    except Exception:
        return False
    return True


@each_state
def test_what_was_ever_stored_is_readable(topic: str, state: bytes):
    assert LEGIBLE(topic, state)


@each_state
def test_an_altered_state_is_readable_if_the_mapper_reads_it(topic: str, state: bytes):
    chance = random.Random(f"{topic} {len(state)}")
    for _ in range(TRIES):
        place, extra = chance.randrange(len(state)), bytes([chance.choice(EXTRAS)])
        for altered in (
            state[:place] + extra + state[place + 1 :],
            state[:place] + extra + state[place:],
            state[:place] + state[place + 1 :],
            state[:place],
        ):
            assert LEGIBLE(topic, altered) == is_read(topic, altered), altered


@each_state
def test_a_state_is_not_read_by_a_topic_that_nobody_knows(topic: str, state: bytes):
    """To resolve such a topic would import what it names."""
    for unknown in ("", topic.lower(), "os:system", f"domain.events:{topic}"):
        assert not LEGIBLE(unknown, state)
