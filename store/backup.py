"""A copy of a ledger on SQLite while it is in use, by SQLite's own backup: a file that is copied may be torn (F-21).

A backup is a directory: `ledger.db`, and apart from it `keys/` with the keys and their master key, to be moved to a
place of its own and kept no longer than an erased person may wait. What signs checkpoints is not in it: its memory must
never go back (T-27).
"""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from store.database import Database, connect_sqlite_reader, store_errors
from store.durable_file import create, sync_directory

PAGES = 4_096  # between two of these Ctrl-C is heard


class BackupRefused(Exception):
    """Nothing was written, for this reason."""


class Files(NamedTuple):
    """What a backup in `directory` consists of."""

    directory: Path

    @property
    def log(self) -> Path:
        return self.directory / "ledger.db"

    @property
    def keys(self) -> Path:
        return self.directory / "keys" / "keys.db"

    @property
    def master_key(self) -> Path:
        return self.directory / "keys" / "master.key"


def back_up(log: Database, keys: Database, master_key_file: Path, directory: Path) -> None:
    """Copy all of it; the directory is complete or not there at all. Raises `BackupRefused`, `StoreUnavailable`.

    The log goes first: a key is there before the event that it seals, so no event of the copy is without its key.
    """
    if not (log.is_sqlite and keys.is_sqlite):
        raise BackupRefused(
            "PostgreSQL has backups of its own: pg_basebackup or pg_dump, the log first, then the keys, apart."
        )
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise BackupRefused(f"{directory} is not empty.")
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.absolute().parent))
    try:
        files = Files(draft)
        files.keys.parent.mkdir()
        with store_errors():
            copy_database(log.path, files.log)
            _copy_keys(keys.path, master_key_file, files)
        for written in (files.keys.parent, draft):
            sync_directory(written)
        draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft)
        raise
    sync_directory(directory.absolute().parent)


def copy_database(source: Path, target: Path) -> None:
    """As it is at one moment, however much is written meanwhile: a read transaction is held open."""
    with closing(connect_sqlite_reader(source)) as reader, closing(sqlite3.connect(target)) as copy:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        reader.backup(copy, pages=PAGES, progress=lambda *_: None)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file: a WAL beside it would be forgotten


def _copy_keys(keys: Path, master_key: Path, files: Files) -> None:
    """Again when the master key was rotated meanwhile: the two must fit."""
    wraps = None
    while wraps != (wraps := master_key.read_bytes()):
        files.keys.unlink(missing_ok=True)
        copy_database(keys, files.keys)
    create(files.master_key, wraps)
