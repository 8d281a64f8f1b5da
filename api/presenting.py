"""How a session is shown: personal data is unsealed here, at the edge, for one answer."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from domain.events import ClientDetails
from projections.session_views import SessionView
from store.grouping import GroupedLookup
from store.keys import KeyStore, stream_keys_query
from store.reads import Reads, padded
from store.sealing import unseal_client

NOTHING = ClientDetails(None, None)


class Presenter:
    """Shows sessions. Keys are read anew for each answer, together with those that other answers wait for."""

    def __init__(self, keys: KeyStore, key_reads: Reads) -> None:
        self._keys = keys
        self._reads = key_reads
        self._lookup: GroupedLookup[UUID] = GroupedLookup(self._read)

    async def one(self, view: SessionView, current: UUID | None) -> dict[str, Any]:
        """The members of a `SessionOut`."""
        return _members(view, _client(view, await self._key([view])), current)

    async def active(self, views: Sequence[SessionView], current: UUID | None) -> list[dict[str, Any]]:
        """The members of each `SessionOut`."""
        key = await self._key(views)
        return [_members(view, _client(view, key), current) for view in views]

    async def history(self, views: Sequence[SessionView], current: UUID | None) -> list[dict[str, Any]]:
        """The members of each `EndedSessionOut`: the same, and how it ended."""
        key = await self._key(views)
        return [_members(view, _client(view, key), current) | _end(view) for view in views]

    async def _key(self, views: Sequence[SessionView]) -> bytes | None:
        """The key of the one user whose sessions these are."""
        sealed = next((view for view in views if view.client), None)
        key: bytes | None = await self._lookup.get(sealed.stream) if sealed else None
        return key

    async def _read(self, streams: list[UUID]) -> dict[UUID, bytes]:
        wanted = padded("s", streams)
        return self._keys.unwrap(await self._reads.rows(stream_keys_query(len(wanted)), **wanted))


def _client(view: SessionView, key: bytes | None) -> ClientDetails:
    if view.client is None or key is None:
        return NOTHING
    return unseal_client(key, view.client, view.stream, view.created_version, view.created_event)


def _members(view: SessionView, client: ClientDetails, current: UUID | None) -> dict[str, Any]:
    return {
        "id": view.session_id,
        "user_agent": client.user_agent,
        "device": view.device,
        "ip_address": client.ip_address,
        "created_at": view.created_at,
        "last_active_at": view.last_active_at,
        "expires_at": view.expires_at,
        "idp_name": view.idp_name,
        "remember_me": view.remember_me,
        "is_current": view.session_id == current,
    }


def _end(view: SessionView) -> dict[str, Any]:
    if view.end is None:
        return {"ended_at": None, "end_reason": None, "ended_by": None}
    return {"ended_at": view.end.at, "end_reason": view.end.reason, "ended_by": view.ended_by}
