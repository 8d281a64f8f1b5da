"""Schemathesis plays the OpenAPI document against the application: no 5xx, no undocumented answer (VER-02).

`SCHEMATHESIS_EXAMPLES` raises the number of examples of each operation: 300 take some minutes, and want pytest's
`-o faulthandler_timeout=0`. `SCHEMATHESIS_SEED` makes them other ones; a failure names both.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import schemathesis
from schemathesis import AuthContext, Case, CheckContext, HookContext, Response
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

from api.openapi import LINKS
from tests.api.client import ADMIN, BOOTSTRAP_KEY, Api

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12"))
SEED = int(os.environ.get("SCHEMATHESIS_SEED", "20261123"))
PHASES = ["examples", "coverage", "fuzzing", "stateful"]

EVERY_CHECK = [
    "allow_header_conformance",
    "content_type_conformance",
    "ensure_resource_availability",
    "ignored_auth",
    "missing_required_header",  # no header of ours is required: it waits for the first one
    "negative_data_rejection",
    "not_a_server_error",
    "object_level_authorization",  # speaks of reads by id, which only administrators have here: it waits for one
    "positive_data_acceptance",
    "response_headers_conformance",
    "response_schema_conformance",
    "status_code_conformance",
    "unsupported_method",
    "use_after_free",
    "what_was_ended_is_over",
]  # and not `max_response_time`, which is off unless it is given a time: how fast we are depends on the machine

BEYOND_A_SCHEMA = {
    "foreign-replacement": "which tokens are sessions of the user",
    "idempotency-key-reused": "what came with the key before",
    "invalid-cursor": "a cursor is opaque, and signed",
    "unknown-event": "which events the log has",
    "page-too-deep": "the page's number times its rows",
    "body-too-large": "the bytes of a whole body",
}
"""Valid by every schema that could be written, and refused: the kind of problem, and what no schema knows."""

BEYOND_A_PATTERN = {
    "at most 255 bytes of UTF-8 are allowed": "a schema counts characters",
    "lies in the future": "a schema has no clock",
    "goes with no other parameter": "the document describes parameters one by one",
    "is larger than to": "a schema of one parameter knows no other",
    "goes with no cursor": "a schema of one parameter knows no other",
    "lies after end_date": "a schema of one parameter knows no other",
    "not a moment of the years 1 to 9999 in UTC": "the offset may lead out of the years that the text shows",
}

REJECTED = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "429", "5xx"]
"""Schemathesis' own answers that reject, and 413: a body may be wrong by its schema and too large besides."""

LISTS = ("GET /api/sessions", "GET /api/users/{user_id}/sessions")


def test_no_check_is_missing(api: Api):
    load_all_checks()
    assert sorted(CHECKS.get_all_names()) == EVERY_CHECK
    checks = loaded(api).config.checks
    assert [name for name in EVERY_CHECK if not checks.get_by_name(name=name).enabled] == []


def test_the_application_does_what_its_document_says(api: Api):
    run = play(api)
    assert run.faults == [], f"seed {SEED}, {EXAMPLES} examples\n\n" + "\n\n".join(run.faults)
    assert {phase: run.phases[phase] for phase in PHASES} == dict.fromkeys(PHASES, Status.SUCCESS)
    assert [call for call in labels(api) if not run.succeeded[call]] == []
    assert run.followed["create_session"] > 0 and run.followed.keys() <= LINKS.keys()


@dataclass
class Run:
    """What came of it."""

    faults: list[str] = field(default_factory=list)
    phases: dict[str, Status] = field(default_factory=dict)
    succeeded: Counter[str] = field(default_factory=Counter)
    followed: Counter[str] = field(default_factory=Counter)

    def take(self, event: events.EngineEvent) -> None:
        match event:
            case events.PhaseFinished():
                self.phases[event.phase.name.value] = event.status
            case events.NonFatalError():
                self.faults.append(f"{event.phase} {event.label}: {event.value!r}")
            case events.FatalError():
                raise event.exception
            case events.ScenarioFinished():
                self._take_scenario(event.recorder)

    def _take_scenario(self, recorder: ScenarioRecorder) -> None:
        self.faults += failed_checks(recorder)
        for case, response in exchanges(recorder):
            self.succeeded[case.operation.label] += 200 <= response.status_code < 400
        for node in recorder.cases.values():
            if node.transition and node.is_transition_applied:
                parent = recorder.cases[node.parent_id].value.operation
                self.followed[parent.definition.raw["operationId"]] += 1


def play(api: Api) -> Run:
    """On a log that is sealed, so that there is something to prove."""
    api.sign_in()
    api.service.sealer.seal()
    run = Run()
    for event in from_schema(loaded(api)).execute():
        run.take(event)
    return run


