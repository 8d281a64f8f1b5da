"""Everything behind HTTP as the settings say, for a server and for commands, which need no HTTP."""

from pathlib import Path

from api.ids import new_uuid7
from api.service import Service, Stores, beside
from api.settings import Settings
from domain.session import Limits, Timeouts
from store.clock import Clock


def open_service(settings: Settings, clock: Clock | None = None) -> Service:
    """Raises `StoreUnavailable`, `MasterKeyError` and `SigningKeyError` for what cannot be opened."""
    stores = Stores(
        settings.database_url,
        settings.keys_database_url,
        Path(settings.master_key_file),
        settings.database_owner_url,
        signing_key_file(settings),
        settings.origin,
    )
    return Service(stores, limits(settings), new_uuid7, clock)


def signing_key_file(settings: Settings) -> Path:
    return settings.signing_key_file or beside(settings.master_key_file)


def limits(settings: Settings) -> Limits:
    return Limits(
        normal=Timeouts(settings.idle_timeout, settings.absolute_timeout),
        remembered=Timeouts(settings.remember_idle_timeout, settings.remember_absolute_timeout),
        touch_interval=settings.touch_interval,
        max_sessions=settings.max_sessions_per_user,
    )
