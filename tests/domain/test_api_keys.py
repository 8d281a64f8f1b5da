"""An API key's life."""

from domain.api_keys import ApiKey, NewApiKey, stream_of
from domain.events import ApiKeyCreated, ApiKeyRevoked
from tests.domain.story import context

KEY = NewApiKey("0a1b2c3d4e5f", "gateway", ("sessions:create",), bytes(32))


def test_a_key_is_made_with_all_that_is_known_of_it():
    [made] = ApiKey.create(KEY, context(0, 1)).collect_events()
    assert isinstance(made, ApiKeyCreated)
    assert (made.key_id, made.name, made.scopes, made.digest) == KEY
    assert made.originator_id == stream_of(KEY.key_id)


def test_a_key_is_revoked_once():
    key = ApiKey.create(KEY, context(0, 1))
    assert [key.revoke(), key.revoke()] == [True, False]
    _, revoked = key.collect_events()
    assert isinstance(revoked, ApiKeyRevoked)
    assert revoked.key_id == KEY.key_id


def test_each_key_has_a_stream_of_its_own_that_is_no_users():
    assert stream_of("a") != stream_of("b")
    assert stream_of("a") == stream_of("a")
    assert stream_of("a").version == 5
