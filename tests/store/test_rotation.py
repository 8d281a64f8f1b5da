"""The master key is rotated while keys are read, made and destroyed, and at any point it may be killed."""

import signal
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from domain.errors import StoreUnavailable
from store.failpoints import Failpoint
from store.keys import KeyStore, secrets, user_keys
from store.master_key import MasterKeyError, read_ring, replace
from store.rotation import PAGE, rotate_master
from store.sealing import SealBroken, unseal
from tests.postgres import Database as Place
from tests.store.conftest import OpenKeys
from tests.store.given import child, until

MANY = 2 * PAGE + 3

ROTATE = """
import sys
from pathlib import Path
from store.database import Database
from store.failpoints import Failpoint, arm
from store.keys import KeyStore
from store.rotation import rotate_master

keys = KeyStore.existing(Database(sys.argv[1]), Path(sys.argv[2]))
if sys.argv[3:]:
    arm(Failpoint(sys.argv[3]), int(sys.argv[4]))
print(rotate_master(keys).keys)
"""

MAKE_KEYS = """
import sys
from pathlib import Path
from uuid import uuid4
from store.database import Database
from store.keys import KeyStore

keys = KeyStore.existing(Database(sys.argv[1]), Path(sys.argv[2]))
made = {}
print("ready", flush=True)
while True:
    new = [uuid4() for _ in range(3)]
    made |= keys.ensure(new)
    some = list(made)[-50:]
    assert keys.find(some) == {stream: made[stream] for stream in some}
    for stream in new:
        print(stream.hex, made[stream].hex(), flush=True)
"""


@pytest.fixture
def master_key_file(tmp_path: Path) -> Path:
    return tmp_path / "master.key"


def made(keys: KeyStore, count: int = MANY) -> dict[UUID, bytes]:
    return dict(keys.ensure([uuid4() for _ in range(count)]))


def wrapped(keys: KeyStore) -> list[tuple[bytes, bytes]]:
    """Every key that lives, as it is wrapped, and what that is bound to."""
    with keys.database.reading() as connection:
        users = connection.execute(user_keys.select().where(user_keys.c.wrapped.is_not(None))).all()
        others = connection.execute(secrets.select()).all()
    return [(row.wrapped, row.stream.bytes) for row in users] + [(row.wrapped, row.name.encode()) for row in others]


def opened_by(master: bytes, keys: KeyStore) -> int:
    """How many of the keys this master key opens."""

    def opens(sealed: bytes, bound_to: bytes) -> bool:
        try:
            return bool(unseal(master, sealed, bound_to))
        except SealBroken:
            return False

    return sum(opens(*row) for row in wrapped(keys))


def test_after_it_the_new_key_opens_everything_and_the_old_one_nothing(keys: KeyStore, master_key_file: Path):
    before, [old], pepper = made(keys), read_ring(master_key_file), keys.pepper
    rotated = rotate_master(keys)
    [new] = read_ring(master_key_file)
    assert (rotated.keys, rotated.resumed) == (MANY + 1, False)
    assert (opened_by(old, keys), opened_by(new, keys)) == (0, MANY + 1)
    assert KeyStore.existing(keys.database, master_key_file).pepper == pepper
    assert keys.find(list(before)) == before


def test_a_copy_of_the_old_file_is_refused(keys: KeyStore, master_key_file: Path, tmp_path: Path):
    copy = tmp_path / "copy.key"
    copy.write_bytes(master_key_file.read_bytes())
    rotate_master(keys)
    with pytest.raises(MasterKeyError, match="not the master key"):
        KeyStore.existing(keys.database, copy)


def test_who_ran_before_reads_and_makes_keys_during_and_after(open_keys: OpenKeys, master_key_file: Path):
    keys, bystander = open_keys(), open_keys()
    before = made(bystander)
    during: dict[UUID, bytes] = {}

    def look(done: int, total: int) -> None:
        assert bystander.find(list(before)[:100]) == dict(list(before.items())[:100])
        during.update(made(bystander, 5))

    rotate_master(keys, look)
    [new] = read_ring(master_key_file)
    after = made(bystander, 5)
    assert opened_by(new, keys) == len(before) + len(during) + len(after) + 1
    assert len(during) > 10
    for who in (keys, bystander, open_keys()):
        assert who.find([*before, *during, *after]) == before | during | after


