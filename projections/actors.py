"""Who is behind an actor's pseudonym, for as long as his key lives."""

from uuid import UUID

from sqlalchemy import bindparam, select

from domain.events import UserEnrolled
from projections.api_keys import list_keys
from store.database import Database
from store.keys import KeyStore
from store.log import Record
from store.schema import events
from store.sealing import SealingMapper, unseal_user_id

_FIRST = select(*(events.c[name] for name in Record._fields)).where(
    events.c.stream == bindparam("stream"), events.c.version == 1
)


class ActorNames:
    """Names of actors, kept in memory: for one answer, so that an erased person is nameless in the next one."""

    def __init__(self, database: Database, keys: KeyStore, mapper: SealingMapper) -> None:
        self._database = database
        self._keys = keys
        self._mapper = mapper
        self._users: dict[UUID, str | None] = {}
        self._api_keys: dict[str, str] | None = None

    def name(self, actor: str, stream: UUID) -> str | None:
        """The user id, or the API key's name; None for a policy and for whoever was erased. `stream`: who is `self`."""
        kind, _, key = actor.partition(":")
        match kind:
            case "self":
                return self.user(stream)
            case "user":
                return self.user(UUID(key))
            case "key":
                return self._api_key(key)
            case _:
                return None

    def user(self, stream: UUID) -> str | None:
        """The user id behind a stream."""
        if stream not in self._users:
            self._users[stream] = self._read_user(stream)
        return self._users[stream]

    def _read_user(self, stream: UUID) -> str | None:
        key = self._keys.find([stream]).get(stream)
        with self._database.reading() as connection:
            row = connection.execute(_FIRST, {"stream": stream}).one_or_none()
        if key is None or row is None:
            return None
        enrolled = self._mapper.to_domain_event(Record(*row).stored)
        return unseal_user_id(key, enrolled) if isinstance(enrolled, UserEnrolled) else None

    def _api_key(self, key_id: str) -> str | None:
        if self._api_keys is None:
            self._api_keys = {key.key_id: key.name for key in list_keys(self._database)}
        return self._api_keys.get(key_id)
