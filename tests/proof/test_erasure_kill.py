"""Killed with SIGKILL after each step of an erasure: whoever comes next finishes it."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select

from api.service import Service, Stores
from store.failpoints import Failpoint
from store.keys import user_keys
from store.schema import idempotency, identities
from tests.conftest import OpenService
from tests.postgres import Database
from tests.proof.erasing_worker import BY_THE_CALL, BY_THE_POLICY, ERASING, USER_ID
from tests.store.given import ROOT, assert_consistent, topics, until

MOMENTS = [
    *((BY_THE_CALL, failpoint) for failpoint in (Failpoint.AFTER_COMMIT, *ERASING)),
    *((BY_THE_POLICY, failpoint) for failpoint in ERASING),
]


def killed(stores: Stores, by: str, failpoint: Failpoint) -> bytes:
    """The wrapped key of him whom a process was erasing when it died."""
    where = (stores.url, stores.keys_url, str(stores.master_key_file), stores.owner_url or "")
    worker = [sys.executable, "-m", "tests.proof.erasing_worker", *where, by, failpoint]
    ran = subprocess.run(worker, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == -9, ran.stderr
    return bytes.fromhex(ran.stdout)


@pytest.mark.parametrize(("by", "failpoint"), MOMENTS, ids=[f"{by} {failpoint}" for by, failpoint in MOMENTS])
def test_an_erasure_that_was_killed_is_finished_by_the_next_process(
    stores: Stores, open_service: OpenService, database: Database, tmp_path: Path, by: str, failpoint: Failpoint
):
    wrapped = killed(stores, by, failpoint)
    service = open_service()
    service.start()
    until(lambda: all(place.lag_events == 0 for place in service.follower.progress()))
    assert nothing_is_left(service)
    if database.kind == "sqlite":
        files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert [trace in files for trace in (USER_ID.encode(), wrapped)] == [False, False]
    assert topics(service, USER_ID) == ["UserEnrolled", "SessionCreated", "UserErased", "SessionRevoked"]
    assert_consistent(service)


def nothing_is_left(service: Service) -> bool:
    with service.keys_database.reading() as connection:
        keys = connection.execute(select(user_keys)).all()
    with service.database.reading() as connection:
        rows = [connection.execute(select(func.count()).select_from(it)).scalar() for it in (identities, idempotency)]
    return (keys, rows) == ([(service.keys.pseudonym(USER_ID), None)], [0, 0])
