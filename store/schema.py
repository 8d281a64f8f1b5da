"""The tables of the store, and the triggers that make the log append-only. Times are microseconds since 1970, UTC."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    literal_column,
)
from sqlalchemy.types import UserDefinedType


class Id(UserDefinedType[Any]):
    """A UUID: PostgreSQL's own type; on SQLite 16 bytes that the driver turns into `uuid.UUID` (see `database.py`)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "UUID"


Position = BigInteger().with_variant(Integer, "sqlite")
Micros = BigInteger().with_variant(Integer, "sqlite")

log = MetaData()
"""The log itself. On PostgreSQL it belongs to the owner role; the service's role may only add to it."""

events = Table(
    "events",
    log,
    Column("position", Position, primary_key=True, autoincrement=False),
    Column("recorded_at", Micros, nullable=False),
    Column("version", Integer, nullable=False),
    Column("stream", Id, nullable=False),
    Column("topic", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
    UniqueConstraint("stream", "version", name="events_stream_version"),
)

is_invalidation = events.c.topic == literal_column("'SessionsInvalidatedBefore'")
"""As plain text in the statement, or no database would see that the index below has all of them."""

invalidations_index = Index(
    "events_invalidations", events.c.position, sqlite_where=is_invalidation, postgresql_where=is_invalidation
)
"""The few facts about everybody: they lie in streams of their own, and each look into a user's past needs them."""

head = Table(
    "head",
    log,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("position", Position, nullable=False),
    Column("recorded_at", Micros, nullable=False),
)
"""One row: the last position and its time. Holding it `FOR UPDATE` is the append lock on PostgreSQL."""

working = MetaData()
"""Everything beside the log. On PostgreSQL it belongs to the service's role."""

tracking = Table(
    "tracking",
    working,
    Column("name", Text, primary_key=True),
    Column("position", Position, nullable=False),
)
"""How far each projection and policy has come."""

parked = Table(
    "parked",
    working,
    Column("name", Text, primary_key=True),
    Column("position", Position, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Micros, nullable=False),
)
"""Who follows the log no further, after which position and why. Whoever deletes a row lets its owner try again."""

snapshots = Table(
    "snapshots_2",
    working,
    Column("stream", Id, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("topic", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
)
"""Disposable. A new shape of the state gets a new table name, and the old table is dropped."""

bindings = Table(
    "bindings",
    working,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""What this log belongs to: a proof of the pepper that its pseudonyms were made with, and the key that signs it."""

identities = Table(
    "identities",
    working,
    Column("stream", Id, primary_key=True),
    Column("user_id", Text, nullable=False),
)
"""Which person is behind a stream: the one place where a user id stands in clear. No projection: it is not refolded."""

idempotency = Table(
    "idempotency",
    working,
    Column("key", LargeBinary, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("stream", Id, nullable=False),
    Column("session_id", Id, nullable=False),
    Column("answer", LargeBinary),
    Column("created_at", Micros, nullable=False),
    Index("idempotency_session", "session_id"),
    Index("idempotency_created", "created_at"),
)

checkpoints = Table(
    "checkpoints",
    working,
    Column("size", Position, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Micros, nullable=False),
)
"""What was signed about the log (`store/signing.py`). The signer's own memory is outside the database."""

tiles = Table(
    "tiles",
    working,
    Column("tier", Integer, primary_key=True, autoincrement=False),
    Column("number", Position, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)
"""The log's Merkle tree (`store/tree.py`). Disposable."""

audit_access = Table(
    "audit_access",
    working,
    Column("reader", Text, primary_key=True),
    Column("filter", Text, primary_key=True),
    Column("hour", Micros, primary_key=True, autoincrement=False),
    Column("reads", Integer, nullable=False),
)
"""Who read the audit log, what he asked for, in which hour and how often."""

CHANNEL = "session_ledger"
"""Where PostgreSQL tells that the log has grown."""

SQLITE_TRIGGERS = (
    "CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END",
    "CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END",
    # Refuses what INSERT OR REPLACE would silently put in the place of a row, which fires no DELETE trigger.
    """CREATE TRIGGER events_next_only BEFORE INSERT ON events
       WHEN NOT EXISTS (SELECT 1 FROM head WHERE position = NEW.position - 1 AND recorded_at <= NEW.recorded_at)
         OR EXISTS (SELECT 1 FROM events WHERE stream = NEW.stream AND version = NEW.version)
       BEGIN SELECT RAISE(ABORT, 'events takes only the next position of a new version'); END""",
    """CREATE TRIGGER events_move_head AFTER INSERT ON events
       BEGIN UPDATE head SET position = NEW.position, recorded_at = NEW.recorded_at; END""",
    "CREATE TRIGGER head_no_delete BEFORE DELETE ON head BEGIN SELECT RAISE(ABORT, 'head is kept'); END",
    """CREATE TRIGGER head_one_row BEFORE INSERT ON head WHEN EXISTS (SELECT 1 FROM head)
       BEGIN SELECT RAISE(ABORT, 'head is one row'); END""",
    """CREATE TRIGGER head_says_the_last BEFORE UPDATE ON head
       WHEN (NEW.position <> OLD.position OR NEW.recorded_at <> OLD.recorded_at)
        AND (NEW.position, NEW.recorded_at) IS NOT
            (SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1)
       BEGIN SELECT RAISE(ABORT, 'head says what the last event says'); END""",
)

POSTGRESQL_TRIGGERS = (
    """CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'events is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$""",
    """CREATE TRIGGER events_no_change BEFORE DELETE OR UPDATE ON events
       FOR EACH ROW EXECUTE FUNCTION events_append_only()""",
    """CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
       FOR EACH STATEMENT EXECUTE FUNCTION events_append_only()""",
    # Each statement must go on where the log ended, without a gap inside, and takes the append lock if nobody has it.
    # One NOTIFY a batch: it takes a lock of the whole cluster at commit.
    f"""CREATE FUNCTION events_next_only() RETURNS trigger LANGUAGE plpgsql AS $$
       DECLARE ended record; added record; BEGIN
         SELECT count(*) AS rows, min(position) AS first, max(position) AS last, min(recorded_at) AS earliest,
                max(recorded_at) AS latest INTO added FROM new_events;
         IF added.rows = 0 THEN RETURN NULL; END IF;
         SELECT position, recorded_at INTO ended FROM head FOR UPDATE;
         IF added.first <> ended.position + 1 OR added.last <> ended.position + added.rows
             OR added.earliest < ended.recorded_at THEN
           RAISE EXCEPTION 'events takes only the next position' USING ERRCODE = 'integrity_constraint_violation';
         END IF;
         UPDATE head SET position = added.last, recorded_at = added.latest;
         PERFORM pg_notify('{CHANNEL}', '');
         RETURN NULL; END $$""",
    """CREATE TRIGGER events_next_only AFTER INSERT ON events REFERENCING NEW TABLE AS new_events
       FOR EACH STATEMENT EXECUTE FUNCTION events_next_only()""",
    """CREATE FUNCTION head_says_the_last() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN IF (NEW.position, NEW.recorded_at) <> (OLD.position, OLD.recorded_at)
          AND NOT EXISTS (SELECT 1 FROM events WHERE position = NEW.position AND recorded_at = NEW.recorded_at
                          AND position = (SELECT max(position) FROM events)) THEN
         RAISE EXCEPTION 'head says what the last event says' USING ERRCODE = 'integrity_constraint_violation';
       END IF; RETURN NEW; END $$""",
    "CREATE TRIGGER head_says_the_last BEFORE UPDATE ON head FOR EACH ROW EXECUTE FUNCTION head_says_the_last()",
    # Otherwise temporary tables of these names would be asked in the log's place.
    """DO $$ BEGIN
         EXECUTE format('ALTER FUNCTION events_next_only() SET search_path = %%I, pg_temp', current_schema());
         EXECUTE format('ALTER FUNCTION head_says_the_last() SET search_path = %%I, pg_temp', current_schema());
       END $$""",
)


def create_log(connection: Connection, app_role: str | None = None) -> None:
    """Create the log's tables and triggers unless they are there; `app_role` gets the right to read and append."""
    one_creator_at_a_time(connection)
    if inspect(connection).has_table("events"):
        _index_older_log(connection)
        return
    log.create_all(connection)
    connection.execute(head.insert().values(one=1, position=0, recorded_at=0))
    postgresql = connection.dialect.name == "postgresql"
    for statement in POSTGRESQL_TRIGGERS if postgresql else SQLITE_TRIGGERS:
        connection.exec_driver_sql(statement)
    if postgresql and app_role:
        role = connection.dialect.identifier_preparer.quote(app_role)
        connection.exec_driver_sql(f"GRANT SELECT, INSERT ON events TO {role}")
        connection.exec_driver_sql(f"GRANT SELECT, UPDATE ON head TO {role}")


def _index_older_log(connection: Connection) -> None:
    """A log from before the index gets it from whoever may make it; without it the same is found, but slowly."""
    if connection.dialect.name == "sqlite" or owns_log(connection):
        invalidations_index.create(connection, checkfirst=True)


def missing_indexes(connection: Connection) -> set[str]:
    """Of the log's, what `create_log` would have made, had it been the owner."""
    wanted = {str(index.name) for index in events.indexes}
    return wanted - {str(index["name"]) for index in inspect(connection).get_indexes("events")}


def owns_log(connection: Connection) -> bool:
    """Whether this role owns the log on PostgreSQL, itself or through a role that it is a member of."""
    owner = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'events'::regclass"
    return bool(connection.exec_driver_sql(owner).scalar_one())


def create_working(connection: Connection) -> None:
    """Create the other tables of the store unless they are there."""
    one_creator_at_a_time(connection)
    working.create_all(connection)


def one_creator_at_a_time(connection: Connection) -> None:
    """Two processes that start at once must not both create; on SQLite the write lock sees to it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('session-ledger: create tables'))")
