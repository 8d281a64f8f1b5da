"""How a command reaches the ledger: read-only, or with all that it takes to record something; what exit codes say."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from eventsourcing.persistence import MapperDeserialisationError
from sqlalchemy import inspect

from api.opening import open_service
from api.service import Service
from api.settings import Settings, SettingsError, load_settings
from domain.errors import LedgerBusy, LedgerError, StoreUnavailable
from projections.erasures import erased_streams
from scripts.cli.refusing import Refused
from store.clock import Clock, ClockBehindLog
from store.database import Database, store_errors
from store.keys import KeyStore
from store.master_key import MasterKeyError
from store.recorder import last_recorded_at
from store.schema import working
from store.sealing import SealingMapper
from store.signing import SigningKeyError

BAD_USAGE = 2
"""The command, or a setting, is not understood. Nothing was touched."""

CANNOT_READ_OR_WRITE = 3
"""The store, the keys or a file cannot be read or written."""


UNUSABLE = (
    StoreUnavailable, LedgerBusy, MasterKeyError, SigningKeyError, ClockBehindLog, MapperDeserialisationError,
    TimeoutError,  # of a file that another process holds
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """The store, to look at: nothing in it is created or changed."""

    settings: Settings
    database: Database
    keys_database: Database
    keys: KeyStore
    mapper: SealingMapper
    clock: Clock


@contextmanager
def reading() -> Iterator[Reading]:
    """Open what is there. A ledger that does not exist is an error, and stays so."""
    with told():
        settings = load_settings(os.environ)
        database, keys_database = Database(settings.database_url), Database(settings.keys_database_url)
        try:
            must_be_current(database)
            keys_database.must_exist()
            keys = KeyStore.existing(keys_database, Path(settings.master_key_file))
            with store_errors():
                clock = Clock(not_before=last_recorded_at(database))
            keys.withhold(erased_streams(database))
            with store_errors():
                yield Reading(settings, database, keys_database, keys, SealingMapper(keys), clock)
        finally:
            database.close()
            keys_database.close()


@contextmanager
def log_only(*, as_it_is: bool = False) -> Iterator[Database]:
    """The database of the log and its read models, without any key. Its tables must all be there, unless `as_it_is`."""
    with told():
        database = Database(load_settings(os.environ).database_url)
        try:
            if not as_it_is:
                must_be_current(database)
            with store_errors():
                yield database
        finally:
            database.close()


@contextmanager
def keys_only() -> Iterator[KeyStore]:
    """The keys that are there, without the log."""
    with told():
        settings = load_settings(os.environ)
        database = Database(settings.keys_database_url)
        try:
            database.must_exist()
            yield KeyStore.existing(database, Path(settings.master_key_file))
        finally:
            database.close()


@contextmanager
def service() -> Iterator[Service]:
    """Open the store to record something through the front door, as a server does, beside those that run."""
    with told():
        opened = open_service(load_settings(os.environ))
        try:
            yield opened
        finally:
            opened.close()


def must_be_current(database: Database) -> None:
    """Raise `StoreUnavailable` for a ledger that is not there, or has not the tables of this version yet."""
    database.must_exist()
    with store_errors(), database.reading() as connection:
        missing = working.tables.keys() - set(inspect(connection).get_table_names())
    if missing:
        raise StoreUnavailable(
            f"The ledger at {database.url.render_as_string()} is not of this version: it has no table "
            f"{', '.join(sorted(missing))}. Start the service once; it adds what is new."
        )


@contextmanager
def told() -> Iterator[None]:
    """Say on stderr what is wrong, and end with the exit code for it. Raises `Refused` for what the ledger refuses."""
    try:
        yield
    except SettingsError as error:
        raise _ended(BAD_USAGE, error) from error
    except UNUSABLE as error:
        raise _ended(CANNOT_READ_OR_WRITE, error) from error
    except LedgerError as error:
        raise Refused(str(error)) from error


def _ended(code: int, error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(code)
