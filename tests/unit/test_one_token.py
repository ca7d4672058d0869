"""Answers of one token have neither TPOT nor ITL: one rule in plan, simulate, measure and tune."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from serve.load.request_sample import Outcome, Sample
from serve.measure.summary import figures
from tests.fakes import document, make_request
from tuner.app.cli.commands import main
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.rate_finder import RateFinder
from tuner.app.measure.sweep import Sweep
from tuner.app.simulate import SimulateOptions, simulate_answer
from tuner.ask.arrivals import OfferedLoad
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import SloTarget
from tuner.ask.request_document import parse_request
from tuner.ask.slo import Verdict
from tuner.ask.space import Space
from tuner.cost.latency import StepCosts
from tuner.errors import BadInput
from tuner.plan.prune import plan
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.simulate import SimulationSettings, simulate
from tuner.trial.results import LoadStep
from tuner.trial.seams import LaunchOrder, Watch

EVERY, ONE, MIXED = [3, 3, 3, 3], [1, 1, 1, 1], [1, 3, 1, 3]
LAYOUT = ParallelLayout()


def request(metric, ms, tokens):
    """A request with one target, and lengths of which each of ``tokens`` is possible."""
    lengths = {"mean": (min(tokens) + max(tokens)) // 2, "min": min(tokens), "max": max(tokens)}
    slo = [{"metric": metric, "percentile": 99, "ms": ms}]
    return document({"workload.output_tokens": lengths, "slo": slo, "attainment": 0.9})


def load(tokens):
    count = len(tokens)
    return OfferedLoad(np.arange(count) / 10, np.full(count, 16), np.array(tokens))


def planned(metric, ms, tokens, _):
    asked = parse_request(request(metric, ms, tokens))
    point = Space("one", {"tp": (1,)})
    found = plan(asked, load_model(asked.model), Cluster.from_spec(asked.cluster), point)
    return (Verdict.MET if found.ranked and found.ranked[0].prediction.meets_slo else Verdict.MISSED), None


def simulated(metric, ms, tokens, _):
    asked = make_request()
    costs = StepCosts(load_model(asked.model), Cluster.from_spec(asked.cluster))
    slo = (SloTarget(metric=metric, percentile=99, ms=ms),)
    settings = SimulationSettings.for_slo(asked.workload, slo)
    found = simulate(costs, LAYOUT, load(tokens), kv_tokens=10_000, settings=settings)
    return found.verdict(slo, 0.9), found.attainment(slo)


def measured(metric, ms, tokens, _):
    def sample(index, count):
        chunks = tuple(index / 10 + 0.05 * (number + 1) for number in range(count))
        return Sample(index, index / 10, index / 10, index / 10, chunks, chunks[-1], 16, count, Outcome.OK)

    samples = [sample(index, count) for index, count in enumerate(tokens)]
    found = figures(samples, (SloTarget(metric=metric, percentile=99, ms=ms),), 1.0, attainment=0.9)
    return found.verdict, found.attainment


def tuned(metric, ms, tokens, monkeypatch):
    """A trial on the simulated cluster whose load step has just these lengths."""
    asked = parse_request(request(metric, ms, [1, 3]))
    world = SimulatedCluster(Cluster.from_spec(asked.cluster))
    monkeypatch.setattr("tuner.rehearse.meter.offered", lambda *_: load(tokens))
    deployment = SimulatedLauncher(world).launch(LaunchOrder("s", 0, "app", LAYOUT, asked, None), Watch())
    found = SimulatedMeter(world).measure(deployment, LoadStep(0, 10.0, 1.0, 1), asked, Watch())
    return found.verdict(asked), found.attainment


ROADS = {"plan": planned, "simulate": simulated, "measure": measured, "tune": tuned}
LOOSE_MS, TIGHT_MS = 1e6, 1e-6


CASES = (
    (EVERY, LOOSE_MS, Verdict.MET, 1.0),
    (EVERY, TIGHT_MS, Verdict.MISSED, 0.0),
    (MIXED, LOOSE_MS, Verdict.MET, 1.0),
    (MIXED, TIGHT_MS, Verdict.MISSED, 0.5),  # those of one token met it
    (ONE, LOOSE_MS, Verdict.UNKNOWN, 1.0),
    (ONE, TIGHT_MS, Verdict.UNKNOWN, 1.0),
)


@pytest.mark.parametrize("metric", ["tpot", "itl"])
@pytest.mark.parametrize(
    ("road", "tokens", "ms", "expected", "attainment"),
    [(road, *case) for road in ROADS for case in CASES if road != "plan" or case[0] is not ONE],  # it refuses ONE
)
def test_one_token_neither_meets_nor_misses(road, tokens, ms, expected, attainment, metric, monkeypatch):
    found, share = ROADS[road](metric, ms, tokens, monkeypatch)
    assert found is expected
    assert share in (None, attainment)


CASE = Path(__file__).parents[1] / "data" / "cases" / "one_token_tpot" / "request.yaml"


@pytest.mark.parametrize("metric", ["tpot", "itl"])
@pytest.mark.parametrize(
    "tokens", [1, {"mean": 1}, {"mean": 1, "min": 1, "max": 1}, "a trace", "a trace that is cut to one token"]
)
def test_every_way_to_say_one_token_is_refused(tokens, metric, tmp_path):
    asked = yaml.safe_load(CASE.read_text()) | {"slo": [{"metric": metric, "percentile": 99, "ms": 200}]}
    if isinstance(tokens, str):
        cut = "cut" in tokens
        (tmp_path / "t.csv").write_text(f"timestamp,prompt_tokens,output_tokens\n0,16,{9 if cut else 1}\n1,1,1\n")
        arrival = {"process": "trace", "trace": "t.csv", "too_long": "truncate"}
        asked |= {"workload": {"arrival": arrival}, "engine": {"max_model_len": 2 if cut else 99}}
    else:
        asked["workload"]["output_tokens"] = tokens
    with pytest.raises(BadInput, match=f"slo: got '{metric} p99 ≤ 200 ms'.*one output token"):
        parse_request(asked, folder=tmp_path)


def test_a_mixture_with_one_longer_answer_is_judged_by_it(tmp_path):
    (tmp_path / "t.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,16,1\n1,16,1\n2,16,5\n3,16,1\n")
    asked = yaml.safe_load(CASE.read_text()) | {"workload": {"arrival": {"process": "trace", "trace": "t.csv"}}}
    answer = simulate_answer(parse_request(asked, folder=tmp_path), SimulateOptions(LAYOUT))
    assert answer.slo[1].ms == answer.tpot_ms.p99 == answer.tpot_ms.p50
    assert answer.tpot_ms.mean == pytest.approx(answer.tpot_ms.p50)
    assert (answer.meets_slo, answer.attainment) == (True, 1.0)


WORDS = {
    "plan": ("plan", "request.yaml"),
    "simulate": ("simulate", "request.yaml", "--layout", "tp=1"),
    "tune": ("tune", "request.yaml"),
    "tune a rehearsal": ("tune", "request.yaml", "--launcher", "simulated", "--simulated-seed", "3", "--study", "one"),
    "plan simulated": ("plan", "request.yaml", "--simulate", "3"),
    "simulate a closed loop": ("simulate", "request.yaml", "--layout", "tp=1", "--users", "4"),
    "measure": ("measure", "http://127.0.0.1:9", "--output-tokens", "1", "--slo"),
    "measure a search": ("measure", "http://127.0.0.1:9", "--find-rate", "--output-tokens", "1", "--slo"),
}


@pytest.mark.parametrize("metric", ["tpot", "itl"])
@pytest.mark.parametrize("road", WORDS)
def test_where_every_answer_has_one_token_the_target_is_refused(road, metric, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "request.yaml").write_text(yaml.safe_dump(request(metric, 30, ONE)))
    target = (f"{metric}:p99:30",) if road.startswith("measure") else ()
    monkeypatch.setattr(sys, "argv", ["parlay", *WORDS[road], *target])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    where = "--slo" if road.startswith("measure") else "request.yaml: slo"
    assert where in said
    for words in (f"{metric} p99 ≤ 30 ms", "targets of ttft or e2e", "one output token"):
        assert words in said


@pytest.mark.parametrize("metric", ["ttft", "e2e"])
def test_what_one_token_has_may_be_asked_of_it(metric):
    assert parse_request(request(metric, 30, ONE)).slo
    slo = (SloTarget.parse(f"{metric}:p99:30"),)
    for source in (Sweep, RateFinder):
        assert source(MeasureOptions("http://h", output_tokens="1"), slo).ask() is not None


def test_a_trace_of_single_tokens_is_refused_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.csv").write_text("timestamp,prompt_tokens,output_tokens\n0,16,1\n1,16,1\n")
    (tmp_path / "request.yaml").write_text(yaml.safe_dump(request("tpot", 30, MIXED)))
    simulate_words = ("simulate", "request.yaml", "--layout", "tp=1", "--trace", "trace.csv")
    measure_words = ("measure", "http://127.0.0.1:9", "--trace", "trace.csv", "--slo", "tpot:p99:30")
    for words in (simulate_words, measure_words):
        monkeypatch.setattr(sys, "argv", ["parlay", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert "one output token" in capsys.readouterr().err
