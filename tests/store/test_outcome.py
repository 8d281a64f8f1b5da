"""Who waits for a command learns in the end what came of it, or that it is not known."""

from concurrent.futures import Future

import pytest

from domain.errors import OutcomeUnknown, SessionNotFound, StoreUnavailable
from domain.ledger import Recorded
from store.outcome import outcome


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.outcome.PATIENCE_S", 0.01)


def test_what_was_recorded_or_refused_is_told():
    done: Future[Recorded[bool]] = Future()
    done.set_result(Recorded(True, 7))
    assert outcome(done) == Recorded(True, 7)
    refused: Future[Recorded[bool]] = Future()
    refused.set_exception(SessionNotFound("There is none."))
    with pytest.raises(SessionNotFound):
        outcome(refused)


def test_what_waits_still_is_taken_back():
    future: Future[Recorded[bool]] = Future()
    with pytest.raises(StoreUnavailable, match="taken back"):
        outcome(future)
    assert future.cancelled()


def test_of_what_is_under_way_it_is_not_known():
    future: Future[Recorded[bool]] = Future()
    future.set_running_or_notify_cancel()
    with pytest.raises(OutcomeUnknown):
        outcome(future)
