"""Would another layout win, and by how much? And nothing of it can be launched."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.fakes import document, make_request
from tuner.app.answers.plan import plan_answer
from tuner.app.answers.what_if import what_if_answer
from tuner.app.cli.tables import what_if_tables
from tuner.app.wiring import memories
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.ask.space import load_space
from tuner.cost.techniques import parse_techniques
from tuner.errors import BadInput
from tuner.plan.prune import Plan, plan
from tuner.plan.what_if import PricedLayout, what_if

ROOT = Path(__file__).parents[2]
DENSE = {
    "model": "meta-llama/Llama-3.1-70B",
    "cluster.nodes": 4,
    "workload.prompt_tokens": 8192,
    "workload.output_tokens": 256,
    "workload.arrival.requests_per_s": 1,
    "slo.0.ms": 20_000,
    "slo.1.ms": 200,
    "objective": "min_latency",
    "space": {"tp": [8, 16], "pp": [1, 2], "dp": [1, 2], "pcp": [1, 4], "executor": ["ray"]},
}
LONG = {
    **DENSE,
    "workload.prompt_tokens": 65_536,
    "workload.arrival.requests_per_s": 0.1,
    "space": {"tp": [8], "pp": [1, 2], "pcp": [1, 4], "executor": ["ray"], "max_num_batched_tokens": [65_536]},
}
EXPERTS = {
    **DENSE,
    "model": "deepseek-ai/DeepSeek-V3",
    "workload.prompt_tokens": 2048,
    "objective": "max_goodput",
    "space": {
        "tp": [1, 8],
        "pp": [1, 2],
        "dp": [1, 4, 16, 32],
        "ep": [True],
        "executor": ["ray"],
        "all2all": ["allgather_reducescatter", "deepep_high_throughput"],
    },
}


def asked(changes, *given):
    request = make_request(changes)
    return request, load_model(request.model), Cluster.from_spec(request.cluster), load_space(request.space), given


KNOWN = {}


def once(make, changes, given):
    """An answer, made once per question: they are frozen."""
    key = (make, json.dumps(changes), given)
    if key not in KNOWN:
        *question, words = asked(changes, *given)
        KNOWN[key] = make(*question, techniques=parse_techniques(words))
    return KNOWN[key]


def supposed(changes, *given):
    return once(what_if, changes, given)


def planned(changes, *given):
    return once(plan, changes, given)


CASES = [
    (DENSE, ("nvrar",)),
    (DENSE, ("spd=0.5", "nvrar", "tp2d=2x8")),
    (DENSE, ("ring-attention", "hpipe=4")),
    ({**DENSE, "objective": "min_gpus"}, ("spd=1",)),
    ({**DENSE, "objective": "max_goodput"}, ("dda", "spd=1")),
    (LONG, ("ring-attention",)),
    (EXPERTS, ("s-moe=0.7", "dynamic-gating")),
    (EXPERTS, ("expert-buffering=0.9",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "given"), CASES)
def test_the_answer_is_what_the_plans_say(changes, given):
    found = supposed(changes, *given)
    alone = [(name,) for name in parse_techniques(given).names]
    expected = alone if len(given) == 1 else [*alone, parse_techniques(given).names]
    assert [effect.techniques for effect in found.effects] == expected
    base = planned(changes)
    for effect in found.effects:
        with_them = planned(changes, *effect.techniques)
        same(effect.before, base, base.ranked[0].layout)
        same(effect.before_with, with_them, base.ranked[0].layout)
        same(effect.after, with_them, with_them.ranked[0].layout)
        same(effect.after_without, base, with_them.ranked[0].layout)
        assert effect.another_wins == (base.ranked[0].layout != with_them.ranked[0].layout)
        assert (effect.changed == 0) == (
            [c.prediction for c in base.ranked] == [c.prediction for c in with_them.ranked]
        )


def same(priced: PricedLayout, found: Plan, layout):
    """It is the prediction of a plan, or says why the plan dropped the layout."""
    assert priced.layout == layout
    assert priced.gpus == layout.devices
    prediction = next((c.prediction for c in found.ranked if c.layout == layout), None)
    if prediction is None:
        assert priced.dropped
        assert (priced.ttft_ms, priced.goodput_req_per_s, priced.meets_slo) == (None, None, False)
        return
    assert priced.dropped is None
    for name in ("ttft_ms", "tpot_ms", "goodput_req_per_s", "meets_slo"):
        expected = getattr(prediction, name)
        assert getattr(priced, name) == (pytest.approx(expected, rel=1e-9) if expected is not None else None)


def test_rings_make_another_layout_win():
    """Prefill context parallelism with KV heads, which the engine refuses, computes a prompt on four nodes at once."""
    (effect,) = supposed(LONG, "ring-attention").effects
    assert effect.another_wins
    assert effect.after.layout.pcp == 4
    assert "needs latent attention" in effect.after_without.dropped
    assert effect.after.e2e_ms < effect.before.e2e_ms
    assert effect.before_with.e2e_ms == pytest.approx(effect.before.e2e_ms)  # pcp = 1: it has no ring
    figures = effect.figures("e2e_ms")
    assert figures["gain"] == pytest.approx(effect.before.e2e_ms / effect.after.e2e_ms)
    assert figures["gain"] > 1


def test_a_technique_that_acts_on_nothing_says_so():
    found = supposed({**DENSE, "cluster.nodes": 1, "space": {"tp": [4, 8]}}, "nvrar")
    (effect,) = found.effects
    assert (effect.changed, effect.another_wins) == (0, False)
    assert dict(effect.ttft_ms) == dict(effect.tpot_ms) == {}
    assert "changes no layout" in found.summary()[0]
    assert "between nodes" in found.summary()[0]
    assert effect.figures("e2e_ms")["gain"] == 1


def test_the_terms_that_moved_explain_the_change():
    (effect,) = supposed({**DENSE, "space": {"tp": [16], "executor": ["ray"]}}, "spd=0.5").effects
    assert set(effect.tpot_ms) | set(effect.ttft_ms) == {"allreduce tensor between nodes"}
    for without, with_it in (*effect.tpot_ms.values(), *effect.ttft_ms.values()):
        assert with_it < without


def test_memory_that_buffering_frees_can_let_a_model_fit():
    tight = {**EXPERTS, "cluster.nodes": 1, "space": {"tp": [8], "ep": [True]}, "slo.1.ms": 100_000, "slo.0.ms": 1e6}
    assert planned(tight).ranked == ()
    found = supposed(tight, "expert-buffering=0.25")
    (effect,) = found.effects
    assert effect.before is None
    assert effect.after is not None
    assert "GiB exceed" in effect.after_without.dropped
    assert "is left, where nothing was" in found.summary()[0]


@pytest.mark.slow
def test_a_gain_from_nothing_has_no_ratio():
    (effect,) = supposed(EXPERTS, "s-moe=0.5").effects
    assert effect.figures("goodput_req_per_s")["gain"] >= 1
    for name in ("before", "after"):
        none = replace(effect, **{name: replace(getattr(effect, name), goodput_req_per_s=0.0)})
        assert none.figures("goodput_req_per_s")["gain"] is None
        dropped = replace(effect, **{name: None})
        assert dropped.figures("goodput_req_per_s")["gain"] is None


@pytest.mark.slow
def test_several_at_once_are_answered_together_too():
    *alone, together = supposed(DENSE, "spd=0.5", "nvrar").effects
    assert not together.exact
    assert [effect.exact for effect in alone] == [False, True]
    assert together.after.e2e_ms <= min(effect.after.e2e_ms for effect in alone)


@pytest.mark.parametrize(
    ("changes", "given", "allowed"),
    [
        (DENSE, (), "at least one technique"),
        (DENSE, ("s-moe=0.5",), "a mixture-of-experts model"),
        (EXPERTS, ("tp2d=2x8",), "a dense model"),
        ({**DENSE, "space": {"tp": [3]}}, ("nvrar",), "at least one layout that fits"),
    ],
)
def test_a_question_without_sense_is_refused(changes, given, allowed):
    with pytest.raises(BadInput, match=allowed):
        supposed(changes, *given)


@pytest.mark.slow
def test_a_plan_that_supposes_says_so():
    real, thought = planned(DENSE), planned(DENSE, "nvrar", "spd=0.5")
    assert real.what_if == ()
    assert {candidate.what_if for candidate in real.ranked} == {()}
    assert thought.what_if == ("spd=0.5", "nvrar")
    assert {candidate.what_if for candidate in thought.ranked} == {("spd=0.5", "nvrar")}


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "given"), CASES)
def test_the_answer_is_json_that_nothing_can_be_emitted_from(changes, given):
    found = supposed(changes, *given)
    answer = json.loads(what_if_answer(found).to_json())
    assert answer["emittable"] is False
    assert {one["emittable"] for one in answer["techniques"]} == {False}
    assert all(one["why_not_emittable"] and one["source"] and one["outputs"] for one in answer["techniques"])
    for told, effect in zip(answer["effects"], found.effects, strict=True):
        assert told["best_with"]["layout"] == str(effect.after.layout)
        assert told[answer["figure"]]["best_with"] == told["best_with"][answer["figure"]]
        assert set(told["best_without"]) == {f.name for f in fields(PricedLayout)}


@pytest.mark.slow
def test_the_table_shows_old_and_new_winner():
    found, console = supposed(LONG, "ring-attention", "nvrar"), Console(width=250)
    with console.capture() as capture:
        what_if_tables(console, found, planned(LONG))
    text = capture.get()
    assert "wins now" in text
    assert "pcp=4" in text
    assert "arXiv 2411.01783" in text
    assert "vLLM cannot run it" in text


def parlay(tmp_path, *arguments):
    (tmp_path / "request.json").write_text(json.dumps(document(LONG)))
    code = "import sys; from tuner.app.cli.commands import main; sys.argv = ['parlay', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", code, "plan", "request.json", *arguments]
    environment = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_plan_answers_what_if(tmp_path):
    done = parlay(tmp_path, "--what-if", "ring-attention", "--what-if", "spd=0.5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    effects = answer["what_if"]["effects"]
    assert [effect["techniques"] for effect in effects] == [
        ["spd=0.5"],
        ["ring-attention"],
        ["spd=0.5", "ring-attention"],
    ]
    assert effects[0]["best_without"]["layout"] == answer["ranked"][0]["layout"]
    assert effects[1]["another_layout_wins"] is True


def test_plan_without_a_question_supposes_nothing():
    found = planned(DENSE)
    held = memories(make_request(DENSE), [candidate.layout for candidate in found.ranked])
    assert plan_answer(found, make_request(DENSE), {}, held).what_if is None


@pytest.mark.slow
def test_plan_refuses_an_unknown_technique(tmp_path):
    done = parlay(tmp_path, "--what-if", "warp-drive")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("parlay: error: --what-if: got")
