"""What Prometheus is told: names, units and labels that it can rely on, and nothing about people (OBS-05, OBS-06)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from api.durations import BOUNDS_S
from domain.policies import RevokeSessionsOnUserDisabled
from projections.parking import Parked, park
from tests.api.client import ADMIN, Api, bearer, settled, until
from tests.api.conftest import OpenApi

LABELS = {
    "http_server_request_duration_seconds": {
        *("http_request_method", "url_scheme", "http_route", "http_response_status_code", "error_type"),
    },
    "ledger_events_appended_total": {"topic"},
    "ledger_commands_refused_total": {"reason"},
    "ledger_follower_position": {"follower"},
    "ledger_follower_lag_events": {"follower"},
    "ledger_follower_lag_seconds": {"follower"},
    "ledger_follower_parked": {"follower"},
}
"""Every label that there is, by the metric."""

SECONDS = "http_server_request_duration_seconds"
one_database = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def samples(api: Api) -> Iterator[Sample]:
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    for family in text_string_to_metric_families(answer.text):
        yield from family.samples


def value(api: Api, name: str, **labels: str) -> float | None:
    return next((s.value for s in samples(api) if s.name == name and labels.items() <= s.labels.items()), None)


def requests(api: Api) -> dict[tuple[str, str, str], float]:
    """How many of each kind."""
    return {
        (labels["http_request_method"], labels["http_route"], labels["http_response_status_code"]): count
        for name, labels, count, *_ in samples(api)
        if name == f"{SECONDS}_count"
    }


# -- requests


def test_obs_05_each_request_is_counted_by_method_template_and_status(api: Api):
    alice = api.sign_in()
    api.get("/api/auth/session", alice.bearer)
    api.get("/api/auth/session", bearer("A" * 43))
    api.delete(f"/api/sessions/{alice.id}", alice.bearer)
    api.get("/api/users/alice/sessions", ADMIN)
    assert requests(api) == {
        ("POST", "/api/sessions", "201"): 1,
        ("GET", "/api/auth/session", "200"): 1,
        ("GET", "/api/auth/session", "401"): 1,
        ("DELETE", "/api/sessions/{session_id}", "200"): 1,
        ("GET", "/api/users/{user_id}/sessions", "200"): 1,
    }


def test_obs_05_the_buckets_are_those_that_opentelemetry_names(api: Api):
    api.get("/healthz")
    bounds = [
        s.labels["le"] for s in samples(api) if s.name == f"{SECONDS}_bucket" and s.labels["http_route"] == "/healthz"
    ]
    assert bounds == [*map(str, BOUNDS_S), "+Inf"]
    assert BOUNDS_S == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def test_obs_05_the_scheme_and_what_failed_on_our_side_are_told(api: Api, monkeypatch: pytest.MonkeyPatch):
    async def broken(*_: Any) -> Any:
        raise RuntimeError("canary")

    monkeypatch.setattr(api.app.state.presenter, "one", broken)
    api.get("/api/auth/session", api.sign_in().bearer)
    api.get("/api/auth/session")
    told = [s.labels for s in samples(api) if s.name == f"{SECONDS}_count"]
    assert {labels["url_scheme"] for labels in told} == {"https"}
    assert [labels["error_type"] for labels in told if labels["http_response_status_code"] == "500"] == ["500"]
    assert {labels["error_type"] for labels in told if labels["http_response_status_code"] < "500"} == {""}


def test_what_a_stranger_sends_makes_no_series_of_its_own(api: Api):
    for number in range(50):
        api.get(f"/elsewhere/{number}")
        api.request(f"METHOD{number}", "/healthz")
        api.get(f"/api/nothing/{number}", ADMIN)
        api.get("/healthz?access_token=x")
    assert requests(api) == {
        ("GET", "", "404"): 100,
        ("_OTHER", "/healthz", "405"): 50,
        ("GET", "", "400"): 50,
    }


@one_database
def test_obs_06_ten_thousand_users_make_no_more_series_than_one(api: Api):
    def names() -> set[tuple[str, str]]:
        return {(s.name, str(sorted(s.labels.items()))) for s in samples(api)}

    def call(users: range) -> None:
        for number in users:
            api.get(f"/api/users/user-{number}/sessions", ADMIN)
        api.seen_from(f"192.0.2.{users.start % 250}").sign_in(f"user-{users.start}")

    call(range(1))
    names()
    before = names()
    for start in range(1, 10_000, 500):
        call(range(start, start + 500))
    assert names() == before


# -- labels and units


def test_obs_06_no_label_is_there_that_is_not_in_the_list(api: Api):
    api.sign_in()
    api.begin({"user_id": "alice", "replaces": "A" * 43})
    settled(api)
    for sample in samples(api):
        name = re.sub(r"_(bucket|sum|count)$", "", sample.name)
        assert sample.labels.keys() - {"le"} == LABELS.get(name, set()), sample.name


def test_obs_06_names_say_whose_and_in_which_unit(api: Api):
    api.sign_in()
    families = list(text_string_to_metric_families(api.get("/metrics").text))
    for family in families:
        assert family.name.startswith(("http_server_", "ledger_", "process_"))
        assert family.documentation
        assert family.type != "counter" or all(s.name.endswith("_total") for s in family.samples)
    assert {family.name for family in families if "milli" in family.name or "_ms" in family.name} == set()


def test_nobody_is_named(api: Api):
    alice = api.sign_in("alice@example.com", ip_address="203.0.113.77", user_agent="curl/8.0")
    api.get("/api/users/alice@example.com/sessions", ADMIN)
    api.delete(f"/api/users/alice@example.com/sessions/{alice.id}", ADMIN)
    text = api.get("/metrics").text
    stream = str(api.service.keys.pseudonym("alice@example.com"))
    for secret in ("alice", "203.0.113", "192.0.2.7", "curl", alice.id, alice.token, stream, stream.replace("-", "")):
        assert secret not in text


# -- the ledger


def test_the_log_and_who_follows_it_are_told(api: Api):
    api.sign_in()
    settled(api)
    until(lambda: value(api, "ledger_leader") == 1)
    assert value(api, "ledger_store_up") == 1
    assert value(api, "ledger_log_position") == 2
    for name in ["sessions.1", "api_keys.1", *(place.name for place in api.service.follower.progress())]:
        until(lambda name=name: value(api, "ledger_follower_position", follower=name) == 2)
        assert value(api, "ledger_follower_lag_events", follower=name) == 0
        assert value(api, "ledger_follower_lag_seconds", follower=name) == 0
        assert value(api, "ledger_follower_parked", follower=name) == 0


def test_a_policy_that_is_parked_shows(api: Api):
    until(lambda: api.service.follower.is_leading)
    with api.service.database.transaction() as connection:
        park(connection, Parked(RevokeSessionsOnUserDisabled.name, 0, "it failed", 0))
    assert value(api, "ledger_follower_parked", follower=RevokeSessionsOnUserDisabled.name) == 1


def test_what_was_recorded_and_refused_is_counted(api: Api):
    api.sign_in()
    api.sign_in()
    api.post("/api/users/alice/disable", ADMIN)
    api.begin({"user_id": "alice"})
    assert value(api, "ledger_events_appended_total", topic="SessionCreated") == 2
    assert value(api, "ledger_events_appended_total", topic="UserDisabled") == 1
    assert value(api, "ledger_commands_refused_total", reason="UserDisabled") == 1
    commits, commands = value(api, "ledger_writer_batch_commands_count"), value(api, "ledger_writer_batch_commands_sum")
    assert commits and commands and commands >= commits >= 4
    assert value(api, "ledger_writer_queue_commands") == 0


def test_two_applications_in_one_process_count_each_for_itself(open_api: OpenApi):
    one, other = open_api(), open_api()
    one.get("/healthz")
    assert ("GET", "/healthz", "200") in requests(one)
    assert ("GET", "/healthz", "200") not in requests(other)
