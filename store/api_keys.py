"""API keys for services and administrators: what they may do, and how one is made, shown once, and revoked."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.api_keys import NewApiKey
from domain.errors import OutcomeUnknown
from domain.ledger import Request, SessionLedger
from store.clock import to_micros
from store.outcome import outcome

PREFIX = "slk_"


class Scope(StrEnum):
    """What a credential may do beside being its user's session."""

    SESSIONS_CREATE = "sessions:create"
    USERS_ADMIN = "users:admin"
    AUDIT_READ = "audit:read"
    AUDIT_PERSONAL = "audit:personal"
    TOKENS_INTROSPECT = "tokens:introspect"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `created_at`, `revoked_at`: microseconds since 1970."""

    key_id: str
    name: str
    scopes: frozenset[str]
    created_at: int
    revoked_at: int | None


def digest(secret: str) -> bytes:
    """What is stored of a key or a session token; 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def create_key(ledger: SessionLedger, name: str, scopes: Sequence[Scope], request: Request) -> tuple[ApiKey, str]:
    """A new key, recorded, and its secret, which is not to be had again. Raises `StoreUnavailable`."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = NewApiKey(secrets.token_hex(6), name, tuple(sorted(scopes)), digest(secret))
    try:
        created_at = outcome(ledger.create_api_key(key, request)).result
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"{error} If the key {key.key_id} is there, revoke it, and make another one.") from error
    return ApiKey(key.key_id, name, frozenset(scopes), to_micros(created_at), None), secret


def revoke_key(ledger: SessionLedger, key_id: str, request: Request) -> bool:
    """Refuse the key from the commit on; False when it is unknown or was revoked before.

    Raises `StoreUnavailable`.
    """
    return outcome(ledger.revoke_api_key(key_id, request)).result
