"""Whether a ledger that was restored is whole, or would be: its log, its keys, its read models, and who was erased."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, select

from projections.key_check import key_faults
from projections.rebuild import PROJECTIONS, Comparison, rebuild
from projections.shadow import RebuildStopped
from store.backup import Files, copy_database
from store.database import Database, Garbled, store_errors
from store.keys import KeyStore, tombstones
from store.master_key import MasterKeyError
from store.notes import Verifier
from store.schema import events, tracking
from store.verifying import Report, Signed, verify_log

Told = Callable[[str, int, int], None]
"""Hears what is being checked, how many events are done, and of how many."""


@dataclass(slots=True)
class Condition:
    """What was found. `lost`: how many events are known to have been signed behind the last one that is there."""

    faults: list[str] = field(default_factory=list)
    log: Report | None = None
    lost: int = 0
    read_models: dict[str, Comparison] = field(default_factory=dict)


class Restored(NamedTuple):
    """What is to be examined. `keys_before` are those of the ledger as it is without this restore."""

    log: Database
    keys: Database
    master_key_file: Path
    keys_before: Database | None = None


@contextmanager
def tried_out(files: Files, keys_before: Database | None) -> Iterator[Restored]:
    """A backup, which stays as it is: its log is copied into the directory for temporary files.

    Raises `StoreUnavailable` for a backup that is not there, and where there is no room.
    """
    with ExitStack() as opened:
        original, keys = (opened.enter_context(closing(Database(f"sqlite:///{f}"))) for f in (files.log, files.keys))
        for database in (original, keys):
            database.must_exist()
        copy = Path(opened.enter_context(tempfile.TemporaryDirectory("-check-restore")), files.log.name)
        with store_errors():
            copy_database(files.log, copy)
        log = opened.enter_context(closing(Database(f"sqlite:///{copy}")))
        yield Restored(log, keys, files.master_key, keys_before)


def examine(
    restored: Restored,
    verifier: Verifier,
    last_signed: Signed | None,
    kept: Sequence[Signed],
    processes: int = 1,
    told: Told = lambda what, done, total: None,
) -> Condition:
    """Find all that is wrong. Read models are folded anew beside those that are there; nothing else is written.

    `last_signed`, the signer's memory, tells what is lost where it goes further than the log; what was `kept` must be
    in the log. Raises `StoreUnavailable` for a database that cannot be read, and `RebuildRunning`.
    """
    log, found = restored.log, Condition()
    found.faults += [*_damage(log), *_damage(restored.keys)]
    if found.faults:
        return found
    found.lost = max(last_signed.size - _last(log), 0) if last_signed else 0
    known = [*kept, *([last_signed] if last_signed and not found.lost else [])]
    found.log = verify_log(log, verifier, known, processes, partial(told, "log"))
    found.faults += (f"position {finding.position}: {finding.what}" for finding in found.log.findings)
    found.faults += _ahead(log)
    found.faults += _key_faults(restored)
    found.faults += _read_model_faults(log, found, told)
    return found


def _damage(database: Database) -> list[str]:
    """What SQLite says of a file that is not whole. PostgreSQL's are its own to check."""
    if not database.is_sqlite:
        return []
    with store_errors(), database.reading() as connection:
        says = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    return [] if says == ["ok"] else [f"{database.path.name}: {what}" for what in says]


def _last(log: Database) -> int:
    with store_errors(), log.reading() as connection:
        return connection.execute(select(func.max(events.c.position))).scalar() or 0


def _ahead(log: Database) -> Iterator[str]:
    """Who follows the log and would skip what comes next. One statement: the service may run meanwhile."""
    last = func.coalesce(select(func.max(events.c.position)).scalar_subquery(), 0)
    too_far = select(tracking.c.name, tracking.c.position, last).where(tracking.c.position > last)
    with store_errors(), log.reading() as connection:
        for name, position, end in connection.execute(too_far.order_by(tracking.c.name)):
            yield f"{name} stands at position {position}, and the log ends at {end}"


def _key_faults(restored: Restored) -> Iterator[str]:
    try:
        keys = KeyStore.existing(restored.keys, restored.master_key_file)
        keys.check_bound(restored.log)
        erased_since = tombstones(restored.keys_before) if restored.keys_before else set()
        yield from key_faults(restored.log, keys, erased_since)
    except (MasterKeyError, Garbled) as error:
        yield str(error)


def _read_model_faults(log: Database, found: Condition, told: Told) -> Iterator[str]:
    for name, projection in PROJECTIONS.items():
        try:
            with store_errors():
                comparison = rebuild(log, projection, dry_run=True, report=partial(told, name))
        except RebuildStopped as error:
            yield f"read model {name}: {error}"
            continue
        found.read_models[name] = comparison
        if not comparison.identical:
            yield f"read model {name}: {_how_it_differs(comparison)}; ./scripts/ledger rebuild {name} repairs it"


def _how_it_differs(comparison: Comparison) -> str:
    if comparison.shapes:
        return "; ".join(comparison.shapes)
    return f"{comparison.differing} rows are not what the log says, as {comparison.rows[0]}"
