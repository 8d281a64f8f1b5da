"""What was ever stored is read for ever (LOG-12, D2): real stored bytes, one file for each topic, and the names in use.

Never change an example. A new kind of fact, or a new form of an old one, adds examples: what `SealingMapper` stores of
it under the key of `golden_reader`, and what each of its fields says.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent
from eventsourcing.utils import register_topic
from sqlalchemy import inspect

from api.service import Service
from domain.events import EndReason, Fact
from domain.ledger import SessionLedger
from domain.user import User, UserSnapshot
from projections.sessions import SessionsProjection
from store.database import Database
from store.sealing import SealingMapper
from tests.store.golden_reader import NoKeys

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = [(path.stem, example) for path in sorted(GOLDEN.glob("*.json")) for example in json.loads(path.read_text())]

each_example = pytest.mark.parametrize(
    ("topic", "example"), EXAMPLES, ids=[f"{topic} {example['title']}" for topic, example in EXAMPLES]
)


@cache
def found() -> dict[str, Any]:
    """What a fresh interpreter makes of the corpus."""
    reader = [sys.executable, "-m", "tests.store.golden_reader", str(GOLDEN)]
    run = subprocess.run(reader, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def read(topic: str, example: dict[str, Any]) -> dict[str, Any]:
    (one,) = [it for found_topic, title, it in found()["examples"] if (found_topic, title) == (topic, example["title"])]
    return one


@each_example
def test_a_stored_fact_says_what_it_always_said(topic: str, example: dict[str, Any]):
    it = read(topic, example)
    assert (it["stream"], it["version"]) == (example["stream"], example["version"])
    assert it["facts"] == example["facts"]


@each_example
def test_a_fact_that_was_read_is_stored_as_the_same_bytes(topic: str, example: dict[str, Any]):
    assert read(topic, example)["again"] == [example["stream"], example["version"], topic, example["state"]]


@each_example
def test_what_was_sealed_still_opens(topic: str, example: dict[str, Any]):
    assert read(topic, example)["opens_to"] == example.get("opens_to")


def test_the_corpus_is_a_history_that_replays():
    began = [example["facts"] for topic, example in EXAMPLES if topic == "SessionCreated"]
    (use,) = [example["facts"] for topic, example in EXAMPLES if topic == "SessionTouched"]
    uses = {use["session_id"]["uuid"]: use["timestamp"]["moment"]}
    live = [(facts["session_id"]["uuid"], facts["timestamp"]["moment"]) for facts in began]
    assert [(str(UUID(session[0])), session[3]) for session in found()["replayed"]["sessions"]] == [
        (session_id, uses.get(session_id, created_at)) for session_id, created_at in live
    ]


def test_every_kind_of_fact_has_its_examples():
    assert found()["topics"] == sorted({topic for topic, _ in EXAMPLES})


def test_no_kind_of_fact_is_forgotten():
    assert {topic for topic, _ in EXAMPLES} >= {
        "UserEnrolled",
        "SessionCreated",
        "SessionTouched",
        "SessionRevoked",
        "UserDisabled",
        "UserEnabled",
        "UserErased",
        "SessionsInvalidatedBefore",
        "SessionRevocationRequested",
        "ApiKeyCreated",
        "ApiKeyRevoked",
    }


def test_every_reason_has_its_example():
    reasons = [example["facts"]["reason"]["reason"] for topic, example in EXAMPLES if topic == "SessionRevoked"]
    assert sorted(reasons) == sorted(EndReason)


# -- a fact that takes a new form


class LabelGiven(Fact):
    """Once had `name` where it now has `label`."""

    TOPIC = "test:LabelGiven"
    class_version = 2
    label: str

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["label"] = state.pop("name")


register_topic(LabelGiven.TOPIC, LabelGiven)

ABOUT = (
    b'"timestamp":1795435200123456,"event_id":"01a20846fe7b78b584df7eec7d32a781","actor":"self",'
    b'"correlation_id":"01a20846fe7b7db7bd01af957221a498"'
)


@pytest.mark.parametrize(
    "state",
    [b"{" + ABOUT + b',"name":"my phone"}', b"{" + ABOUT + b',"label":"my phone","class_version":2}'],
    ids=["first form", "second form"],
)
def test_every_form_of_a_fact_is_read_and_the_last_is_written(state: bytes):
    mapper = SealingMapper(NoKeys())
    fact: Any = mapper.to_domain_event(StoredEvent(UUID(int=1), 1, LabelGiven.TOPIC, state))
    assert fact.label == "my phone"
    assert mapper.to_stored_event(fact).state == b"{" + ABOUT + b',"label":"my phone","class_version":2}'


# -- names that are data


def test_the_names_in_use_stay():
    assert (SessionLedger.name, User.TOPIC, UserSnapshot.TOPIC, SessionsProjection.name) == (
        "session-ledger",
        "User",
        "UserSnapshot",
        "sessions.1",
    )


def test_the_tables_keep_their_names(service: Service):
    in_the_log = {"events", "head", "tracking", "snapshots_2", "identities", "idempotency", "api_keys"}
    assert {*tables(service.database)} >= in_the_log | {"sessions", "users", "erasures", "invalidations"}
    assert {*tables(service.keys_database)} >= {"user_keys", "secrets"}


def test_the_log_keeps_its_columns(service: Service):
    columns = ["position", "recorded_at", "version", "stream", "topic", "state"]
    assert tables(service.database)["events"] == columns


def tables(database: Database) -> dict[str, list[str]]:
    """Each table with its columns, as the database has them."""
    with database.reading() as connection:
        inspector = inspect(connection)
        return {
            name: [column["name"] for column in inspector.get_columns(name)] for name in inspector.get_table_names()
        }


def test_a_user_keeps_his_stream(service: Service):
    service.keys.pepper = bytes(range(32, 64))
    enrolled = next(example for topic, example in EXAMPLES if topic == "UserEnrolled")
    assert str(service.keys.pseudonym("alice@example.org")) == enrolled["stream"]
