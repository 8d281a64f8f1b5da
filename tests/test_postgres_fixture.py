import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from api.settings import Settings
from tests.postgres import Database, PostgresCluster, Schema


def test_the_owners_tables_are_not_the_apps_to_alter(postgres_schema: Schema):
    owner, app = create_engine(postgres_schema.owner_url), create_engine(postgres_schema.app_url)
    with owner.begin() as transaction:
        transaction.execute(text("CREATE TABLE owned (id int)"))
        transaction.execute(text("GRANT SELECT ON owned TO ledger_app"))
    with app.begin() as transaction:
        transaction.execute(text("CREATE TABLE own (id int)"))
        assert transaction.execute(text("SELECT count(*) FROM owned")).scalar() == 0
        assert transaction.execute(text("SELECT current_schema()")).scalar() == postgres_schema.name
    with pytest.raises(ProgrammingError, match="must be owner"), app.begin() as transaction:
        transaction.execute(text("DROP TABLE owned"))


def test_the_server_can_go_away_and_come_back_at_the_same_address(
    postgres_cluster: PostgresCluster, postgres_schema: Schema
):
    engine = create_engine(postgres_schema.app_url)
    with engine.begin() as transaction:
        transaction.execute(text("CREATE TABLE kept (id int)"))
    postgres_cluster.stop(mode="immediate")
    with pytest.raises(OperationalError), engine.connect() as connection:
        connection.execute(text("SELECT count(*) FROM kept"))
    postgres_cluster.start()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM kept")).scalar() == 0


def test_a_schema_goes_though_a_test_left_a_transaction_open(postgres_cluster: PostgresCluster):
    with postgres_cluster.fresh_schema() as schema:
        left_open = create_engine(schema.app_url).connect()
        left_open.execute(text("CREATE TABLE locked (id int)"))
    with psycopg.connect(postgres_cluster.owner_url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT to_regnamespace(%s)", [schema.name]).fetchone() == (None,)


def test_a_database_is_what_the_settings_accept(database: Database):
    settings = Settings(
        database_url=database.url, database_owner_url=database.owner_url, keys_database_url=database.keys_url
    )
    assert settings.database_url == database.url
    assert settings.keys_database_url == database.keys_url
    with create_engine(settings.database_url).connect() as connection:
        assert connection.dialect.name == database.kind


def test_no_server_outlives_a_killed_test_process():
    script = "from tests.postgres import *; print(PostgresCluster()._data, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    data = process.stdout.readline().strip()
    assert servers_of(data)
    process.kill()
    process.communicate()
    until(lambda: not servers_of(data) and not Path(data).exists())


def servers_of(data: str) -> list[psutil.Process]:
    """The server processes that run on these files."""
    processes = psutil.process_iter(["name", "cmdline"])
    return [p for p in processes if p.info["name"] == "postgres" and data in (p.info["cmdline"] or [])]


def until(is_true: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
