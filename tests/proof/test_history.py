"""The judge itself: what it must not let pass."""

from tests.proof.history import Check, Credential, History

HERE, THERE = Credential("s", "cookie", "one"), Credential("s", "token", "two")


def history(*checks: Check, asked: float | None = 10, acknowledged: float | None = 11) -> History:
    def at(moment: float | None) -> dict[str, float]:
        return {} if moment is None else {"s": moment}

    return History(list(checks), at(asked), at(acknowledged))


def accepted(credential: Credential, started: float, ended: float) -> Check:
    return Check(credential, started, ended, True)


def refused(credential: Credential, started: float, ended: float) -> Check:
    return Check(credential, started, ended, False)


def test_accepted_before_and_refused_after_is_no_contradiction():
    seen = history(accepted(HERE, 1, 2), accepted(THERE, 3, 4), refused(HERE, 12, 13), refused(THERE, 12, 13))
    assert seen.contradictions() == []
    assert seen.never_let_in() == set()


def test_a_check_that_overlaps_the_revocation_may_go_either_way():
    assert history(accepted(HERE, 9, 12), refused(THERE, 10.2, 12)).contradictions() == []
    assert history(refused(HERE, 9, 10.5)).contradictions() == []


def test_a_check_that_started_after_the_acknowledgement_and_was_let_in_is_one():
    [told] = history(accepted(THERE, 11.1, 12)).contradictions()
    assert told.startswith("let in after its end was known")


def test_so_is_one_that_started_after_somebody_else_was_refused():
    assert history(refused(HERE, 10.1, 10.2), accepted(THERE, 10.3, 12)).contradictions() != []


def test_so_is_a_refusal_before_anybody_had_asked_for_it():
    assert history(refused(HERE, 8, 9)).contradictions() != []
    assert history(refused(HERE, 8, 9), asked=None, acknowledged=None).contradictions() != []


def test_only_checks_that_started_after_the_acknowledgement_count_as_after_the_end():
    late = refused(HERE, 12, 13)
    assert history(refused(THERE, 10.5, 12), late).after_the_end() == [late]


def test_a_credential_that_was_never_let_in_is_named():
    assert history(accepted(HERE, 1, 2), refused(THERE, 12, 13)).never_let_in() == {THERE}
