"""Threats that a limit answers (standards, section 3): guessing, slow clients, floods."""

from collections import Counter
from uuid import uuid4

from tests.api import conftest as applications
from tests.api.client import bearer, told
from tests.api.conftest import OpenApi

open_api = applications.open_api


def test_t_05_a_thousand_guessed_ids_are_a_hundred_404s_and_then_429(open_api: OpenApi):
    api = open_api(guess_limit=100)
    guesser, victim = api.sign_in("guesser"), api.sign_in("victim")
    guesses = [("DELETE", f"/api/sessions/{uuid4()}", guesser.bearer) for _ in range(999)]
    answers = Counter(told(answer) for answer in api.at_once(guesses))
    assert answers == {(404, "session-not-found"): 100, (429, "too-many-guesses"): 899}
    assert told(api.delete(f"/api/sessions/{victim.id}", guesser.bearer)) == (429, "too-many-guesses")
    assert api.is_active(victim.bearer)
    assert told(api.delete(f"/api/sessions/{uuid4()}", victim.bearer)) == (404, "session-not-found")


def test_t_05_a_thousand_guessed_tokens_are_a_hundred_401s_and_then_429(open_api: OpenApi):
    api = open_api(guess_limit=100)
    victim = api.sign_in("victim")
    guesses = [("GET", "/api/auth/session", bearer(f"{number:043}")) for number in range(1000)]
    answers = Counter(told(answer) for answer in api.at_once(guesses))
    assert answers == {(401, "invalid-credential"): 100, (429, "too-many-guesses"): 900}
    assert api.is_active(victim.bearer)
