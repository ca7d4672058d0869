"""What one study taught, as the next one begins with it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.fakes import copy_of_empty_store
from tests.in_order import InOrder
from tests.unit.test_belief import setting, steps_of
from tests.world import World
from tuner.ask.cluster import requested_cluster
from tuner.ask.model import load_model
from tuner.search.belief import Belief
from tuner.search.priors import fresh_sd
from tuner.search.warm_start import ANOTHER_STUDY, HALF_LIFE_DAYS, Past, carried, decayed, kin_of
from tuner.trial.results import TrialResult, TrialState

DAY_S = 86400.0
FACTS = {"vllm": "0.29.0", "machine": "m"}


def past(request, ranked, factor, created_at=0.0):
    trials = [
        TrialResult(n, c.layout, TrialState.MEASURED, steps_of(request, c, factor)) for n, c in enumerate(ranked[:3])
    ]
    return Past(created_at, request, ranked, trials)


def test_what_was_learnt_fades_until_nothing_is_left_of_it():
    learnt = {"gemm": (1.5, 0.05), "ttft": (0.8, 0.1)}
    for seconds, share in ((0.0, ANOTHER_STUDY), (HALF_LIFE_DAYS * DAY_S, ANOTHER_STUDY / 2), (1e12, 0.0)):
        for name, (factor, sd) in decayed(learnt, seconds).items():
            before, before_sd = learnt[name]
            assert math.log(factor) == pytest.approx(share * math.log(before))
            assert before_sd < sd <= fresh_sd(name)
    assert decayed(learnt, 1e12)["gemm"] == pytest.approx((1.0, fresh_sd("gemm")))


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_the_next_study_begins_nearer_to_the_truth(factor):
    request, ranked, fresh = setting({"workload.arrival.requests_per_s": 4})
    model = load_model(request.model)
    known = carried([past(request, ranked, factor)], model, now_s=DAY_S)
    warm = Belief.of(request, ranked, model, requested_cluster(request), known)
    moved = np.median(warm.forecast().e2e_ms, axis=0) / np.median(fresh.forecast().e2e_ms, axis=0)
    assert np.median(np.abs(np.log(moved / factor))) < 0.65 * abs(math.log(factor))
    assert all(sd <= fresh_sd(name) for name, (_, sd) in warm.factors.items())


@pytest.mark.slow
def test_nothing_is_carried_from_studies_that_measured_nothing():
    request, ranked, _ = setting()
    model = load_model(request.model)
    assert carried([], model, DAY_S) == {}
    nothing = past(request, ranked, 1.5)
    assert carried([replace(nothing, trials=[])], model, DAY_S) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "facts", "same"),
    [
        ({}, {}, True),
        ({"workload.prompt_tokens": 77, "slo.0.ms": 999}, {"machine": "another"}, True),
        ({"model": "Qwen/Qwen3-32B"}, {}, False),
        ({"cluster.gpu": "h200_sxm"}, {}, False),
        ({"engine.dtype": "float16"}, {}, False),
        ({}, {"vllm": "0.28.0"}, False),
        ({}, {"simulated cluster, seed": "1"}, False),
    ],
)
def test_only_what_has_the_same_prices_is_akin(changes, facts, same):
    request, *_ = setting()
    other, *_ = setting(changes)
    assert (kin_of(other, FACTS) == kin_of(request, {**FACTS, **facts})) is same


@pytest.mark.slow
def test_a_study_begins_with_what_another_of_its_store_taught(tmp_path):
    world = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs", believing=True)
    first, *_ = world.process(name="first")
    first.run(resume=False, facts=FACTS)
    second, _, _, _, journal = world.process(name="second")
    given = []

    def told(*words):
        given.append(words[-1])
        return InOrder.of(*words)

    second._strategist = told
    second.run(resume=False, facts=FACTS)
    assert "remembers first" in journal.told
    assert {"gemm", "ttft", "tpot"} <= set(given[0])
    other, *_ = world.process(name="third")
    other._strategist = told
    other.run(resume=False, facts={"vllm": "0.1"})
    assert given[1] == {}
