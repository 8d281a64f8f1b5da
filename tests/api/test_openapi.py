"""The OpenAPI document says what the service does: every route, every answer, every member with an example."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jsonschema_rs import validator_for

from api.edge import HEADERS as STANDING
from api.errors import KINDS
from api.openapi import HEADERS, LINKS
from tests.api.client import ADMIN, Api, Headers, access_token, bearer, by_cookie
from tests.api.test_credentials import first_event

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the document is the same

PROBLEM = "application/problem+json"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OF_SERVICES = ("POST /api/sessions", "POST /api/sessions/revoke", "POST /oauth2/introspect")


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    return api.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from refs(value)
    elif isinstance(part, list):
        for value in part:
            yield from refs(value)


def resolved(document: dict[str, Any], ref: str) -> Any:
    found: Any = document
    for step in ref.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_it_is_openapi_3_1_and_every_reference_leads_somewhere(document: dict[str, Any]):
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version", "description"} <= document["info"].keys()
    assert all(resolved(document, ref) for ref in refs(document))
    for schema in document["components"]["schemas"].values():
        validator_for({**schema, "components": document["components"]})


def test_every_route_says_what_it_does_in_one_line_and_more(document: dict[str, Any]):
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert "\n\n\n" not in operation["description"]
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_every_route_says_which_credentials_it_takes(document: dict[str, Any]):
    schemes = document["components"]["securitySchemes"]
    assert schemes["sessionCookie"] == {"type": "apiKey", "in": "cookie", "name": "__Host-sid"}
    assert schemes["bearer"]["scheme"] == "bearer"
    for name, operation in operations(document):
        named = {scheme for alternative in operation.get("security", []) for scheme in alternative}
        if name.endswith(("/healthz", "/readyz", "/metrics")):
            assert named == set(), name
        else:
            of_services = "/users/" in name or "/audit" in name or "/ledger/" in name or name in OF_SERVICES
            assert named == ({"bearer"} if of_services else set(schemes)), name


def test_every_problem_is_documented_as_one_with_an_example_of_each_kind(document: dict[str, Any]):
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 400:
                continue
            assert list(answer["content"]) == [PROBLEM], (name, status)
            assert answer["description"], (name, status)
            examples = answer["content"][PROBLEM]["examples"]
            assert examples, (name, status)
            for kind, example in examples.items():
                assert example["value"]["status"] == KINDS[kind].status == int(status)
                assert example["value"]["type"].endswith(f"/{kind}")


def test_every_link_leads_to_a_call_and_names_its_parameters(document: dict[str, Any]):
    calls = {operation["operationId"]: operation for _, operation in operations(document)}
    assert LINKS.keys() <= calls.keys()
    for source in LINKS:
        [links] = [answer["links"] for answer in calls[source]["responses"].values() if "links" in answer]
        assert len(links) == len(LINKS[source])
        for name, link in links.items():
            known = {parameter["name"] for parameter in calls[link["operationId"]].get("parameters", [])}
            assert link["parameters"].keys() <= known, name
            assert "requestBody" not in link or "requestBody" in calls[link["operationId"]], name


def test_the_headers_of_answers_are_documented(document: dict[str, Any]):
    known = {f"{operation['operationId']} {status}" for _, operation in operations(document) for status in
             operation["responses"]}  # fmt: skip
    assert {" ".join(key) for key in HEADERS} <= known
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            headers = {header for header, described in answer["headers"].items() if described.get("required")}
            assert resolved(document, answer["headers"]["X-Request-Id"]["$ref"])["required"]
            assert status != "401" or headers == {"WWW-Authenticate"}, name
            assert status != "503" or headers == ({"Retry-After"} if name != "GET /readyz" else set()), name


def test_every_member_and_parameter_has_an_example(document: dict[str, Any]):
    bare = [
        f"{schema_name}.{name}"
        for schema_name, schema in document["components"]["schemas"].items()
        for name, member in schema.get("properties", {}).items()
        if not has_example(member)
    ]
    bare += [
        f"{route}?{parameter['name']}"
        for route, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not has_example(parameter) and not has_example(parameter["schema"])
    ]
    assert bare == []


def has_example(part: dict[str, Any]) -> bool:
    """Of its own, or by what it is made of."""
    return bool({"examples", "example", "default", "enum"} & part.keys() or list(refs(part)))


def test_every_example_fits_its_schema(document: dict[str, Any]):
    components = document["components"]
    for schema_name, schema in components["schemas"].items():
        for name, member in schema.get("properties", {}).items():
            validator = validator_for({**member, "components": components})
            for example in member.get("examples", []):
                assert validator.is_valid(example), (schema_name, name, example)


BODIES: list[tuple[Headers, bytes]] = [
    ({}, b""),
    (JSON, b'{"user_id":"bob"}'),
    (JSON, b'{"user_id":"a\\n"}'),
    (JSON, b'{"except_current":true}'),
    (JSON, b"{"),
    (JSON, b" " * 20_000),
    ({"Content-Type": "text/plain"}, b"x"),
    (FORM, b"token=x"),
    (FORM, b"token"),
]
BAD: list[Any] = [
    {},
    bearer("A" * 43),
    bearer("slk_unknown"),
    bearer(access_token(sub="web", scope="")),
    {"Authorization": b"Bearer \xff"},
    {**by_cookie("A" * 43), **ADMIN},
    {**by_cookie("A" * 43), "Sec-Fetch-Site": "cross-site"},
]
QUERIES = [
    *("?token=x", "?status=ended", "?status=ended&limit=x", "?status=ended&cursor=x"),
    *("?cursor=x", "?limit=1", "?page=200&limit=100", "?page=1&page=2"),
]


def answers_to_every_kind_of_request(api: Api) -> Iterator[tuple[str, httpx.Response]]:
    """Each route, called rightly and in every wrong way that there is."""
    for number, (method, template) in enumerate(api.operations()):
        victim = api.sign_in(f"victim-{number}")
        name, path = (
            f"{method} {template}",
            template.format(user_id=victim.user_id, session_id=victim.id, event_id=victim.id),
        )
        for good in (lambda: api.sign_in(str(uuid4())).bearer, lambda: ADMIN):
            for headers, body in BODIES:
                yield name, api.request(method, path, {**good(), **headers}, content=body)
            for query in QUERIES:
                yield name, api.request(method, path + query, good())
            yield name, api.request(method, template.format(user_id="a" * 256, session_id="x", event_id="x"), good())
        if "{event_id}" in template:
            yield name, api.get(template.format(event_id=first_event(api)), ADMIN)
        for bad in BAD:
            yield name, api.request(method, path, bad)
    yield from answers_to_sign_ins(api)


def answers_to_sign_ins(api: Api) -> Iterator[tuple[str, httpx.Response]]:
    """What only the history of a user or of a key brings about."""
    name = "POST /api/sessions"
    for user_id in ("bob", "bob", "carol"):
        yield name, api.begin({"user_id": user_id}, **{"Idempotency-Key": "k"})
    api.post("/api/users/bob/disable", ADMIN)
    yield name, api.begin({"user_id": "bob"}, **{"Idempotency-Key": "k"})
    yield name, api.begin({"user_id": "bob"})
    yield name, api.begin({"user_id": "carol", "replaces": "A" * 43})


def told_headers(answer: dict[str, Any]) -> set[str]:
    """Those of this answer, and those of every answer, which the document does not repeat."""
    standing = {name.decode() for name, _ in STANDING} | {"content-type", "content-length"}
    return standing | {name.lower() for name in answer.get("headers", {})}


def test_every_answer_is_documented_and_fits_its_schema(api: Api, document: dict[str, Any]):
    known, components = dict(operations(document)), document["components"]

    @cache
    def validator(schema: str) -> Any:
        return validator_for({**json.loads(schema), "components": components})

    undocumented = set()
    for name, answer in answers_to_every_kind_of_request(api):
        documented = known[name]["responses"].get(str(answer.status_code), {})
        undocumented |= {f"{name}: {header}" for header in answer.headers if header not in told_headers(documented)}
        media_type = answer.headers.get("Content-Type", "")
        if media_type in documented.get("content", {}):
            validator(json.dumps(documented["content"][media_type]["schema"])).validate(
                answer.json() if media_type.endswith(("/json", "+json")) else answer.text
            )
        elif media_type or not documented:
            undocumented.add(f"{name}: {answer.status_code} {answer.text}")
    assert sorted(undocumented) == []