def test_who_slept_through_several_rotations_still_reads(open_keys: OpenKeys):
    keys, sleeper = open_keys(), open_keys()
    before = made(keys, 5)
    for _ in range(3):
        rotate_master(keys)
    assert sleeper.find(list(before)) == before
    assert sleeper.ensure([uuid4()])


def test_a_key_that_was_read_before_and_is_opened_after_it_opens(open_keys: OpenKeys):
    keys, reader = open_keys(), open_keys()
    before = made(keys, 5)
    with reader.database.reading() as connection:
        rows = [tuple(row) for row in connection.execute(user_keys.select())]
    rotate_master(keys)
    reader.ensure([uuid4()])
    assert reader.unwrap(rows) == before


def test_a_tombstone_stays_one_also_when_it_is_put_meanwhile(open_keys: OpenKeys):
    keys, other = open_keys(), open_keys()
    before = made(keys)
    gone = [*list(before)[:3]]
    other.erase(gone[0])
    calls = iter(gone[1:])

    def erase_another(done: int, total: int) -> None:
        if (stream := next(calls, None)) is not None:
            other.erase(stream)

    rotate_master(keys, erase_another)
    assert keys.find(list(before)).keys() == before.keys() - set(gone)
    assert keys.without_tombstone(gone) == []


def test_who_read_a_row_cannot_bring_back_what_is_destroyed_before_it_writes(
    open_keys: OpenKeys, monkeypatch: pytest.MonkeyPatch
):
    keys, other = open_keys(), open_keys()
    [stream] = made(keys, 1)
    opens = unseal

    def destroyed_after_it_was_read(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
        if bound_to == stream.bytes:
            other.erase(stream)
        return opens(key, sealed, bound_to)

    monkeypatch.setattr("store.rotation.unseal", destroyed_after_it_was_read)
    rotate_master(keys)
    assert keys.find([stream]) == {}
    assert keys.without_tombstone([stream]) == []


# -- the file


def test_the_file_belongs_to_whom_it_belonged_and_no_draft_is_left(keys: KeyStore, master_key_file: Path):
    master_key_file.chmod(0o640)
    master_key_file.with_name(".master.key.left").write_bytes(b"a draft of a run that was killed")
    rotate_master(keys)
    assert master_key_file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in master_key_file.parent.iterdir() if "master" in path.name] == ["master.key"]


def test_a_link_stays_a_link(keys: KeyStore, master_key_file: Path, tmp_path: Path):
    real = tmp_path / "mounted" / "key"
    real.parent.mkdir()
    master_key_file.rename(real)
    master_key_file.symlink_to(real)
    rotate_master(keys)
    assert master_key_file.is_symlink()
    assert len(read_ring(real)) == 1


def test_a_file_that_is_not_that_of_the_keys_is_refused_and_left_alone(keys: KeyStore, master_key_file: Path):
    made(keys, 3)
    foreign = b64encode(bytes(32)) + b"\n"
    master_key_file.write_bytes(foreign)
    before = wrapped(keys)
    with pytest.raises(MasterKeyError, match="not the master key"):
        rotate_master(keys)
    assert master_key_file.read_bytes() == foreign
    assert wrapped(keys) == before


def test_a_foreign_file_put_there_while_the_service_runs_wraps_nothing(keys: KeyStore, master_key_file: Path):
    known = made(keys, 3)
    master_key_file.write_bytes(b64encode(bytes(32)) + b"\n")
    with pytest.raises(StoreUnavailable, match="not the master key"):
        keys.ensure([uuid4()])
    assert keys.find(list(known)) == known
    assert len(wrapped(keys)) == 4


def test_a_key_that_opens_with_neither_stops_it_and_both_master_keys_stay(keys: KeyStore, master_key_file: Path):
    [stream] = made(keys, 1)
    with keys.database.transaction() as connection:
        connection.execute(user_keys.update().values(wrapped=bytes(60)))
    [old] = read_ring(master_key_file)
    with pytest.raises(MasterKeyError, match=f"The key {stream} opens with no key"):
        rotate_master(keys)
    assert read_ring(master_key_file)[1:] == (old,)


