"""Queries and headers that would be overlooked, or read in one of two ways, are refused by every call."""

from collections.abc import Iterator
from typing import Any

from tests.api.client import ADMIN, Api, Call, bearer, settled, told

TOLERANT = ("/healthz", "/readyz", "/metrics")
"""What scrapers and probes ask may have parameters of theirs."""

NO_NUMBERS = ("1_0", "+5", "%2B5", "%205", "5%20", "05", "5.0", "-0", "%D9%A5", "", "1e1", "0x1")

BODIES = {"/api/sessions": {"user_id": "alice"}, "/api/sessions/revoke": {"reason": "revoked_by_admin"}}


def test_no_call_overlooks_a_parameter(api: Api):
    alice = api.sign_in()
    before = api.log()
    for method, path in api.operations():
        for query in () if path in TOLERANT else ("dry_run=true", "Limit=1", "unknown", "=", "%00=1", "%ff=1"):
            for headers in (ADMIN, alice.bearer):
                answer = ask(api, method, f"{path}?{query}", headers)
                assert told(answer) == (422, "invalid-request"), (method, path, query)
    assert api.log() == before


def test_the_refusal_names_the_parameter(api: Api):
    answer = api.delete("/api/users/alice?dry_run=true", ADMIN)
    assert answer.json()["errors"] == [{"parameter": "dry_run", "detail": "is no parameter of this call"}]


def test_no_call_chooses_between_two_values(api: Api):
    for (method, path), parameter in parameters(api, "query"):
        answer = ask(api, method, f"{path}?{parameter['name']}=1&{parameter['name']}=1", ADMIN)
        assert answer.json()["errors"] == [{"parameter": parameter["name"], "detail": "occurs twice"}], (method, path)


def test_no_call_chooses_between_two_headers(api: Api):
    asked = [*parameters(api, "header")]
    assert {header["name"].lower() for _, header in asked} == {"idempotency-key", "last-event-id"}
    for (method, path), header in asked:
        twice = [*ADMIN.items(), (header["name"], "a"), (header["name"], "a")]
        answer = ask(api, method, path, twice)
        assert answer.json()["errors"] == [{"parameter": header["name"].lower(), "detail": "occurs twice"}], path
    both = [*ADMIN.items(), ("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    answer = api.post("/api/sessions", both, content=b'{"user_id":"alice"}')
    assert answer.json()["errors"] == [{"parameter": "content-type", "detail": "occurs twice"}]
    assert api.log() == []


def test_a_number_is_written_in_plain_digits(api: Api):
    everybody = bearer(api.sign_in().access_token(scope="users:admin audit:read"))
    for (method, path), parameter in parameters(api, "query"):
        if "integer" in str(parameter["schema"]):
            name = parameter["name"]
            for number in NO_NUMBERS:
                answer = ask(api, method, f"{path}?{name}={number}", everybody)
                assert told(answer) == (422, "invalid-request"), (path, name, number)
                assert name in [fault["parameter"] for fault in answer.json()["errors"]]


def test_an_id_is_written_in_one_way(api: Api):
    alice = api.sign_in()
    settled(api)
    event_id = api.get("/api/audit", ADMIN).json()["events"][0]["id"]
    for written in ("{%s}", "urn:uuid:%s", "%s-", "-%s"):
        for text in (written % alice.id, alice.id.replace("-", "")):
            assert told(api.get("/api/audit", ADMIN, params={"session_id": text})) == (422, "invalid-request")
            assert told(api.delete(f"/api/sessions/{text}", alice.bearer)) == (404, "session-not-found")
        for text in (written % event_id, event_id.replace("-", "")):
            assert told(api.get(f"/api/audit/{text}", ADMIN)) == (422, "invalid-request")
            assert told(api.get("/api/audit/stream", {**ADMIN, "Last-Event-ID": text})) == (400, "unknown-event")


def test_probes_and_scrapers_may_add_parameters(api: Api):
    assert {path: api.get(f"{path}?x=1&x=2").status_code for path in TOLERANT} == dict.fromkeys(TOLERANT, 200)


def test_a_credential_in_the_query_is_told_as_such(api: Api):
    assert told(api.get("/api/sessions?token=x", bearer("y"))) == (400, "credential-in-url")


def ask(api: Api, method: str, path: str, headers: Any) -> Any:
    place = path.replace("{user_id}", "alice").replace("{session_id}", "x").replace("{event_id}", "x")
    body = BODIES.get(place.partition("?")[0]) if method == "POST" else None
    return api.request(method, place, headers, **({"json": body} if body else {}))


def parameters(api: Api, place: str) -> Iterator[tuple[Call, dict[str, Any]]]:
    """Each call with each of its parameters that has this place."""
    for path, operations in api.app.openapi()["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == place:
                    yield (method.upper(), path), parameter
