"""How facts become stored bytes, and how personal data in them is sealed.

Stored state is one flat JSON object: UUIDs as 32 hex digits, moments as microseconds since 1970 (UTC), bytes as
base64, absent values left out. Personal data is sealed with AES-256-GCM under its user's key and bound to its place
(stream, version, topic, event id), so a ciphertext that is moved to another event does not open.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, Protocol, cast, get_type_hints
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import DatetimeAsISO, JSONTranscoder, Mapper, MapperDeserialisationError, StoredEvent
from eventsourcing.utils import get_topic, resolve_topic
from pydantic_core import from_json, to_json

from domain.events import ClientDetails, EndReason, Fact, Sealed, SessionCreated, UserEnrolled
from store.clock import from_micros, to_micros
from store.noise import noise

NONCE_BYTES = 12


class SealBroken(Exception):
    """The ciphertext does not belong to this place, or was altered, or the key is another one."""


class Keys(Protocol):
    """Who holds the users' keys."""

    def ensure(self, streams: Iterable[UUID]) -> Mapping[UUID, bytes]:
        """The key of each user, made and durable when he had none."""


class NoKeys:
    """Of whoever only reads facts as they are stored."""

    def ensure(self, streams: Iterable[UUID]) -> Mapping[UUID, bytes]:
        raise SealBroken("There is no key here to seal with.")


def seal(key: bytes, plaintext: bytes, bound_to: bytes) -> bytes:
    nonce = noise(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, bound_to)


def unseal(key: bytes, ciphertext: bytes, bound_to: bytes) -> bytes:
    """Raises `SealBroken` rather than give anything that was not sealed at this place under this key."""
    try:
        return AESGCM(key).decrypt(ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError, TypeError) as error:  # SQLite keeps values of any type
        raise SealBroken("This ciphertext does not open here.") from error


def place(stream: UUID, version: int, topic: str, event_id: UUID) -> bytes:
    """What a sealed value is bound to. Fixed widths first, so no two places read alike."""
    return stream.bytes + version.to_bytes(8, "big") + event_id.bytes + topic.encode()


def unseal_client(key: bytes, sealed: bytes, stream: UUID, version: int, event_id: UUID) -> ClientDetails:
    """The client details of the `SessionCreated` at this place."""
    details = from_json(unseal(key, sealed, place(stream, version, SessionCreated.TOPIC, event_id)))
    return ClientDetails(details["ip"], details["ua"])


def unseal_user_id(key: bytes, enrolled: UserEnrolled) -> str:
    """Who is behind a stream."""
    assert isinstance(enrolled.user_id, Sealed)
    bound_to = place(enrolled.originator_id, enrolled.originator_version, enrolled.TOPIC, enrolled.event_id)
    return unseal(key, enrolled.user_id.ciphertext, bound_to).decode()


