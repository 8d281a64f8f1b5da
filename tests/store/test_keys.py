"""Keys outlive the process, come once for each user, and are never made again silently."""

import os
import stat
from base64 import b64encode
from pathlib import Path
from uuid import RFC_4122, UUID, uuid4

import pytest
from sqlalchemy import update

from api.service import Service
from domain.events import ClientDetails
from store.database import Database
from store.keys import KeyErased, KeyStore, user_keys
from store.master_key import MasterKeyError
from tests.postgres import Database as Place
from tests.store.conftest import OpenKeys
from tests.store.given import Caller, another_writer, at_once, child, refusal, result, whole

MAKE_KEYS = """
import sys
from pathlib import Path
from uuid import UUID
from store.database import Database
from store.keys import KeyStore

database = Database(sys.argv[1])
with database.transaction() as connection:
    connection.exec_driver_sql("SELECT 1")
print("ready", flush=True)
sys.stdin.readline()
keys = KeyStore(database, Path(sys.argv[2]))
print(keys.pepper.hex(), *(keys.ensure([UUID(stream)])[UUID(stream)].hex() for stream in sys.argv[3:]))
"""


@pytest.fixture
def master_key_file(tmp_path: Path) -> Path:
    return tmp_path / "var" / "master.key"


def erase(keys: KeyStore, stream: UUID) -> None:
    with keys.database.transaction() as connection:
        assert connection.execute(update(user_keys).where(user_keys.c.stream == stream).values(wrapped=None)).rowcount


def rows(keys: KeyStore) -> list[tuple[UUID, bytes | None]]:
    with keys.database.reading() as connection:
        return [tuple(row) for row in connection.execute(user_keys.select())]


# -- a user's key


def test_a_user_has_one_key_for_good(keys: KeyStore, open_keys: OpenKeys):
    stream = uuid4()
    key = keys.ensure([stream])[stream]
    assert len(key) == 32
    assert keys.ensure([stream]) == keys.find([stream]) == open_keys().find([stream]) == {stream: key}


def test_each_user_has_a_key_of_his_own(keys: KeyStore):
    streams = [uuid4() for _ in range(20)]
    made = keys.ensure([*streams, *streams])
    assert made.keys() == set(streams)
    assert len(set(made.values())) == 20


def test_nobody_has_a_key_before_one_is_needed(keys: KeyStore):
    assert keys.find([uuid4()]) == {}
    assert keys.find([]) == {}
    assert rows(keys) == []


def test_no_key_lies_open_in_the_database(keys: KeyStore):
    stream = uuid4()
    key = keys.ensure([stream])[stream]
    [(_, wrapped)] = rows(keys)
    assert key not in wrapped


def test_a_wrapped_key_of_another_user_does_not_open(keys: KeyStore):
    first, second = uuid4(), uuid4()
    keys.ensure([first])
    [(_, wrapped)] = rows(keys)
    with pytest.raises(Exception, match="does not open here"):
        keys.unwrap([(second, wrapped)])


def test_threads_that_need_a_key_at_once_get_the_same(open_keys: OpenKeys):
    streams = [uuid4() for _ in range(10)]
    stores = [open_keys() for _ in range(4)]
    made = at_once(*(lambda keys=keys: [keys.ensure([stream])[stream] for stream in streams] for keys in stores))
    assert made == [made[0]] * 4


def test_processes_that_start_at_once_share_pepper_and_keys(database: Place, master_key_file: Path):
    streams = [uuid4() for _ in range(5)]
    arguments = (MAKE_KEYS, database.keys_url, master_key_file, *streams)
    with child(*arguments) as first, child(*arguments) as second:
        for process in (first, second):
            assert process.stdout.readline() == "ready\n"
        for process in (first, second):
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate()[0].split() for process in (first, second)]
    assert said[0] == said[1]
    assert len(said[0]) == 6


def test_a_key_is_committed_before_what_it_seals(
    service: Service, open_keys: OpenKeys, database: Place, tmp_path: Path
):
    caller, seen = Caller(service), []
    elsewhere = KeyStore(Database(database.keys_url), tmp_path / "master.key")

    class Witness:
        name = "witness"

        def apply(self, connection, entries) -> None:
            seen.append(elsewhere.find([entry.fact.originator_id for entry in entries]))

    another_writer(service, Witness())
    result(caller.creates("alice"))
    assert seen == [{caller.stream("alice"): service.keys.find([caller.stream("alice")])[caller.stream("alice")]}]
    elsewhere.database.close()


# -- erased


