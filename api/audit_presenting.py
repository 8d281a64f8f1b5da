"""How an event is shown to an auditor. People are named, and client details unsealed, only for who may see them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import Connection, select

from domain.events import ClientDetails, Sealed, SessionCreated
from projections.api_keys import api_keys
from projections.audit import AuditRow
from projections.places import entries
from store.clock import from_micros
from store.keys import KeyStore
from store.log import Record
from store.schema import events, identities
from store.sealing import SealingMapper, unseal_client

NOTHING = ClientDetails(None, None)


class People(NamedTuple):
    """What is known of those whom some events are about: erased ones are nobody here."""

    user_ids: Mapping[UUID, str]
    key_names: Mapping[str, str]
    clients: Mapping[int, ClientDetails]


NOBODY = People({}, {}, {})


class AuditPresenter:
    """Works in the thread that has read the rows. Keys are read for one answer, and not kept."""

    def __init__(self, keys: KeyStore, mapper: SealingMapper) -> None:
        self._keys = keys
        self._mapper = mapper

    def shown(self, connection: Connection, rows: Sequence[AuditRow], *, personal: bool) -> list[dict[str, Any]]:
        """The members of each `AuditEvent`."""
        people = self._people(connection, rows) if personal else NOBODY
        return [_members(row, people) for row in rows]

    def _people(self, connection: Connection, rows: Sequence[AuditRow]) -> People:
        streams = {row.stream for row in rows} | {stream for row in rows if (stream := _acting_user(row.actor))}
        keys = self._keys.find([*streams])
        return People(
            _user_ids(connection, keys), _key_names(connection, rows), dict(self._clients(connection, rows, keys))
        )

    def _clients(
        self, connection: Connection, rows: Sequence[AuditRow], keys: Mapping[UUID, bytes]
    ) -> Iterable[tuple[int, ClientDetails]]:
        positions = [row.position for row in rows if row.event_type == SessionCreated.TOPIC and row.stream in keys]
        stored = select(*(events.c[name] for name in Record._fields)).where(events.c.position.in_(positions))
        for position, _, fact in entries(self._mapper, [Record(*row) for row in connection.execute(stored)]):
            created = cast(SessionCreated, fact)
            if isinstance(created.client, Sealed):
                stream, place = created.originator_id, (created.originator_version, created.event_id)
                yield position, unseal_client(keys[stream], created.client.ciphertext, stream, *place)


def _user_ids(connection: Connection, keys: Mapping[UUID, bytes]) -> dict[UUID, str]:
    """Of those whose key lives: where it is gone, the name is being forgotten, too."""
    named = select(identities.c.stream, identities.c.user_id).where(identities.c.stream.in_([*keys]))
    return {row.stream: row.user_id for row in connection.execute(named)}


def _key_names(connection: Connection, rows: Sequence[AuditRow]) -> dict[str, str]:
    acting = {row.actor.removeprefix("key:") for row in rows if row.actor.startswith("key:")}
    named = select(api_keys.c.key_id, api_keys.c.name).where(api_keys.c.key_id.in_(acting))
    return {row.key_id: row.name for row in connection.execute(named)}


def _acting_user(actor: str) -> UUID | None:
    kind, _, stream = actor.partition(":")
    return UUID(stream) if kind == "user" else None


def _actor_name(row: AuditRow, people: People) -> str | None:
    if row.actor == "self":
        return people.user_ids.get(row.stream)
    kind, _, name = row.actor.partition(":")
    return people.user_ids.get(UUID(name)) if kind == "user" else people.key_names.get(name)


def _members(row: AuditRow, people: People) -> dict[str, Any]:
    client = people.clients.get(row.position, NOTHING)
    return {
        "id": row.event_id,
        "position": row.position,
        "event_type": row.event_type,
        "timestamp": from_micros(row.timestamp),
        "recorded_at": from_micros(row.recorded_at),
        "stream": row.stream,
        "user_id": people.user_ids.get(row.stream),
        "session_id": row.session_id,
        "actor": row.actor,
        "actor_name": _actor_name(row, people),
        "reason": row.reason,
        "ip_address": client.ip_address,
        "user_agent": client.user_agent,
        "correlation_id": row.correlation_id,
        "causation_id": row.causation_id,
    }