class SealingMapper(Mapper[UUID]):
    """The library's mapper for our facts. What it reads back stays sealed: replaying history needs no key."""

    def __init__(self, keys: Keys) -> None:
        transcoder = JSONTranscoder()
        transcoder.register(DatetimeAsISO())  # for snapshots, which the library's own code maps
        super().__init__(transcoder)
        self._keys = keys

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        if not isinstance(domain_event, Fact):
            return super().to_stored_event(domain_event)
        if has_personal_data(domain_event):
            domain_event = self.seal(domain_event, self._keys.ensure([domain_event.originator_id]))
        state = {
            name: encode(value)
            for name, encode, _, _ in codec(type(domain_event))
            if (value := getattr(domain_event, name)) is not None
        }
        class_version = getattr(domain_event, "class_version", 1)
        if class_version > 1:
            state["class_version"] = class_version
        return StoredEvent(
            domain_event.originator_id,
            domain_event.originator_version,
            get_topic(type(domain_event)),
            to_json(state),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[UUID]:
        cls = resolve_topic(stored_event.topic)
        if not issubclass(cls, Fact):
            return super().to_domain_event(stored_event)
        try:
            state = stored_state(cls, stored_event.state)
            facts = {
                name: None if may_be_absent and name not in state else decode(state[name])
                for name, _, decode, may_be_absent in codec(cls)
            }
        except Exception as error:
            raise unreadable(
                stored_event.topic, stored_event.originator_id, stored_event.originator_version, error
            ) from error
        facts["originator_id"] = stored_event.originator_id
        facts["originator_version"] = stored_event.originator_version
        fact = object.__new__(cls)
        fact.__dict__.update(facts)
        return cast(DomainEventProtocol[UUID], fact)

    def seal(self, fact: Fact, keys: Mapping[UUID, bytes]) -> Fact:
        """The same fact with its personal data sealed under its user's key."""
        if not has_personal_data(fact):
            return fact
        plaintext = _personal_data(cast(UserEnrolled | SessionCreated, fact))
        bound_to = place(fact.originator_id, fact.originator_version, get_topic(type(fact)), fact.event_id)
        sealed = Sealed(seal(keys[fact.originator_id], plaintext, bound_to))
        sealed_fact = object.__new__(type(fact))  # `replace` costs as much as the sealing
        sealed_fact.__dict__.update(fact.__dict__)
        sealed_fact.__dict__["user_id" if isinstance(fact, UserEnrolled) else "client"] = sealed
        return sealed_fact


def stored_state(cls: type[Fact], stored: bytes) -> dict[str, Any]:
    """The fields as they are stored, in the form that this version of the fact has."""
    state: dict[str, Any] = from_json(stored, cache_strings="keys")  # values are rarely met again
    for version in range(state.pop("class_version", 1), getattr(cls, "class_version", 1)):
        getattr(cls, f"upcast_v{version}_v{version + 1}")(state)
    return state


def unreadable(topic: str, stream: UUID | str, version: int, error: Exception) -> MapperDeserialisationError:
    return MapperDeserialisationError(f"Cannot read the stored state of {topic} {stream} version {version}: {error!r}")


def has_personal_data(fact: Fact) -> bool:
    """Whether something in a fact still has to be sealed."""
    if isinstance(fact, SessionCreated):
        return isinstance(fact.client, ClientDetails)
    return isinstance(fact, UserEnrolled) and isinstance(fact.user_id, str)


def _personal_data(fact: UserEnrolled | SessionCreated) -> bytes:
    if isinstance(fact, UserEnrolled):
        return str(fact.user_id).encode()
    client = cast(ClientDetails, fact.client)
    return to_json({"ip": client.ip_address, "ua": client.user_agent})


Convert = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _encode_bytes(value: bytes) -> str:
    return b64encode(value).decode()


_CONVERSIONS: dict[Any, tuple[Convert, Convert]] = {
    str: (_same, _same),
    int: (_same, _same),
    bool: (_same, _same),
    UUID: (lambda value: value.hex, UUID),
    datetime: (to_micros, from_micros),
    bytes: (_encode_bytes, b64decode),
    tuple[str, ...]: (list, tuple),
    tuple[UUID, ...]: (lambda value: [id.hex for id in value], lambda value: tuple(map(UUID, value))),
    EndReason: (str, EndReason),
    str | Sealed: (lambda value: _encode_bytes(value.ciphertext), lambda value: Sealed(b64decode(value))),
    ClientDetails | Sealed: (lambda value: _encode_bytes(value.ciphertext), lambda value: Sealed(b64decode(value))),
}


@cache
def codec(cls: type[Fact]) -> tuple[tuple[str, Convert, Convert, bool], ...]:
    """Name and conversions of each field that `state` holds, and whether it may be absent."""
    return tuple((field.name, *_CONVERSIONS[field.type], field.may_be_absent) for field in field_types(cls))


class FieldType(NamedTuple):
    """A field that `state` holds."""

    name: str
    type: Any
    may_be_absent: bool


def field_types(cls: type[Fact]) -> tuple[FieldType, ...]:
    """In the order in which they are written."""
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls) if f.name not in ("originator_id", "originator_version")]
    return tuple(FieldType(name, _without_none(hints[name]), _may_be_none(hints[name])) for name in names)


def _may_be_none(hint: Any) -> bool:
    return type(None) in getattr(hint, "__args__", ())


def _without_none(hint: Any) -> Any:
    members = [member for member in getattr(hint, "__args__", ()) if member is not type(None)]
    if not members or hint in _CONVERSIONS:
        return hint
    combined = members[0]
    for member in members[1:]:
        combined |= member
    return combined
