"""Liveness and readiness."""

from domain.policies import RevokeSessionsOnUserDisabled
from projections.parking import Parked, park
from store.clock import MAX_DRIFT_S
from tests.api.client import ADMIN, Api, told, until


def test_a_process_that_answers_is_alive(api: Api):
    answer = api.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readiness_tells_how_far_each_policy_has_come(api: Api):
    api.sign_in()
    until(lambda: api.get("/readyz").json()["policies"][0]["lag_events"] == 0)
    answer = api.get("/readyz")
    policy, *others = answer.json().pop("policies")
    assert [other["name"] for other in others] == [
        "revoke-sessions-on-revocation-requested",
        "end-sessions-on-sessions-invalidated",
        "destroy-key-on-user-erased",
    ]
    assert answer.status_code == 200
    assert answer.json().keys() == {"status", "is_leader", "clock_drift_seconds", "policies", "projections", "sealing"}
    assert (answer.json()["status"], answer.json()["is_leader"]) == ("ready", True)
    assert policy.pop("events_per_second") > 0
    assert policy == {
        "name": RevokeSessionsOnUserDisabled.name,
        "position": 2,
        "lag_events": 0,
        "lag_seconds": 0.0,
        "parked": None,
    }


def test_readiness_tells_how_far_the_audit_read_model_has_come(api: Api):
    api.sign_in()
    until(lambda: api.get("/readyz").json()["projections"][0]["position"] == 2)
    [audit] = api.get("/readyz").json()["projections"]
    assert audit.pop("events_per_second") > 0
    assert audit == {"name": "audit.1", "position": 2, "lag_events": 0, "lag_seconds": 0.0, "parked": None}


def test_a_parked_policy_degrades_readiness_but_requests_are_served(api: Api):
    until(lambda: api.service.follower.is_leading)
    with api.service.database.transaction() as connection:
        park(connection, Parked(RevokeSessionsOnUserDisabled.name, 0, "it failed", 0))
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["policies"][0]["parked"] == "it failed"
    assert api.is_active(api.sign_in().bearer)


def test_readiness_tells_how_far_the_log_is_sealed(api: Api):
    api.sign_in()
    assert api.get("/readyz").json()["sealing"] == {"size": 0, "unsealed_events": 2, "refused": None}
    api.service.sealer.seal()
    assert api.get("/readyz").json()["sealing"] == {"size": 2, "unsealed_events": 0, "refused": None}


def test_a_log_that_is_not_signed_any_more_degrades_readiness(api: Api):
    api.service.sealer._refused = "an older copy"
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["sealing"]["refused"] == "an older copy"


def test_a_clock_that_cannot_be_trusted_is_not_ready(api: Api):
    for drift in (MAX_DRIFT_S + 1, -MAX_DRIFT_S - 1):
        api.clock.drift = drift
        assert told(api.get("/readyz")) == (503, "clock-drift")
    api.clock.drift = MAX_DRIFT_S
    assert api.get("/readyz").status_code == 200


def test_neither_asks_for_a_credential_nor_minds_one(api: Api):
    for headers in ({}, ADMIN, {"Authorization": "Bearer nonsense"}, {"Cookie": "__Host-sid=nonsense"}):
        assert [api.get(path, headers).status_code for path in ("/healthz", "/readyz")] == [200, 200]
