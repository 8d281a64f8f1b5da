"""Personal data leaves the mapper sealed, opens at its own place only, and history is read without a key."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, get_type_hints
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import MapperDeserialisationError, StoredEvent
from eventsourcing.utils import get_topic
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

import domain.events
from api.service import Service
from domain.api_keys import ApiKey
from domain.bulk_revocation import BulkRevocation, GlobalSignOut
from domain.events import ClientDetails, EndReason, Fact, Sealed, SessionCreated, UserEnrolled
from domain.user import User
from store.database import Database
from store.keys import KeyStore, user_keys
from store.sealing import (
    SealBroken,
    SealingMapper,
    has_personal_data,
    place,
    seal,
    unseal,
    unseal_client,
    unseal_user_id,
)
from tests.conftest import OpenService
from tests.store.given import Caller, facts, result

FACTS = [
    User.Created,
    User.SessionCreated,
    User.SessionTouched,
    User.SessionRevoked,
    User.UserDisabled,
    User.UserEnabled,
    User.UserErased,
    ApiKey.Created,
    ApiKey.ApiKeyRevoked,
    GlobalSignOut.Created,
    BulkRevocation.Created,
]
STREAMS = [UUID(int=n) for n in range(1, 5)]
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2500, 1, 1), timezones=st.just(UTC))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CLIENTS = st.builds(ClientDetails, st.none() | TEXTS, st.none() | TEXTS)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(0, 2**53),
    bool: st.booleans(),
    UUID: st.uuids(),
    UUID | None: st.none() | st.uuids(),
    str | None: st.none() | TEXTS,
    datetime: MOMENTS,
    datetime | None: st.none() | MOMENTS,
    bytes: st.binary(max_size=64),
    tuple[str, ...]: st.lists(TEXTS, max_size=4).map(tuple),
    tuple[UUID, ...]: st.lists(st.uuids(), max_size=4).map(tuple),
    EndReason: st.sampled_from(EndReason),
    str | Sealed: TEXTS,
    ClientDetails | Sealed | None: st.none() | CLIENTS,
}


def any_fact(kind: type[Fact]) -> st.SearchStrategy[Fact]:
    """A fact of this kind with any values; a field of a type that is not listed above fails the test."""
    hints = get_type_hints(kind)
    own = {f.name: VALUES[hints[f.name]] for f in fields(kind) if not f.name.startswith("originator_")}
    own |= {"originator_id": st.sampled_from(STREAMS), "originator_version": st.integers(1, 2**31 - 1)}
    if "originator_topic" in {f.name for f in fields(kind)}:
        own["originator_topic"] = st.just("User")
    return st.builds(lambda **values: kind(**values), **own)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyStore]:
    directory = tmp_path_factory.mktemp("keys")
    database = Database(f"sqlite:///{directory}/keys.db")
    yield KeyStore(database, directory / "master.key")
    database.close()


@pytest.fixture(scope="module")
def mapper(keys: KeyStore) -> SealingMapper:
    return SealingMapper(keys)


def opened(fact: Fact, keys: KeyStore) -> Fact:
    """The same fact with its personal data in clear again."""
    key = keys.find([fact.originator_id]).get(fact.originator_id, b"")
    if isinstance(fact, UserEnrolled):
        return replace(fact, user_id=unseal_user_id(key, fact))
    if isinstance(fact, SessionCreated) and isinstance(fact.client, Sealed):
        at = fact.originator_id, fact.originator_version, fact.event_id
        return replace(fact, client=unseal_client(key, fact.client.ciphertext, *at))
    return fact


def enrolled(stream: UUID = STREAMS[0], version: int = 1, user_id: str = "alice") -> UserEnrolled:
    return User.Created(
        originator_id=stream,
        originator_version=version,
        timestamp=datetime(2026, 11, 23, 12, tzinfo=UTC),
        originator_topic="User",
        event_id=uuid4(),
        actor="key:test",
        correlation_id=uuid4(),
        causation_id=None,
        user_id=user_id,
    )


# -- a round trip


@pytest.mark.parametrize("kind", FACTS, ids=get_topic)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_each_fact_comes_back_as_it_was(kind: type[Fact], data: st.DataObject, keys: KeyStore, mapper: SealingMapper):
    fact = data.draw(any_fact(kind))
    stored = mapper.to_stored_event(fact)
    read = mapper.to_domain_event(stored)
    assert type(read) is kind
    assert opened(read, keys) == fact
    assert not has_personal_data(read)
    assert mapper.to_stored_event(read) == stored


def test_every_kind_of_fact_is_tried():
    declared = {kind.TOPIC for kind in vars(domain.events).values() if isinstance(kind, type) and "TOPIC" in vars(kind)}
    assert declared == {get_topic(kind) for kind in FACTS}


@given(user_id=TEXTS.filter(lambda text: len(text.encode()) > 5))
@settings(max_examples=60, deadline=None)
def test_no_plaintext_reaches_the_bytes(user_id: str, keys: KeyStore, mapper: SealingMapper):
    state = mapper.to_stored_event(enrolled(user_id=f"canary {user_id}")).state
    assert b"canary" not in state
    assert f"canary {user_id}".encode() not in state


def test_a_fact_that_lacks_something_is_not_read(mapper: SealingMapper):
    stored = mapper.to_stored_event(enrolled())
    with pytest.raises(MapperDeserialisationError, match="UserEnrolled"):
        mapper.to_domain_event(replace(stored, state=b"{}"))


def test_sealing_twice_never_gives_the_same_bytes(mapper: SealingMapper):
    fact = enrolled()
    assert mapper.to_stored_event(fact).state != mapper.to_stored_event(fact).state


def test_history_is_read_without_any_key(keys: KeyStore, mapper: SealingMapper):
    stream = uuid4()
    stored = mapper.to_stored_event(enrolled(stream))
    with keys.database.transaction() as connection:
        connection.execute(update(user_keys).where(user_keys.c.stream == stream).values(wrapped=None))
    read = mapper.to_domain_event(stored)
    assert read.originator_id == stream
    assert isinstance(read.user_id, Sealed)


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b'{"timestamp": "noon"}', b"\xff", b"null"])
def test_a_state_that_cannot_be_read_is_named(mapper: SealingMapper, state: bytes):
    damaged = StoredEvent(STREAMS[0], 7, "SessionCreated", state)
    with pytest.raises(MapperDeserialisationError, match=f"SessionCreated {STREAMS[0]} version 7"):
        mapper.to_domain_event(damaged)


# -- a ciphertext at another place


def moved(**elsewhere: Any) -> Any:
    return lambda fact: replace(fact, **elsewhere)


@pytest.mark.parametrize(
    "move",
    [moved(event_id=uuid4()), moved(originator_id=STREAMS[1]), moved(originator_version=2)],
    ids=["event", "stream", "version"],
)
def test_a_ciphertext_that_was_moved_does_not_open(keys: KeyStore, mapper: SealingMapper, move: Any):
    fact = enrolled()
    key = keys.ensure([fact.originator_id])[fact.originator_id]
    read = mapper.to_domain_event(mapper.to_stored_event(fact))
    assert unseal_user_id(key, read) == "alice"
    with pytest.raises(SealBroken):
        unseal_user_id(key, move(read))


def test_a_ciphertext_of_another_kind_of_fact_does_not_open(keys: KeyStore, mapper: SealingMapper):
    fact = enrolled(user_id='{"ip": "192.0.2.1"}')
    key = keys.ensure([fact.originator_id])[fact.originator_id]
    read = mapper.to_domain_event(mapper.to_stored_event(fact))
    with pytest.raises(SealBroken):
        unseal_client(key, read.user_id.ciphertext, fact.originator_id, fact.originator_version, fact.event_id)


def test_another_users_key_opens_nothing(keys: KeyStore, mapper: SealingMapper):
    other = keys.ensure([STREAMS[1]])[STREAMS[1]]
    read = mapper.to_domain_event(mapper.to_stored_event(enrolled(STREAMS[0])))
    with pytest.raises(SealBroken):
        unseal_user_id(other, read)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_an_altered_or_shortened_ciphertext_does_not_open(data: st.DataObject):
    key, bound_to = bytes(32), place(STREAMS[0], 1, "UserEnrolled", STREAMS[1])
    ciphertext = seal(key, b"alice", bound_to)
    at = data.draw(st.integers(0, len(ciphertext) - 1))
    flipped = bytearray(ciphertext)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), ciphertext[:at], ciphertext + b"\x00"):
        with pytest.raises(SealBroken):
            unseal(key, damaged, bound_to)
    assert unseal(key, ciphertext, bound_to) == b"alice"


@given(*[st.tuples(st.uuids(), st.integers(0, 2**63), TEXTS, st.uuids())] * 2)
def test_no_two_places_read_alike(one: Any, other: Any):
    assert (place(*one) == place(*other)) == (one == other)


# -- from the command to the disk

CANARY = ClientDetails("198.51.100.77", "CanaryBrowser/77.1 (whose bytes are nowhere)")


def test_address_and_user_agent_are_in_no_file_and_no_log_line(
    open_service: OpenService, files: Callable[[], bytes], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    service = open_service()
    result(Caller(service).creates("alice", client=CANARY, idp_name="in the clear"))
    service.close()

    written = files()
    assert b"in the clear" in written
    for canary in (CANARY.ip_address, CANARY.user_agent, "CanaryBrowser"):
        assert canary.encode() not in written
        assert canary not in caplog.text


def test_a_user_id_is_in_no_fact_of_the_log(service: Service, caller: Caller):
    result(caller.creates("canary-user-77"))
    result(caller.disables("canary-user-78"))
    log = service.recorder.select_notifications(None, 100)
    assert len(log) == 4
    assert not [event for event in log if b"canary" in event.state]
    assert [has_personal_data(fact) for fact in facts(service)] == [False] * 4
