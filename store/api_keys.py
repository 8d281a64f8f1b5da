"""API keys for services and administrators: shown once, stored as SHA-256, revoked by a mark."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from sqlalchemy import bindparam, insert, select, update

from store.database import Database, store_errors
from store.grouping import GroupedLookup
from store.reads import Query, Reads, padded
from store.schema import api_keys

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


def create_key(database: Database, name: str, scopes: Sequence[Scope], now: int) -> tuple[ApiKey, str]:
    """A new key, and its secret, which is not to be had again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(secrets.token_hex(6), name, frozenset(scopes), now, None)
    with store_errors(), database.transaction() as connection:
        connection.execute(
            insert(api_keys).values(
                key_id=key.key_id, digest=digest(secret), name=name, scopes=" ".join(sorted(scopes)), created_at=now
            )
        )
    return key, secret


def list_keys(database: Database) -> list[ApiKey]:
    """Every key ever made, oldest first."""
    with store_errors(), database.reading() as connection:
        return [_key(row) for row in connection.execute(select(*_COLUMNS).order_by(api_keys.c.created_at))]


def revoke_key(database: Database, key_id: str, now: int) -> bool:
    """Refuse the key from the commit on; False when it is unknown or was revoked before."""
    live = (api_keys.c.key_id == key_id) & api_keys.c.revoked_at.is_(None)
    with store_errors(), database.transaction() as connection:
        return connection.execute(update(api_keys).where(live).values(revoked_at=now)).rowcount == 1


class ApiKeys:
    """Every key ever made, looked up anew for each request."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._lookup = GroupedLookup(self._read)

    async def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, also one that was revoked; None when there never was one."""
        return await self._lookup.get(digest(secret))

    async def _read(self, digests: list[bytes]) -> dict[bytes, ApiKey]:
        wanted = padded("k", digests)
        rows = await self._reads.rows(_by_digest_query(len(wanted)), **wanted)
        return {row[-1]: _key(row[:-1]) for row in rows}


_COLUMNS = (
    api_keys.c.key_id,
    api_keys.c.name,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.revoked_at,
)


@cache
def _by_digest_query(size: int) -> Query:
    wanted = api_keys.c.digest.in_([bindparam(f"k{i}") for i in range(size)])
    return Query(select(*_COLUMNS, api_keys.c.digest).where(wanted))


def _key(row: Sequence[object]) -> ApiKey:
    key_id, name, scopes, created_at, revoked_at = row
    return ApiKey(key_id, name, frozenset(str(scopes).split()), created_at, revoked_at)  # type: ignore[arg-type]
