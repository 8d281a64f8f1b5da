"""API keys as facts, and as the read model has them; those of an older version are adopted (D10)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from api.service import Service
from domain.errors import OutcomeUnknown
from domain.ledger import Request
from projections.api_keys import ApiKeysProjection, list_keys
from projections.rebuild import Comparison, rebuild
from store.api_keys import Scope, create_key, digest, revoke_key
from store.clock import to_micros
from store.recorder import tracked
from store.schema import tracking
from tests.clock import NOON, ManualClock
from tests.store.given import facts, until

OpenService = Callable[..., Service]
NOON_US = to_micros(NOON)
_live = ApiKeysProjection()


def operator() -> Request:
    return Request("operator", uuid4())


def rebuilt(service: Service) -> Comparison:
    """The table against the fold of the log, which then takes its place."""
    return rebuild(service.database, ApiKeysProjection)


def written_by_an_older_version(service: Service, *keys: dict[str, Any]) -> None:
    """Rows without facts, and no position: as a log is found that is older than this read model."""
    with service.database.transaction() as connection:
        connection.execute(_live.api_keys.insert(), list(keys))
        connection.execute(tracking.delete().where(tracking.c.name == ApiKeysProjection.name))


def old_key(key_id: str, revoked_at: int | None = None) -> dict[str, Any]:
    scopes = "audit:read sessions:create"
    told = {"key_id": key_id, "digest": digest(f"slk_{key_id}"), "name": f"old {key_id}", "scopes": scopes}
    return {**told, "created_at": NOON_US - 1_000_000, "revoked_at": revoked_at}


# -- facts


def test_making_and_revoking_a_key_are_facts_by_the_operator(service: Service):
    key, secret = create_key(service.ledger, "gateway", [Scope.USERS_ADMIN, Scope.AUDIT_READ], operator())
    assert revoke_key(service.ledger, key.key_id, operator())
    made, revoked = facts(service)
    assert (made.TOPIC, revoked.TOPIC, made.actor, revoked.actor) == (
        *("ApiKeyCreated", "ApiKeyRevoked"),
        *("operator", "operator"),
    )
    assert (made.key_id, made.name, made.scopes) == (key.key_id, "gateway", ("audit:read", "users:admin"))  # type: ignore[attr-defined]
    assert made.digest == digest(secret)  # type: ignore[attr-defined]


def test_a_key_is_listed_from_its_commit_on_as_it_was_shown(service: Service):
    key, _ = create_key(service.ledger, "gateway", [Scope.USERS_ADMIN], operator())
    assert list_keys(service.database) == [key]


def test_a_key_of_which_the_store_says_nothing_is_named_so_that_it_can_be_revoked(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    with service.recorder.appending(), monkeypatch.context() as patched, pytest.raises(OutcomeUnknown) as unknown:
        patched.setattr("store.outcome.PATIENCE_S", 0.2)
        create_key(service.ledger, "gateway", [Scope.USERS_ADMIN], operator())
    until(lambda: list_keys(service.database))
    [key] = list_keys(service.database)
    assert key.key_id in str(unknown.value)
    assert revoke_key(service.ledger, key.key_id, operator())


def test_revoking_what_is_unknown_or_revoked_records_nothing(service: Service, clock: ManualClock):
    key, _ = create_key(service.ledger, "gateway", [Scope.USERS_ADMIN], operator())
    clock.advance(5)
    assert revoke_key(service.ledger, key.key_id, operator())
    clock.advance(5)
    assert not revoke_key(service.ledger, key.key_id, operator())
    assert not revoke_key(service.ledger, "unknown", operator())
    assert [shown.revoked_at for shown in list_keys(service.database)] == [NOON_US + 5_000_000]
    assert len(facts(service)) == 2


def test_the_table_equals_the_fold_of_the_log(service: Service):
    keys = [create_key(service.ledger, f"key {n}", [*Scope][: n % 5], operator())[0] for n in range(10)]
    for key in keys[::3]:
        revoke_key(service.ledger, key.key_id, operator())
    assert rebuilt(service).identical


# -- keys from before they were facts


def test_keys_of_an_older_version_become_facts_as_of_when_they_were_made(open_service: OpenService):
    written_by_an_older_version(open_service(), old_key("aaa"), old_key("bbb", revoked_at=NOON_US - 500_000))
    service = open_service()
    assert [(fact.TOPIC, fact.actor, to_micros(fact.timestamp)) for fact in facts(service)] == [
        ("ApiKeyCreated", "operator", NOON_US - 1_000_000),
        ("ApiKeyCreated", "operator", NOON_US - 1_000_000),
        ("ApiKeyRevoked", "operator", NOON_US - 500_000),
    ]
    assert [(key.key_id, key.revoked_at) for key in list_keys(service.database)] == [
        ("aaa", None),
        ("bbb", NOON_US - 500_000),
    ]
    assert rebuilt(service).identical


def test_a_key_that_was_adopted_can_be_revoked_and_one_that_was_revoked_stays_so(open_service: OpenService):
    written_by_an_older_version(open_service(), old_key("aaa"), old_key("bbb", revoked_at=NOON_US - 500_000))
    service = open_service()
    assert revoke_key(service.ledger, "aaa", operator())
    assert not revoke_key(service.ledger, "bbb", operator())
    assert rebuilt(service).identical


def test_keys_are_adopted_once(open_service: OpenService):
    written_by_an_older_version(open_service(), old_key("aaa"))
    for _ in range(3):
        assert len(facts(open_service())) == 1


def test_of_two_that_start_at_once_one_adopts(open_service: OpenService):
    written_by_an_older_version(open_service(), *(old_key(f"key-{n}") for n in range(20)))
    with ThreadPoolExecutor(4) as pool:
        services = [opened.result() for opened in [pool.submit(open_service) for _ in range(4)]]
    assert len(facts(services[0])) == 20
    assert rebuilt(services[0]).identical


def test_a_row_without_a_fact_is_not_made_true_later_and_a_rebuild_ends_it(open_service: OpenService):
    """Whoever can write the table must not have it signed by the log at the next start."""
    service = open_service()
    with service.database.transaction() as connection:
        connection.execute(_live.api_keys.insert(), [old_key("forged")])
    assert facts(open_service()) == []
    assert rebuilt(service).differing == 1
    assert list_keys(service.database) == []


def test_a_log_with_a_history_is_not_read_again_for_the_keys(open_service: OpenService):
    service = open_service()
    service.ledger.disable_user("alice", operator()).result()
    written_by_an_older_version(service, old_key("aaa"))
    service = open_service()
    with service.database.reading() as connection:
        assert tracked(connection, ApiKeysProjection.name) == len(facts(service)) == 3


def test_another_process_is_caught_up_with(open_service: OpenService):
    one, other = open_service(), open_service()
    key, _ = create_key(one.ledger, "gateway", [Scope.USERS_ADMIN], operator())
    with one.database.transaction() as connection:
        connection.execute(_live.api_keys.delete())
        connection.execute(update(tracking).where(tracking.c.name == ApiKeysProjection.name).values(position=0))
    other.ledger.disable_user("alice", operator()).result()
    assert list_keys(one.database) == [key]