def loaded(api: Api) -> Any:
    schema = schemathesis.openapi.from_asgi("/openapi.json", api, config=configuration())
    schema.hook(filter_failure)
    schema.auth(refresh_interval=None)(caller(api))
    return schema


def configuration() -> SchemathesisConfig:
    scenarios = {
        "generation": {"max-examples": 6 * EXAMPLES},
        "inference": {"algorithms": []},  # the links that the document names, and no guesses beside them
    }
    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "continue-on-failure": True,
            "generation": {"max-examples": EXAMPLES, "database": "none"},
            "phases": {"stateful": scenarios},
            "output": {"sanitization": {"enabled": False}},  # the credentials are the tests' own
            "analysis": {"constants": {"enabled": False}},
            "cache": {"enabled": False},
            "checks": {"negative_data_rejection": {"expected-statuses": REJECTED}},
        }
    )


def labels(api: Api) -> list[str]:
    return [f"{method} {path}" for method, path in api.operations()]


# -- who calls


def caller(api: Api) -> type:
    """Gives each case a credential that is good for its operation, by itself: calls end the sessions they come with."""

    class Caller:
        count = 0

        def get(self, case: Case, context: AuthContext) -> tuple[str, bool] | None:
            schemes = {name for either in context.operation.definition.raw.get("security", []) for name in either}
            if "sessionCookie" in schemes:
                self.count += 1
                return token_of(api, owner_of(api, case) or f"caller {self.count}"), self.count % 3 == 0
            return (BOOTSTRAP_KEY, False) if schemes else None

        def set(self, case: Case, credential: tuple[str, bool], context: AuthContext) -> None:
            leave_out_what_only_luck_makes_right(case)  # no hook of one schema sees the whole case before its call
            secret, by_cookie = credential
            if by_cookie:
                case.cookies["__Host-sid"] = secret
            else:
                case.headers["Authorization"] = f"Bearer {secret}"

    return Caller


def owner_of(api: Api, case: Case) -> str | None:
    """A link may lead to somebody's session, which nobody else can end."""
    try:
        session = api.session(UUID(str((case.path_parameters or {}).get("session_id"))))
    except ValueError:
        return None
    return session and session.user_id


def token_of(api: Api, user_id: str) -> str:
    """A new session's; other calls may have disabled the user. One whom they have erased has no session to be found."""
    api.post(f"/api/users/{quote(user_id, safe='')}/enable", ADMIN)
    return api.sign_in(user_id).token


def leave_out_what_only_luck_makes_right(case: Case) -> None:
    """Nothing follows in a scenario from a sign-in that is refused."""
    if case.operation.label == "POST /api/sessions" and is_positive_step(case):
        case.body = {name: value for name, value in case.body.items() if name not in ("replaces", "auth_time")}


def is_positive_step(case: Case) -> bool:
    return bool(case.meta) and case.meta.phase.name.value == "stateful" and case.meta.generation.mode.is_positive


# -- what is a fault


@schemathesis.check
def what_was_ended_is_over(context: CheckContext, response: Response, case: Case) -> None:
    """Use after free, as it matters here."""
    if response.status_code != 200:
        return
    api: Api = case.operation.app
    match case.method, *map(unquote, urlsplit(response.request.url).path.split("/")[2:]):
        case ("DELETE", "sessions", session_id) | ("DELETE", "users", _, "sessions", session_id):
            session = api.session(UUID(session_id))
            assert session is not None and session.end is not None
        case ("DELETE", "users", user_id, "sessions") | ("POST", "users", user_id, "disable"):
            assert api.active_sessions(user_id) == []


def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Whether it is one of the application: Schemathesis asks before it reports."""
    match failure:
        case RejectedPositiveData():
            return not is_beyond_a_schema(response.json())
        case UseAfterFree():
            # The list of a user's sessions stays when they have ended; `what_was_ended_is_over` looks at those.
            return case.operation.label not in LISTS
    return True


def is_beyond_a_schema(problem: dict[str, Any]) -> bool:
    kind = problem["type"].rpartition("/")[2]
    faults = {fault["detail"] for fault in problem.get("errors", [])}
    return kind in BEYOND_A_SCHEMA or (kind == "invalid-request" and faults <= BEYOND_A_PATTERN.keys())


def failed_checks(recorder: ScenarioRecorder) -> Iterator[str]:
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info:
                answer = recorder.find_response(case_id=case_id)
                said = f"{answer.status_code} {answer.text[:1000]}" if answer else "no answer"
                yield f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}\n{said}"


def exchanges(recorder: ScenarioRecorder) -> Iterator[tuple[Case, Response]]:
    """In the order of the calls."""
    for case_id, interaction in recorder.interactions.items():
        if interaction.response is not None:
            yield recorder.cases[case_id].value, interaction.response
