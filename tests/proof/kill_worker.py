"""A service under load that is meant to be killed. It says what was acknowledged, one line each, and only then:

`python -m tests.proof.kill_worker <url> <keys url> <master key file> <owner url>`. One line on stdin begins the load:
`<seed> <failpoint or -> <passes>`.
"""

import os
import random
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.events import ClientDetails, EndReason
from domain.ledger import Claim, Recorded, Request
from domain.session import Limits
from domain.user import SignIn
from store.failpoints import Failpoint, arm

USERS, IN_FLIGHT = 12, 24


def main(url: str, keys_url: str, master_key_file: str, owner_url: str) -> None:
    seed, failpoint, passes = sys.stdin.readline().split()
    stores = Stores(url, keys_url, Path(master_key_file), owner_url or None)
    service = Service(stores, Limits(touch_interval=0, max_sessions=5), new_uuid7)
    service.start()
    if failpoint != "-":
        arm(Failpoint(failpoint), int(passes))
    Load(service, random.Random(int(seed))).run()


class Load:
    """Random commands about a few old users and ever new ones, as fast as they are answered."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self._ledger = service.ledger
        self._pseudonym = service.keys.pseudonym
        self._chance = chance
        self._slots = threading.Semaphore(IN_FLIGHT)
        self._sessions: list[tuple[str, UUID]] = []

    def run(self) -> None:
        acts = [self.create, self.create, self.touch, self.touch, self.revoke, self.disable, self.enable, self.enable]
        while True:
            self._slots.acquire()
            self._chance.choice(acts)()

    def create(self) -> None:
        user_id, session_id = self._user(), uuid4()
        key = os.urandom(32)
        claim = Claim(key, b"body", lambda _: session_id.bytes) if self._chance.random() < 0.5 else None
        if claim:
            say("claiming", user_id, session_id, key.hex())
        client = ClientDetails("203.0.113.7", "canary") if self._chance.random() < 0.7 else None
        sign_in = SignIn(session_id, os.urandom(32), "Chrome on macOS", client)
        self._send("created", self._ledger.create_session(user_id, sign_in, _request(), claim), user_id, session_id)
        self._sessions.append((user_id, session_id))

    def touch(self) -> None:
        self._with_session("touched", lambda stream, id_: self._ledger.touch_session(stream, id_, _request()))

    def revoke(self) -> None:
        reason = EndReason.REVOKED_BY_USER
        self._with_session("revoked", lambda stream, id_: self._ledger.revoke_session(stream, id_, reason, _request()))

    def disable(self) -> None:
        user_id = self._user()
        self._send("disabled", self._ledger.disable_user(user_id, _request()), user_id, "-")

    def enable(self) -> None:
        user_id = self._user()
        self._send("enabled", self._ledger.enable_user(user_id, _request()), user_id, "-")

    def _user(self) -> str:
        return f"user-{self._chance.randrange(USERS)}" if self._chance.random() < 0.7 else f"new-{uuid4()}"

    def _with_session(self, what: str, act: Any) -> None:
        if not self._sessions:
            self.create()
            return
        user_id, session_id = self._chance.choice(self._sessions[-40:])
        self._send(what, act(self._pseudonym(user_id), session_id), user_id, session_id)

    def _send(self, what: str, future: "Future[Recorded[Any]]", *about: object) -> None:
        def answered(future: "Future[Recorded[Any]]") -> None:
            if future.exception() is None and future.result().result:
                say(what, *about, future.result().position)
            self._slots.release()

        future.add_done_callback(answered)


def say(*words: object) -> None:
    """One write, so that a line is told whole or not at all."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def _request() -> Request:
    return Request("key:load", new_uuid7())


if __name__ == "__main__":
    main(*sys.argv[1:])
