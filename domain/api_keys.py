"""An API key: made for a service or an administrator, and revoked at most once. Each is a stream of its own."""

from typing import NamedTuple, Self
from uuid import UUID, uuid5

from eventsourcing.domain import event

from domain.aggregate import Acting, Context
from domain.events import ApiKeyCreated, ApiKeyRevoked

_NAMESPACE = UUID("5b0c7e3a-6f0d-5d1e-9a43-1c2f7f0f8a6b")


def stream_of(key_id: str) -> UUID:
    """The key's stream: a name-based UUID (version 5), so never that of a user, which is of version 8."""
    return uuid5(_NAMESPACE, key_id)


class NewApiKey(NamedTuple):
    """What is known of a key when it is made. `digest`: SHA-256 of its secret, which nobody keeps."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    digest: bytes


class ApiKey(Acting):
    """A key, in force until it is revoked."""

    TOPIC = "ApiKey"
    Created = ApiKeyCreated  # type: ignore[assignment]
    ApiKeyRevoked = ApiKeyRevoked

    @classmethod
    def create(cls, key: NewApiKey, context: Context) -> Self:
        return cls.begin(stream_of(key.key_id), context, **key._asdict())

    def revoke(self) -> bool:
        """Refuse the key from now on; False when it was revoked before."""
        if self.revoked:
            return False
        self.trigger_event(self.ApiKeyRevoked, key_id=self.key_id)
        return True

    # -- appliers

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.revoked = False

    @event(ApiKeyRevoked)
    def _revoke(self) -> None:
        self.revoked = True
