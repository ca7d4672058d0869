"""Small requests whose answers are kept as golden files: a case is a name and what makes its answer, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from tests.fakes import NOTHING_SPENT, copy_of_empty_store, document, make_candidate, make_request, make_step
from tests.measure_sample import SLO, measured_run
from tuner.app.answers.decision import decision_answer
from tuner.app.cli.commands import app
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.run import Measured, measure_answer
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.ask.rules import DropReason
from tuner.ask.slo import Verdict
from tuner.decide.decision import decide
from tuner.errors import FailureReason
from tuner.plan.prune import DroppedGroup
from tuner.stats.intervals import Quantiles
from tuner.stats.rate_search import RateFound, SearchEnd
from tuner.trial.results import LoadStep, TrialResult, TrialState

GOLDEN = Path(__file__).parent / "golden" / "answers"
DATA = Path(__file__).parent / "data"
LLAMA = ("--model", "meta-llama/Llama-3.1-8B")
FEW = {"tp": [1, 2], "dp": [1, 3], "pp": [1], "max_num_seqs": [256]}
PLANS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "plan": ({"space": FEW, "cluster.usd_per_gpu_hour": 2.5}, ()),
    "plan-simulated": ({"space": {"tp": [1, 2]}}, ("--simulate", "1")),
    "plan-infeasible": ({"space": FEW, "slo.0.ms": 2.0}, ()),
    "plan-too-fast": ({"space": FEW, "workload.arrival.requests_per_s": 1e5}, ()),
    "plan-nothing-fits": (
        {"space": FEW, "model": "meta-llama/Llama-3.1-405B", "cluster.gpus_per_node": 2}, (),
    ),
    "plan-several-gpus": (
        {"space": {"tp": [1]}, "cluster": [
            {"gpu": "h100_sxm", "gpus_per_node": 1}, {"gpu": "a100_sxm", "gpus_per_node": 1}
        ]}, (),
    ),
    "plan-what-if": (
        {"space": {"tp": [8, 16], "executor": ["ray"]}, "cluster.nodes": 2, "objective": "min_latency"},
        ("--what-if", "nvrar", "--what-if", "spd=0.5"),
    ),
    "plan-what-if-goodput": (
        {"space": {"tp": [2, 16], "executor": ["ray"]}, "cluster.nodes": 2, "objective": "max_goodput"},
        ("--what-if", "nvrar"),
    ),
}  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "volume": ("volume", *LLAMA, "--tp", "2", "--pp", "2", "--prompt-tokens", "128", "--engine", "v0"),
    "volume-one-device": ("volume", *LLAMA),
    "volume-experts": ("volume", "--model", "Qwen/Qwen3-30B-A3B", "--layout", "tp=2,dp=2,ep=true"),
    "collective": ("collective", "--operation", "allreduce", "--bytes", "131072", "--ranks", "8"),
    "collective-plain": (
        "collective", "--operation", "allgather", "--bytes", "1048576", "--ranks", "8", "--nodes", "2",
        "--alpha-us", "1.5", "--gb-per-s", "25",
    ),
    "validate-gemm": ("validate", str(DATA / "kernels" / "gemm.csv")),
    "validate-runs": ("validate", str(DATA / "runs.csv")),
}  # fmt: skip
LOAD = {"workload.prompt_tokens": 512, "workload.output_tokens": 64}
SIMULATIONS: dict[str, tuple[str, ...]] = {
    "simulate": ("--layout", "tp=1,dp=2", "--requests", "100"),
    "simulate-users": ("--layout", "tp=1", "--users", "5", "--requests", "100"),
    "simulate-pools": ("--prefill-layout", "tp=2", "--decode-layout", "tp=1,dp=2", "--requests", "100"),
}
STUDY = {
    "load.seconds": 3, "load.warmup_seconds": 0, "budget.launches": 3, "budget.usd": 50.0, "attainment": 0.9,
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 500}, {"metric": "tpot", "percentile": 90, "ms": 50}],
    "space": {"tp": [1, 2, 3], "dp": [1, 2]},
}  # fmt: skip
STUDIES = {"feasible": STUDY, "hopeless": STUDY | {"slo.0.ms": 2.0}}


def _json(*words: str) -> Any:
    """What a command answers; exit code 3 (nothing meets the SLO) is an answer too."""
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.stdout, (words, done.exception)
    return json.loads(done.stdout, object_hook=_versionless)


def _versionless(answer: dict[str, Any]) -> dict[str, Any]:
    """Without the versions that happen to be installed here."""
    return answer | {"versions": dict.fromkeys(answer["versions"], "1.0")} if "versions" in answer else answer


def _timeless(answer: Any) -> Any:
    """Without the seconds of this machine."""
    return answer | {"seconds": 0.0} if "seconds" in answer else answer


def _request(folder: Path, changes: Mapping[str, Any]) -> str:
    path = folder / "request.yaml"
    path.write_text(yaml.safe_dump(document(changes)))
    return str(path)


def light_answers(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, what makes the answer) of every command that launches nothing."""
    for name, (changes, options) in PLANS.items():
        yield name, lambda c=changes, o=options: _timeless(_json("plan", _request(folder, c), *o))
    for name, words in WORDS.items():
        yield name, lambda w=words: _json(*w)
    for name, options in SIMULATIONS.items():
        yield name, lambda o=options: _timeless(_json("simulate", _request(folder, LOAD), *o))
    yield "measure", lambda: _measured(None)
    yield "measure-find-rate", lambda: _measured(RateFound(4.0, 3.5, None, 3, SearchEnd.HIGHEST_PASSES))
    yield "tune-partly-failed", _partly_failed