def test_what_another_rotation_has_put_into_the_file_meanwhile_is_not_taken_out_of_it(
    keys: KeyStore, master_key_file: Path
):
    """As on PostgreSQL where the connection that held the lead was cut, and somebody else took it."""
    made(keys, 3)
    [old] = read_ring(master_key_file)

    def another_one_begins(done: int, total: int) -> None:
        others = (bytes(32), *read_ring(master_key_file)) if len(read_ring(master_key_file)) == 2 else None
        if others:
            replace(master_key_file, others)

    with pytest.raises(MasterKeyError, match="was changed by somebody else"):
        rotate_master(keys, another_one_begins)
    ring = read_ring(master_key_file)
    assert (ring[0], ring[2]) == (bytes(32), old)


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b64encode(bytes(32)) + b"\nshort\n", b"\xff" * 44])
def test_a_file_that_is_no_ring_is_refused(keys: KeyStore, master_key_file: Path, content: bytes):
    master_key_file.write_bytes(content)
    with pytest.raises(MasterKeyError, match=r"master\.key"):
        rotate_master(keys)
    assert master_key_file.read_bytes() == content


def test_a_file_of_an_older_version_is_a_ring_of_one(keys: KeyStore, master_key_file: Path):
    assert read_ring(master_key_file) == (b64decode(master_key_file.read_text().strip()),)


# -- killed, and with others who make keys meanwhile


POINTS = [
    (Failpoint.AFTER_NEW_MASTER, 0),
    *((Failpoint.AFTER_REWRAP, passes) for passes in (0, 1, 2, 3)),
    (Failpoint.BEFORE_OLD_MASTER_LEAVES, 0),
]


@pytest.mark.parametrize(("point", "passes"), POINTS, ids=[f"{point}-{passes}" for point, passes in POINTS])
def test_killed_at_any_point_everything_opens_and_the_next_run_ends_it(
    open_keys: OpenKeys, database: Place, master_key_file: Path, point: Failpoint, passes: int
):
    keys = open_keys()
    before, [old] = made(keys), read_ring(master_key_file)
    with child(ROTATE, database.keys_url, master_key_file, point, passes) as process:
        assert process.wait(30) == -signal.SIGKILL
    assert len(read_ring(master_key_file)) == 2
    between = made(keys, 3)
    assert open_keys().find(list(before)) == keys.find(list(before)) == before
    assert rotate_master(open_keys()).resumed
    [new] = read_ring(master_key_file)
    assert (opened_by(old, keys), opened_by(new, keys)) == (0, MANY + 3 + 1)
    assert keys.find([*before, *between]) == before | between


def test_another_process_makes_keys_all_the_time_and_none_is_left_behind(
    open_keys: OpenKeys, database: Place, master_key_file: Path
):
    keys = open_keys()
    made(keys)
    olds = []
    with child(MAKE_KEYS, database.keys_url, master_key_file) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        for _ in range(5):
            olds += read_ring(master_key_file)
            rotate_master(keys)
        process.terminate()
        said = [line.split() for line in process.communicate()[0].splitlines()]
    others = {UUID(line[0]): bytes.fromhex(line[1]) for line in said if len(line) == 2 and len(line[1]) == 64}
    assert len(others) > 10
    assert keys.find(list(others)) == others
    [new] = read_ring(master_key_file)
    assert opened_by(new, keys) == len(wrapped(keys)) >= MANY + len(others) + 1
    assert [opened_by(old, keys) for old in olds] == [0] * 5


def test_who_looked_at_the_file_before_is_waited_for(open_keys: OpenKeys, database: Place, master_key_file: Path):
    """A key may be wrapped with the old master key, and not yet be committed, when the file changes."""
    keys, slow = open_keys(), open_keys()
    made(keys, 3)
    stream = uuid4()
    with slow._wrapping() as connection:
        late = slow.master.wrap(bytes(32), stream.bytes)
        with child(ROTATE, database.keys_url, master_key_file) as rotation:
            until(lambda: len(read_ring(master_key_file)) == 2)
            with pytest.raises(subprocess.TimeoutExpired):
                rotation.wait(1)
            connection.execute(user_keys.insert().values(stream=stream, wrapped=late))
            connection.commit()
            assert rotation.wait(30) == 0
    assert keys.find([stream]) == {stream: bytes(32)}
    assert opened_by(read_ring(master_key_file)[0], keys) == 5
