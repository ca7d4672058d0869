"""What a failed trial says of others: those that share its cause are dropped, no others."""

import pytest

from tuner.ask.layout import ParallelLayout
from tuner.errors import FailureReason
from tuner.search.lessons import doomed
from tuner.trial.results import TrialResult, TrialState


def failed(text, failure):
    return TrialResult(0, ParallelLayout.parse(text), TrialState.FAILED, failure=failure)


def measured(text):
    return TrialResult(0, ParallelLayout.parse(text), TrialState.MEASURED)


FITS, PLACED, CRASH = (
    FailureReason.DOES_NOT_FIT,
    FailureReason.PLACEMENT_IMPOSSIBLE,
    FailureReason.ENGINE_CRASHED,
)


@pytest.mark.parametrize(
    ("layout", "trials", "word"),
    [
        ("tp=1,pp=1,dp=1", [], None),
        ("tp=1,pp=1,dp=4", [failed("tp=2,pp=1,dp=1", FITS)], "does not fit"),
        ("tp=2,pp=1,dp=1,max_num_seqs=512", [failed("tp=2,pp=1,dp=1", FITS)], "does not fit"),
        ("tp=2,pp=1,dp=1,max_num_seqs=128", [failed("tp=2,pp=1,dp=1", FITS)], None),
        ("tp=4,pp=1,dp=1", [failed("tp=2,pp=1,dp=1", FITS)], None),
        ("tp=2,pp=2,dp=1", [failed("tp=2,pp=1,dp=1", FITS)], None),
        ("tp=2,pp=1,dp=2,ep=true", [failed("tp=2,pp=1,dp=1,ep=true", FITS)], None),  # experts spread over more ranks
        ("tp=2,pp=1,dp=1,ep=true", [failed("tp=2,pp=1,dp=2,ep=true", FITS)], "does not fit"),
        ("tp=8,pp=2,dp=1", [failed("tp=8,pp=1,dp=1", PLACED)], "could not be placed"),
        ("tp=4,pp=1,dp=4", [failed("tp=8,pp=1,dp=1", PLACED)], None),
        ("tp=4,pp=1,dp=3", [failed("tp=4,pp=1,dp=2", PLACED)], "could not be placed"),
        ("tp=8,pp=1,dp=1", [failed("tp=4,pp=1,dp=2", PLACED)], None),  # a node that is left may have room for 8
        ("tp=8,pp=1,dp=1,executor=ray", [failed("tp=8,pp=1,dp=1", PLACED)], None),
        ("tp=2,pp=1,dp=1,max_num_seqs=64", [failed("tp=2,pp=1,dp=1", CRASH)], "crashed"),
        ("tp=2,pp=1,dp=1,executor=ray", [failed("tp=2,pp=1,dp=1", CRASH)], None),
        ("tp=2,pp=1,dp=1,max_num_seqs=64", [failed("tp=2,pp=1,dp=1", FailureReason.CANCELLED)], None),
    ],
)
def test_who_shares_the_cause(layout, trials, word):
    why = doomed(ParallelLayout.parse(layout), trials)
    assert why is None if word is None else word in why


RAY = [failed(f"tp={tp},pp=1,dp=1,executor=ray", CRASH) for tp in (1, 2)]


@pytest.mark.parametrize(
    ("trials", "given_up"),
    [
        ([*RAY, measured("tp=4,pp=1,dp=1")], True),
        (RAY, False),  # perhaps nothing runs here
        ([RAY[0], measured("tp=4,pp=1,dp=1")], False),
        ([*RAY, measured("tp=4,pp=1,dp=1"), measured("tp=4,pp=1,dp=1,executor=ray")], False),
    ],
)
def test_a_backend_that_only_ever_crashed_is_given_up(trials, given_up):
    why = doomed(ParallelLayout.parse("tp=8,pp=1,dp=1,executor=ray"), trials)
    assert (why is not None and "executor=ray" in why) == given_up
    assert doomed(ParallelLayout.parse("tp=8,pp=1,dp=1"), trials) is None
