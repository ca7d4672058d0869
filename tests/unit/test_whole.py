"""After a round on spare nodes of one kind, all of the cluster is asked of, and all rounds' trials are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.rollouts import a_live
from tests.watch_world import POLICY
from tuner.app.watch.judging import Case, judged
from tuner.app.watch.proposing import measured, round_of
from tuner.app.watch.whole import trials_of, whole_request
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.ask.request_document import parse_request
from tuner.retune.demand import LoadRecord
from tuner.retune.situation import Situation
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.results import LoadStep, StepResult, TrialResult, TrialState

GROUPS = [{"gpu": gpu, "nodes": 2, "gpus_per_node": 8} for gpu in ("h100_sxm", "a100_sxm")]
DOCUMENT = {
    "model": "meta-llama/Llama-3.1-8B",
    "cluster": GROUPS,
    "workload": {"prompt_tokens": 1024, "output_tokens": 128, "arrival": {"requests_per_s": 2.0}},
    "slo": [{"metric": "ttft", "percentile": 95, "ms": 1000}],
    "space": {"tp": [1, 2], "dp": [1, 2], "max_num_batched_tokens": [2048]},
}
ROUNDS = ("s", "s.r2")
HERE, THERE = ParallelLayout(tp=2, gpu="h100_sxm"), ParallelLayout(tp=1, gpu="a100_sxm")


def trial(layout, release="0.29.0"):
    step = StepResult(
        LoadStep(0, 2.0, 30.0, 0), 100, 100, 0, 30.0, {}, {(Metric.TTFT, 95.0): 500.0}, None, None, None, None, {}
    )
    launched = Launched("ray-serve", {"vllm": release, "ray": "2.60.0"}, "model", NoEngine("nothing"))
    return TrialResult(0, layout, TrialState.MEASURED, (step,), seconds=60.0, ready_after_s=60.0, launched=launched)


class Kept:
    """A store with a study and a round on the nodes of one group."""

    def __init__(self, **changes):
        asked = {"s": DOCUMENT, "s.r2": DOCUMENT | {"cluster": GROUPS[1]} | changes}
        self.asked = {name: parse_request(document) for name, document in asked.items()}
        self.trials = {"s": (trial(HERE),), "s.r2": (trial(replace(THERE, gpu=None)),)}
        self.rounds = SimpleNamespace(base_of=lambda _: "s")

    def study(self, name):
        return SimpleNamespace(name=name, request=self.asked[name], created_at=0.0, ranked=())

    def snapshot(self, name):
        return SimpleNamespace(finished=self.trials[name])


@pytest.mark.slow
@pytest.mark.parametrize("study", ROUNDS)
def test_what_serves_is_judged_whatever_nodes_the_last_round_had(study):
    layout = HERE if study == "s" else replace(THERE, gpu=None)
    live = replace(a_live("s-d1"), deployment=layout, study=study)
    situation = Situation(1e6, moved_s=0.0, unmeasured=True)
    found = judged(Kept(), Case(live, LoadRecord(), (), situation, ROUNDS), POLICY, lambda _: None)
    assert found.judgement.outlook.present.deployment == (HERE if study == "s" else THERE)
    assert found.judgement.outlook.present.measured
    assert [group.gpu for group in found.now.request.groups] == ["h100_sxm", "a100_sxm"]
    nodes = {group.gpu: group.nodes for group in round_of(found).groups}
    assert nodes == ({"h100_sxm": 1, "a100_sxm": 2} if study == "s" else {"h100_sxm": 2, "a100_sxm": 1})


def test_trials_of_all_rounds_are_known_by_their_names_in_the_whole():
    store = Kept()
    assert [one.deployment for one in trials_of(store, ROUNDS, whole_request(store, ROUNDS))] == [HERE, THERE]
    assert measured(store, ROUNDS, THERE) == ("s.r2", store.trials["s.r2"][0])
    assert measured(store, ROUNDS, HERE) == ("s", store.trials["s"][0])
    assert measured(store, ROUNDS, replace(HERE, dp=2)) == ("s.r2", None)


def test_trials_of_another_load_or_an_older_engine_say_nothing():
    other = Kept(workload=DOCUMENT["workload"] | {"prompt_tokens": 64})
    assert [one.deployment for one in trials_of(other, ROUNDS, whole_request(other, ROUNDS))] == [THERE]
    store = Kept()
    store.trials["s"] = (trial(HERE, "0.28.0"),)
    assert [one.deployment for one in trials_of(store, ROUNDS, whole_request(store, ROUNDS))] == [THERE]
