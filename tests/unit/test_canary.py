"""A canary promotes what is not worse, takes back what is, and errs as seldom as it says, however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.ask.request import Metric, SloTarget
from tuner.retune.canary import FAILED, LOOK, CanaryLook, canary_look, judge
from tuner.retune.moves import Answer
from tuner.retune.policy import CanaryPolicy
from tuner.retune.seen import Look
from tuner.stats.buckets import Within
from tuner.stats.two_shares import Claim, Counted, against_limit, against_other, dispersion_of

SLO = (SloTarget(metric="ttft", percentile=99, ms=500),)
KEY = "ttft:p99"
POLICY = CanaryPolicy(least_requests=100, alpha=0.05, tolerance=0.01)


def counts(total, missed):
    return {KEY: Within(total, total - missed, total - missed, total - missed)}


def looks(seed, new, old, number, per_look=(30, 270), clumps=0.0):
    """So many looks at two sides that miss with those chances; with ``clumps``, each look has a chance of its own."""
    random = np.random.default_rng(seed)

    def missed(chance, total):
        if clumps:
            chance = random.beta(chance * (1 / clumps - 1), (1 - chance) * (1 / clumps - 1))
        return int(random.binomial(total, chance))

    made = []
    for _ in range(number):
        beside = {} if old is None else counts(per_look[1], missed(old, per_look[1]))
        made.append(CanaryLook(counts(per_look[0], missed(new, per_look[0])), beside))
    return made


def first(seed, new, old, number=120, every=1, **more):
    """What is answered first, when it is asked at every look, and after how many."""
    made = looks(seed, new, old, number, **more)
    for place in range(1, number + 1, every):
        if (found := judge(made[:place], SLO, POLICY).answer) is not Answer.HOLD:
            return found, place
    return Answer.HOLD, number


@pytest.mark.parametrize("old", [0.002, None])
def test_one_that_is_as_good_is_promoted(old):
    found = [first(seed, 0.002, old, every=5) for seed in range(20)]
    assert sum(answer is Answer.PROMOTE for answer, _ in found) >= 18
    assert not [answer for answer, _ in found if answer is Answer.ROLL_BACK]


@pytest.mark.slow
@pytest.mark.parametrize(("new", "within"), [(0.5, 5), (0.2, 8), (0.06, 60)])
def test_one_that_is_worse_is_taken_back_the_sooner_the_worse(new, within):
    found = [first(seed, new, 0.002) for seed in range(20)]
    assert {answer for answer, _ in found} == {Answer.ROLL_BACK}
    assert np.median([place for _, place in found]) <= within


def test_one_that_misses_no_more_than_the_slo_allows_may_miss_more_than_the_old_one():
    """Fewer devices may be slower, and good enough."""
    slo = (SloTarget(metric="ttft", percentile=90, ms=500),)
    made = [CanaryLook({"ttft:p90": Within(30, 29, 29, 29)}, {"ttft:p90": Within(270, 270, 270, 270)})] * 60
    assert judge(made, slo, POLICY).answer is Answer.PROMOTE


@pytest.mark.slow
def test_one_that_misses_what_the_old_one_misses_too_is_not_taken_back():
    """It may be the load."""
    assert not [seed for seed in range(20) if first(seed, 0.3, 0.3, every=40)[0] is Answer.ROLL_BACK]


@pytest.mark.slow
@pytest.mark.parametrize("clumps", [0.0, 0.02])
@pytest.mark.parametrize(("new", "old"), [(0.03, 0.02), (0.02, None), (0.11, 0.1)])
def test_errors_are_as_rare_as_stated(new, old, clumps):
    """At the very limit, where errors are likeliest, asked again and again: both kinds, also of requests that
    depend on each other."""
    allowed = POLICY.alpha + 3 * math.sqrt(POLICY.alpha * (1 - POLICY.alpha) / 100)
    found = [first(seed, new, old, number=64, every=8, clumps=clumps)[0] for seed in range(100)]
    assert found.count(Answer.PROMOTE) / 100 <= allowed
    assert found.count(Answer.ROLL_BACK) / 100 <= allowed


def test_silence_promotes_nobody():
    quiet = [CanaryLook(counts(1, 0), counts(9, 0))] * 60
    found = judge(quiet, SLO, POLICY)
    assert (found.answer, found.blind) == (Answer.HOLD, True)
    assert found.why == "60 requests of it so far, and 100 are needed"
    assert judge([], SLO, POLICY).blind
    unseen = judge([CanaryLook({FAILED: Within(50, 50, 50, 50)})] * 60, SLO, POLICY)
    assert unseen.why == "no request of it is counted for ttft:p99"
    assert unseen.blind


def test_requests_that_fail_take_it_back_whatever_their_latencies():
    good, bad = counts(30, 0) | {FAILED: Within(40, 30, 30, 30)}, counts(270, 0) | {FAILED: Within(270, 270, 270, 270)}
    found = judge([CanaryLook(good, bad)] * 10, SLO, POLICY)
    assert found.answer is Answer.ROLL_BACK
    assert found.why == "it is worse: 25.00% of 400 requests fail, of the old one 0.00% of 2700"


def test_it_says_what_it_saw():
    found = judge([CanaryLook(counts(100, 0), counts(900, 9))] * 10, SLO, POLICY)
    assert found.why == "it is not worse: 0.00% of 1000 requests miss ttft:p99, of the old one 1.00% of 9000"
    assert found.figures == {
        "requests": 1000.0, "ttft:p99 missed_share": 0.0, "ttft:p99 old_missed_share": pytest.approx(0.01),
    }  # fmt: skip


def test_a_look_is_made_of_two_looks_and_is_kept_as_json():
    within = Within(10, 9, 9.5, 10)
    new = Look(at_s=1, seconds=5, arrived=10, failed=1, within={(Metric.TTFT, 99.0): within})
    found = canary_look(new, None)
    assert found == CanaryLook({KEY: within, FAILED: Within(10, 9, 9, 9)}, {})
    assert LOOK.validate_python(LOOK.dump_python(found, mode="json")) == found


SHARE = st.floats(0.001, 0.999)


@given(SHARE, SHARE, st.floats(0, 0.3), st.sampled_from(list(Claim)), st.integers(1, 6), st.integers(1, 6))
def test_on_average_a_block_is_no_evidence_against_what_holds(one, other, tolerance, claim, ones, others):
    """Summed over all outcomes of the second block, for every first block: at most 1."""
    if not (one <= other + tolerance if claim is Claim.NOT_ABOVE else one >= other + tolerance):
        return
    before = (Counted(40.0, 13.0), Counted(40.0, 9.0))
    begin = against_other(claim, [before], tolerance).log
    mean = 0.0
    for hit in range(ones + 1):
        for beside in range(others + 1):
            chance = math.comb(ones, hit) * one**hit * (1 - one) ** (ones - hit)
            chance *= math.comb(others, beside) * other**beside * (1 - other) ** (others - beside)
            after = [before, (Counted(ones, hit), Counted(others, beside))]
            found = against_other(claim, after, tolerance)
            mean += chance * math.exp(found.log * found.dispersion - begin)
    assert mean <= 1 + 1e-6


def test_evidence_against_a_limit_and_its_dispersion():
    even = [Counted(100, 10)] * 10
    assert against_limit(Claim.NOT_ABOVE, even, 0.02).reaches(0.001)
    assert not against_limit(Claim.NOT_BELOW, even, 0.02).reaches(0.5)
    assert dispersion_of(even) == 1.0
    clumped = [Counted(100, 0), Counted(100, 20)] * 5
    assert dispersion_of(clumped) == pytest.approx(10 * 100 / 9 / 9)
    found = against_limit(Claim.NOT_ABOVE, clumped, 0.02)
    assert found.log < against_limit(Claim.NOT_ABOVE, even, 0.02).log / 5


@pytest.mark.parametrize(("arrived", "failed", "missed", "total"), [(10, 1, 1, 10), (1, 3, 3, 3), (0, 2, 2, 2)])
def test_no_more_fail_than_there_are_though_they_came_before_the_look(arrived, failed, missed, total):
    found = canary_look(Look(at_s=1, seconds=5, arrived=arrived, failed=failed), None).new[FAILED]
    assert (found.total, found.total - found.likely) == (total, missed)


@pytest.mark.parametrize("policy", [{"tolerance": 0}, {"share": 0.004}])
def test_a_policy_by_which_nothing_could_be_promoted_is_refused(policy):
    with pytest.raises(ValidationError):
        CanaryPolicy.model_validate(policy)
    assert CanaryPolicy(share=0.01, tolerance=0.001).share == 0.01
