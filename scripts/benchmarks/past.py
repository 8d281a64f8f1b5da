"""A long past, put into an empty log at once: the bytes that the ledger itself would have stored.

Each person signs in on several devices and uses each some times; most are signed out. What people do is all mixed.
"""

import random
from base64 import b64encode
from collections.abc import Iterator
from itertools import islice
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from domain.events import SessionCreated, SessionRevoked, SessionTouched, UserEnrolled
from store.database import Database
from store.recorder import Append

SESSIONS_EACH, TOUCHES_EACH, SIGNED_OUT = 4, 3, 0.75
AT_ONCE = 20_000  # people whose lives overlap
PAGE = 5_000
START_US, STEP_US = 1_700_000_000_000_000, 6_000


def live_through(database: Database, events: int) -> None:
    """Append so many events, the same ones each time."""
    past = _past(random.Random(events))
    for done in range(0, events, PAGE):
        stored = [*islice(past, min(PAGE, events - done))]
        with database.transaction() as connection:
            Append(connection).insert(stored, START_US + STEP_US * (done + len(stored)))


def _past(dice: random.Random) -> Iterator[StoredEvent]:
    lives = [_life(dice) for _ in range(AT_ONCE)]
    clock = START_US
    while True:
        number = int(dice.random() * AT_ONCE)
        clock += STEP_US
        event = next(lives[number], None)
        if event is None:
            lives[number] = _life(dice)
            event = next(lives[number])
        topic, stream, version, state = event
        yield StoredEvent(stream, version, topic, state.replace("@", str(clock)).encode())


def _life(dice: random.Random) -> Iterator[tuple[str, UUID, int, str]]:
    """Topic, stream, version and state of what one person does; `@` stands for the time."""
    stream, version = UUID(int=dice.getrandbits(128)), 1
    who = f'"user_id":"{_sealed(dice, 50)}"'
    yield UserEnrolled.TOPIC, stream, version, _state(dice, "key:bench", who, begins='"originator_topic":"User",')
    for _ in range(SESSIONS_EACH):
        session = f'"session_id":"{UUID(int=dice.getrandbits(128), version=4).hex}"'
        version += 1
        yield SessionCreated.TOPIC, stream, version, _state(dice, "key:bench", f"{session},{_signed_in(dice)}")
        for _ in range(TOUCHES_EACH):
            version += 1
            yield SessionTouched.TOPIC, stream, version, _state(dice, "self", session)
        if dice.random() < SIGNED_OUT:
            version += 1
            yield (
                SessionRevoked.TOPIC,
                stream,
                version,
                _state(dice, "self", f'{session},"reason":"signed_out","ended_at":@'),
            )


def _signed_in(dice: random.Random) -> str:
    return (
        f'"token_hash":"{_sealed(dice, 32)}","idle_timeout":1209600,"absolute_timeout":2592000,"remember_me":true,'
        f'"idp_name":"okta","amr":["pwd","otp"],"device":"Chrome on macOS","client":"{_sealed(dice, 170)}"'
    )


def _state(dice: random.Random, actor: str, facts: str, begins: str = "") -> str:
    ids = f'"event_id":"{dice.getrandbits(128):032x}","actor":"{actor}","correlation_id":"{dice.getrandbits(128):032x}"'
    return f'{{"timestamp":@,{begins}{ids},{facts}}}'


def _sealed(dice: random.Random, size: int) -> str:
    return b64encode(dice.randbytes(size)).decode()
