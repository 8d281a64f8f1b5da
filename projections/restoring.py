"""Whether a backup can be restored: its files are whole, its keys are the log's, and nobody who was erased is in it."""

import hmac
from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

from sqlalchemy import select

from domain.events import UserEnrolled
from projections.erasures import erased_streams
from store.backup import Files
from store.database import Database, store_errors
from store.keys import KeyStore, user_keys
from store.master_key import MasterKeyError
from store.notes import Verifier
from store.schema import bindings, events
from store.verifying import verify_log


def faults(files: Files, live_keys: Database | None, verifier: Verifier | None) -> Iterator[str]:
    """What is wrong with a backup. `live_keys` say who was erased since; `verifier` checks what was signed.

    Raises `StoreUnavailable` where a file of it cannot be read at all.
    """
    log, keys = Database(f"sqlite:///{files.log}"), Database(f"sqlite:///{files.keys}")
    with closing(log), closing(keys):
        damaged = False
        for database in (log, keys):
            database.must_exist()
            for fault in _damage(database):
                damaged = True
                yield f"{database.path.name}: {fault}"
        if damaged:
            return
        yield from _key_faults(log, keys, files, live_keys)
        if verifier:
            report = verify_log(log, verifier, [])
            yield from (f"position {finding.position}: {finding.what}" for finding in report.findings)


def _damage(database: Database) -> list[str]:
    with store_errors(), database.reading() as connection:
        told = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    return [] if told == ["ok"] else [*told]


def _key_faults(log: Database, keys: Database, files: Files, live_keys: Database | None) -> Iterator[str]:
    try:
        store = KeyStore.existing(keys, files.master_key)
    except MasterKeyError as error:
        yield str(error)
        return
    with store_errors(), log.reading() as connection:
        proof = connection.execute(select(bindings.c.value).where(bindings.c.name == "pepper")).scalar()
    if proof is None or not hmac.compare_digest(proof, store.secret_for("log")):
        yield "The keys are not those that the log was written with."
    if keyless := len(_enrolled(log) - _known(keys)):
        yield f"{keyless} users of the log have no key: what is sealed of them cannot be read."
    for stream in store.without_tombstone(erased_streams(log)):
        yield f"The erased user {stream} has a key; a service that starts on this backup destroys it first."
    if live_keys:
        for stream in store.without_tombstone(_tombstones(live_keys)):
            yield f"The user {stream} was erased since: after a restore, erase him again."


def _enrolled(log: Database) -> set[UUID]:
    with store_errors(), log.reading() as connection:
        return set(connection.execute(select(events.c.stream).where(events.c.topic == UserEnrolled.TOPIC)).scalars())


def _known(keys: Database) -> set[UUID]:
    """Who has a key, or a tombstone."""
    with store_errors(), keys.reading() as connection:
        return set(connection.execute(select(user_keys.c.stream)).scalars())


def _tombstones(keys: Database) -> list[UUID]:
    with store_errors(), keys.reading() as connection:
        return list(connection.execute(select(user_keys.c.stream).where(user_keys.c.wrapped.is_(None))).scalars())
