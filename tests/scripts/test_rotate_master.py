"""`./scripts/ledger keys rotate-master`, beside a service that runs."""

import fcntl
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from api.service import Service
from store.keys import KeyStore
from store.master_key import read_ring
from tests.scripts.conftest import Ledger
from tests.scripts.test_server import Server, bearer
from tests.store.given import Caller, result


def test_the_service_goes_on_during_and_after(beside: Ledger, service: Service, tmp_path: Path):
    caller = Caller(service)
    alice = result(caller.creates("alice"))
    [old] = read_ring(tmp_path / "master.key")
    ran = beside("keys", "rotate-master", "--json")
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"rewrapped": 2, "resumed": False})
    assert old not in read_ring(tmp_path / "master.key")
    assert result(caller.revokes(alice))
    assert result(caller.creates("bob"))
    again = KeyStore.existing(service.keys_database, tmp_path / "master.key")
    streams = [caller.stream("alice"), caller.stream("bob")]
    assert again.find(streams).keys() == set(streams)


def test_it_says_in_words_what_it_did(beside: Ledger, service: Service):
    ran = beside("keys", "rotate-master")
    assert ran.stdout == "1 keys were wrapped anew; the old master key opens nothing any more.\n"


def test_two_at_once_are_refused(ledger: Ledger, tmp_path: Path):
    ledger("keys", "create", "gateway", "--scope", "sessions:create")
    before = (tmp_path / "var" / "master.key").read_bytes()
    with (tmp_path / "var" / "keys.db.rotation").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = ledger("keys", "rotate-master")
    assert (ran.returncode, ran.stderr) == (1, "The master key is being rotated already.\n")
    assert (tmp_path / "var" / "master.key").read_bytes() == before


def test_another_master_key_is_refused(ledger: Ledger, tmp_path: Path):
    ledger("keys", "create", "gateway", "--scope", "sessions:create")
    file = tmp_path / "var" / "master.key"
    file.write_text("A" * 43 + "=\n")
    ran = ledger("keys", "rotate-master")
    assert ran.returncode == 3
    assert "is not the master key that these keys were wrapped with" in ran.stderr
    assert file.read_text() == "A" * 43 + "=\n"


def test_where_there_are_no_keys_none_are_made(ledger: Ledger, tmp_path: Path):
    ran = ledger("keys", "rotate-master")
    assert ran.returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_a_server_signs_people_in_all_the_time_and_every_answer_is_whole(ledger: Ledger, tmp_path: Path):
    """A server of its own process, whose users are new while the master key changes under it."""
    server = Server(tmp_path).await_start()
    try:
        with ThreadPoolExecutor(1) as pool:
            rotations = pool.submit(lambda: [ledger("keys", "rotate-master", apart=True).returncode for _ in range(3)])
            tokens = []
            while not rotations.done():
                tokens.append(server.sign_in(user_id=f"user-{len(tokens)}", ip_address="203.0.113.7"))
        assert rotations.result() == [0, 0, 0]
        shown = [server.http.get("/api/auth/session", headers=bearer(token)) for token in tokens]
        assert len(tokens) > 10
        assert {answer.json()["session"]["ip_address"] for answer in shown} == {"203.0.113.7"}
    finally:
        server.close()