def study_answers(folder: Path) -> Iterator[tuple[str, Any]]:
    """(name, answer) of all that is told of a study which a simulated cluster was tuned in, and of its files."""
    (folder / "out").mkdir()
    where = ("--out", "out", "--store", copy_of_empty_store(folder / "out" / "parlay.db"))
    for study, changes in STUDIES.items():
        tuned = _json("tune", _request(folder, changes), "--launcher", "simulated", "--study", study, *where)
        yield f"tune-{study}", tuned
        yield f"show-{study}", _json("show", study, *where)
        yield f"explain-{study}", _json("explain", study, *where)
    yield "explain-dropped", _json("explain", "feasible", "--layout", "tp=3", *where)
    yield "explain-kept", _json("explain", "feasible", "--layout", "tp=2", *where)


def _partly_failed() -> Any:
    """A decision over a measured, a failed and a stopped trial; the last one's only answer was one token long."""
    request = make_request({"attainment": None})
    ttft, tpot = request.slo
    good = tuple(make_step(LoadStep(i, 4.0 * (i + 1), 1.0, i), request, 20.0 + i) for i in range(2))
    short = replace(
        make_step(LoadStep(0, 4.0, 1.0, 0), request, 30.0),
        latency={Metric.TTFT: Quantiles(1, 30.0, 30.0, 30.0, 30.0, 30.0)},
        slo_values_ms={ttft.key: 30.0, tpot.key: None},
        slo_intervals_ms={ttft.key: (25.0, 40.0), tpot.key: None},
        attainment=None,
        goodput_req_per_s=None,
        output_tok_per_s=None,
        schedule_lag_p99_ms=None,
        ended_early=Verdict.MISSED,
        invalid="the client used 99% of a core",
        engine={"waiting_mean": 0.5},
        offered_s=0.5,
    )
    crash = ("INFO started", "CUDA error")
    trials = [
        TrialResult(0, ParallelLayout(tp=1), TrialState.MEASURED, good, ready_after_s=3.5, seconds=9.0, device_s=9.0),
        TrialResult(1, ParallelLayout(tp=2), TrialState.FAILED, (), FailureReason.ENGINE_CRASHED, "exit 1", crash),
        TrialResult(2, ParallelLayout(tp=4), TrialState.STOPPED, (short,), seconds=2.0, device_s=8.0),
    ]
    ranked = [make_candidate("tp=1,pp=1,dp=1"), make_candidate("tp=2,pp=1,dp=1")]
    dropped = [DroppedGroup(DropReason.MEMORY, 3, ParallelLayout(tp=8), "weights 15.00 GiB exceed 10 GiB")]
    decision = replace(
        decide("partly", request, trials, ranked, dropped, NOTHING_SPENT), files={"report": "report.html"}
    )
    return json.loads(decision_answer(decision, request, {"ray": "2.60"}).to_json())


def _measured(found: RateFound | None) -> Any:
    run = measured_run()
    options = MeasureOptions(url=run.endpoint.url)
    measured = Measured(options, run.endpoint, SLO, tuple(run.windows), found, False, 0.0)
    answer = json.loads(measure_answer(measured, {}).to_json())
    return answer if found is None else {"found_rate": answer["found_rate"]}