def test_an_erased_users_key_is_not_made_again(keys: KeyStore):
    stream, other = uuid4(), uuid4()
    keys.ensure([stream])
    erase(keys, stream)
    for wanted in ([stream], [stream, other], [other, stream]):
        with pytest.raises(KeyErased):
            keys.ensure(wanted)
    assert (stream, None) in rows(keys)
    assert keys.find([stream]) == {}


def test_nothing_is_recorded_that_an_erased_users_key_would_seal(service: Service, caller: Caller):
    result(caller.creates("alice"))
    erase(service.keys, caller.stream("alice"))
    before = whole(service.database)
    futures = [caller.creates(user_id, client=ClientDetails("192.0.2.1", None)) for user_id in ("alice", "bob")]
    assert isinstance(refusal(futures[0]), KeyErased)
    result(futures[1])
    assert {row.stream for row in whole(service.database)[0][len(before[0]) :]} == {caller.stream("bob")}
    assert dict(rows(service.keys))[caller.stream("alice")] is None


# -- pseudonyms


def test_a_pseudonym_is_the_same_after_a_restart(keys: KeyStore, open_keys: OpenKeys):
    assert keys.pseudonym("alice") == keys.pseudonym("alice") == open_keys().pseudonym("alice")


@pytest.mark.parametrize("user_id", ["alice", "", "a" * 10_000, "ålice", "\x00"])
def test_a_pseudonym_is_a_version_8_uuid(keys: KeyStore, user_id: str):
    pseudonym = keys.pseudonym(user_id)
    assert (pseudonym.version, pseudonym.variant) == (8, RFC_4122)


def test_pseudonyms_differ_between_users(keys: KeyStore):
    users = ["alice", "Alice", "alice ", "bob", "", "å", "a\u030a"]
    assert len({keys.pseudonym(user) for user in users}) == len(users)


def test_pseudonyms_differ_between_deployments(tmp_path: Path):
    deployments = [KeyStore(Database(f"sqlite:///{tmp_path}/{n}/keys.db"), tmp_path / f"{n}/master.key") for n in "ab"]
    assert deployments[0].pseudonym("alice") != deployments[1].pseudonym("alice")
    for deployment in deployments:
        deployment.database.close()


# -- the master key's file


def test_the_master_key_is_made_once_for_its_owner_only(keys: KeyStore, open_keys: OpenKeys, master_key_file: Path):
    made = master_key_file.read_bytes()
    assert stat.S_IMODE(master_key_file.stat().st_mode) == 0o600
    open_keys()
    assert master_key_file.read_bytes() == made
    assert [path.name for path in master_key_file.parent.iterdir()] == [master_key_file.name]


def test_a_master_key_that_is_there_is_used(open_keys: OpenKeys, master_key_file: Path):
    master_key_file.parent.mkdir()
    brought = b64encode(bytes(range(32)))
    master_key_file.write_bytes(brought)
    open_keys()
    assert master_key_file.read_bytes() == brought


def test_a_missing_master_key_is_not_replaced_while_keys_exist(
    keys: KeyStore, open_keys: OpenKeys, master_key_file: Path
):
    master_key_file.unlink()
    with pytest.raises(MasterKeyError, match="is missing, and keys wrapped with it exist"):
        open_keys()
    assert list(master_key_file.parent.iterdir()) == []


def test_another_master_key_is_refused(keys: KeyStore, open_keys: OpenKeys, master_key_file: Path):
    master_key_file.write_bytes(b64encode(os.urandom(32)))
    with pytest.raises(MasterKeyError, match="is not the master key that these keys were wrapped with"):
        open_keys()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds 0 bytes"),
        (b64encode(bytes(31)), "holds 31 bytes"),
        (b64encode(bytes(33)), "holds 33 bytes"),
        (b"not base64!", "cannot be read"),
        (b64encode(bytes(32))[:-1], "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_damaged_master_key_is_refused_and_kept(
    open_keys: OpenKeys, master_key_file: Path, content: bytes, complaint: str
):
    master_key_file.parent.mkdir()
    master_key_file.write_bytes(content)
    with pytest.raises(MasterKeyError, match=complaint):
        open_keys()
    assert master_key_file.read_bytes() == content


def test_a_directory_in_the_place_of_the_master_key_is_refused(open_keys: OpenKeys, master_key_file: Path):
    master_key_file.mkdir(parents=True)
    with pytest.raises(MasterKeyError, match="cannot be read"):
        open_keys()


def test_a_place_where_no_master_key_can_be_made_is_refused(open_keys: OpenKeys, master_key_file: Path):
    master_key_file.parent.write_text("a file where a directory should be")
    with pytest.raises(MasterKeyError, match="cannot be written"):
        open_keys()
