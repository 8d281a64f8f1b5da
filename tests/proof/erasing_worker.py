"""Signs somebody in, then erases him, and is killed at a failpoint on the way:

`python -m tests.proof.erasing_worker <url> <keys url> <master key file> <owner url> <by> <failpoint>`, where `by` says
who destroys the key: the `call`, or the `policy`. It prints the wrapped key before.
"""

import sys
import time
from pathlib import Path
from uuid import uuid4

from api.ids import new_uuid7
from api.service import Service, Stores
from domain.events import ClientDetails
from domain.ledger import Claim, Request
from domain.session import Limits
from domain.user import SignIn
from store.failpoints import Failpoint, arm
from store.keys import user_keys

USER_ID, ADDRESS = "canary.person@example.com", "198.51.100.213"
BY_THE_CALL, BY_THE_POLICY = "call", "policy"
ERASING = (
    Failpoint.AFTER_TOMBSTONE,
    Failpoint.AFTER_KEY_DESTROYED,
    Failpoint.AFTER_PURGE,
    Failpoint.AFTER_PURGE_DESTROYED,
)
PATIENCE_S = 20.0


def main(url: str, keys_url: str, master_key_file: str, owner_url: str, by: str, failpoint: str) -> None:
    service = Service(Stores(url, keys_url, Path(master_key_file), owner_url or None), Limits(), new_uuid7)
    sign_in(service)
    print(wrapped_key(service).hex(), flush=True)
    if by == BY_THE_POLICY:
        service.start()
    arm(Failpoint(failpoint))
    service.ledger.erase_user(USER_ID, Request("operator", uuid4())).result(PATIENCE_S)
    if by == BY_THE_CALL:
        service.erasure.carry_out(service.keys.pseudonym(USER_ID))
    time.sleep(PATIENCE_S)
    raise SystemExit("it was to die")


def sign_in(service: Service) -> None:
    client = ClientDetails(ADDRESS, "Canary/1.0")
    claim = Claim(b"k" * 32, b"body", lambda session: session.session_id.bytes)
    said = SignIn(uuid4(), b"t" * 32, "Chrome on macOS", client)
    service.ledger.create_session(USER_ID, said, Request("key:test", uuid4()), claim).result(PATIENCE_S)


def wrapped_key(service: Service) -> bytes:
    with service.keys_database.reading() as connection:
        return bytes(connection.execute(user_keys.select()).one().wrapped)


if __name__ == "__main__":
    main(*sys.argv[1:])
