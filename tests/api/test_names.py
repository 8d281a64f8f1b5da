"""What may become the name of somebody, and how one that an earlier version let in is still got rid of."""

from urllib.parse import quote
from uuid import uuid4

import pytest

from api.ids import uuid4 as new_id
from api.names import may_be_recorded
from domain.ledger import Request
from domain.user import SignIn
from store.api_keys import Scope, digest
from tests.api.client import ADMIN, Api, access_token, bearer, kind, told

EVERYWHERE = {"reason": "revoke_all", "dry_run": False}

MOVING = ("\x00", "\n", "\x1b", "\x7f", "\x85", "\x9b", "\u061c", "\u200b", "\u200e", "\u2028", "\u2029", "\u202e",
          "\u2066", "\u2069", "\ufeff", "\ufffd")  # fmt: skip


@pytest.mark.parametrize("name", ["a", "alice@example.com", "auth0|5f7c", "Zoë", "李 雷", "ünï🔑", "علي", "a" * 255])
def test_what_people_are_called_may_be_recorded(name: str):
    assert may_be_recorded(name)


def test_what_moves_or_hides_text_may_not():
    assert [char for char in MOVING if may_be_recorded(f"a{char}b")] == []
    assert not may_be_recorded("") and not may_be_recorded("a" * 256) and not may_be_recorded("é" * 128)


def test_nobody_signs_in_by_such_a_name(api: Api):
    for char in MOVING[1:]:
        for body in ({"user_id": f"a{char}b"}, {"user_id": "a", "idp_name": char}, {"user_id": "a", "amr": [char]}):
            assert told(api.begin(body)) == (422, "invalid-request"), body
    assert api.log() == []


def test_no_client_acts_by_such_a_name(api: Api):
    for name in ("a\u202eb", "a\nb", "x" * 256):
        client = bearer(access_token(sub=name, client_id=name, scope=" ".join(Scope)))
        assert kind(api.post("/api/users/alice/disable", client)) == "invalid-credential"
    assert api.log() == []


def test_whom_an_earlier_version_let_in_is_still_known_and_can_be_erased(api: Api):
    name = "a\u202eb\x85\u2028"
    sign_in = SignIn(session_id=new_id(), token_hash=digest("x"), device="", client=None, remember_me=False,
                     idp_name=None, auth_time=None, amr=(), replaces=None)  # fmt: skip
    api.service.ledger.create_session(name, sign_in, Request("operator", uuid4()), None).result()
    path = f"/api/users/{quote(name, safe='')}"
    assert len(api.get(f"{path}/sessions", ADMIN).json()["sessions"]) == 1
    revoked = api.post("/api/sessions/revoke", ADMIN, json={**EVERYWHERE, "user_ids": [name]})
    assert revoked.status_code == 200, revoked.text
    assert revoked.json()["revoked_count"] == 1
    assert api.delete(path, ADMIN).json() == {"message": "User erased", "user_id": name, "erased": True}
