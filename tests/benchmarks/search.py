"""How few launches the search needs: 24 tuning problems on a simulated cluster, and 16 that were kept back, beside the
stop rule of before and search without a model.

    python -m tests.benchmarks.search [--quick] [--slow] [--only before|peers|overhead] [--world WORLD] [--draw N]
                                      [--out FILE]

Legal layouts are measured without noise first (cached outside the repository), as many as it takes to know the true
optimum over all of them. Then all strategies search the same worlds under the same noise: where the model's prices are
right, and where every cost term is off by a random factor (standard deviation 30 or 50 % on a log scale).
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.benchmarks.search_before import StopByChance
from tests.benchmarks.search_kept_back import FIRST, KEPT_BACK
from tests.benchmarks.search_peers import PEERS, Run, parlay
from tests.benchmarks.search_problems import COUNT, Problem, problem
from tuner.ask.cluster import Cluster
from tuner.ask.model import load_model
from tuner.ask.request_document import parse_request
from tuner.ask.space import load_space
from tuner.plan.prune import plan
from tuner.rehearse.conditions import Conditions
from tuner.search.belief_strategy import BeliefStrategy
from tuner.search.search import Search
from tuner.trial.results import TrialResult, TrialState

NOISE = 0.02  # standard deviation of a factor on a whole load step
WORLDS = {"calibrated": 0.0, "distorted": 0.3, "far off": 0.5}
SETS = {"known": range(COUNT), "kept back": range(FIRST, FIRST + len(KEPT_BACK))}
WITH_PEERS = ("calibrated", "distorted")  # worlds in which the peers search, too
WITHIN = 0.03
BUDGET = 12
PEER_LAUNCHES = 30
SLOW = ("GP",)  # seconds per proposal: with --slow, on every third problem


@dataclass(frozen=True)
class Scores:
    """Runs of one strategy in one world."""

    name: str
    runs: tuple[Run, ...]

    def row(self) -> str:
        """Its line of the table."""
        launches = [run.launches_to(WITHIN) for run in self.runs]
        regret = [run.final(BUDGET) for run in self.runs]
        gpu_s = [run.gpu_s_to(WITHIN) for run in self.runs]
        cells = [
            self.name,
            f"{_count(np.median(launches))} / {_count(max(launches))}",
            _count(float(np.median(gpu_s))),
            f"{_share(np.median(regret))} / {_share(_p95(regret))}",
            f"{np.mean([regret <= WITHIN for regret in regret]):.0%}",
        ]
        return "| " + " | ".join(cells) + " |"


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(math.ceil(0.95 * len(values)), len(values)) - 1]


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else f"> {PEER_LAUNCHES}"


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "misses the SLO"


@dataclass(frozen=True)
class Study:
    """One study by our search, and by the stop rule of before."""

    ours: Run
    before: Run
    kept: bool

    @property
    def share(self) -> float:
        """GPU-seconds of the whole study, as a share of those of before."""
        return self.ours.gpu_s[-1] / self.before.gpu_s[-1]


def studies(quick: bool, worlds: Sequence[str], draw: int) -> list[str]:
    """Whole studies in some worlds, from the first launch to the answer: the table, as lines. Every ``draw`` has
    factors and noise of its own."""
    lines = [
        "### Whole studies, to the answer",
        "",
        "| problems, prices off by | studies | launches, mean / worst | before | regret, worst | before | "
        "optimum dropped | GPU-s ÷ before, median | in sum |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    everything = list[Study]()
    for name, numbers in SETS.items():
        for world in worlds:
            error = WORLDS[world]
            found = [_study(world, number, error, draw) for number in numbers[:: 3 if quick else 1]]
            lines.append(_studies_row(f"{name}, {error:.0%}", found))
            everything += found
    return [*lines, _studies_row("all", everything), ""]


def _study(world: str, number: int, error: float, draw: int) -> Study:
    found = problem(number, Conditions(seed=number + 1000 * draw if error else 0, term_error=error))
    ours, before = parlay(found, NOISE, draw, BUDGET), parlay(found, NOISE, draw, BUDGET, StopByChance.of)
    study = Study(ours, before, found.optimum_kept)
    found.truth.keep()
    print(
        f"{world} {found.name}: ended after {len(ours.regrets)} launches with {_share(ours.final(BUDGET))}, before "
        f"after {len(before.regrets)} with {_share(before.final(BUDGET))}; GPU-seconds {study.share:.2f} of before"
        f"{'' if study.kept else ' OPTIMUM DROPPED'}",
        flush=True,
    )
    return study


def _studies_row(name: str, found: Sequence[Study]) -> str:
    ours, before = [s.ours for s in found], [s.before for s in found]
    cells = [
        name,
        str(len(found)),
        *(_launches(runs) for runs in (ours, before)),
        *(_share(max(run.final(BUDGET) for run in runs)) for runs in (ours, before)),
        str(sum(not study.kept for study in found)),
        f"{np.median([study.share for study in found]):.2f}",
        f"{sum(run.gpu_s[-1] for run in ours) / sum(run.gpu_s[-1] for run in before):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _launches(runs: Sequence[Run]) -> str:
    counts = [len(run.regrets) for run in runs]
    return f"{np.mean(counts):.1f} / {max(counts)}"


def compare(quick: bool, seeds: int, slow: bool) -> list[str]:
    """The table of each world, as lines."""
    lines = []
    for world in WITH_PEERS:
        error = WORLDS[world]
        runs: dict[str, dict[int, Run]] = {"parlay": {}, **{name: {} for name in PEERS if slow or name not in SLOW}}
        kept = count = 0
        for number in range(0, COUNT, 3 if quick else 1):
            for seed in range(seeds):
                found = problem(number, Conditions(seed=number + 100 * seed if error else 0, term_error=error))
                kept += found.optimum_kept
                for name, own in runs.items():
                    if name not in SLOW or number % 3 == 0:
                        own[count] = _strategy(name, found, seed)
                _tell(world, found, {name: own[count] for name, own in runs.items() if count in own})
                count += 1
        peer, share = _best_peer(runs)
        lines += [
            f"### {world.capitalize()} predictor ({count // seeds} problems, {seeds} run(s) of each)",
            "",
            "| strategy | launches to within 3 %, median / worst | GPU-s to that point, median | "
            f"final regret after {BUDGET} launches, median / p95 | ended within 3 % |",
            "|---|---|---|---|---|",
            *(Scores(f"{name} ({len(own)} runs)", tuple(own.values())).row() for name, own in runs.items()),
            "",
            f"GPU-seconds of parlay ÷ those of the best peer ({peer}), summed over the same problems: {share:.2f} "
            "(a run that never got there counts with all that it spent).",
            f"Optimum dropped before launch: {count - kept} of {count}.",
            "",
        ]
    return lines


def _strategy(name: str, found: Problem, seed: int) -> Run:
    if name == "parlay":
        return parlay(found, NOISE, seed, BUDGET)
    return PEERS[name](found, NOISE, seed, PEER_LAUNCHES)


def _best_peer(runs: dict[str, dict[int, Run]]) -> tuple[str, float]:
    """The peer that comes nearest to our GPU-seconds to within 3 %, and ours as a share of its."""

    def spent(run: Run) -> float:
        return run.gpu_s_to(WITHIN) if run.launches_to(WITHIN) < math.inf else run.gpu_s[-1]

    ours = runs["parlay"]
    shares = {
        name: sum(spent(ours[i]) for i in runs[name]) / sum(map(spent, runs[name].values()))
        for name in runs
        if name != "parlay"
    }
    best = max(shares, key=lambda name: shares[name])
    return best, shares[best]


def _tell(world: str, found: Problem, runs: dict[str, Run]) -> None:
    words = " ".join(f"{name} {_count(run.launches_to(WITHIN))}" for name, run in runs.items())
    ours = runs["parlay"]
    launches, regret = len(ours.regrets), _share(ours.final(BUDGET))
    dropped = "" if found.optimum_kept else " OPTIMUM DROPPED"
    seconds = sum(run.seconds for run in runs.values())
    print(f"{world} {found.name}: {words}; ended after {launches} with {regret}{dropped}, {seconds:.0f} s", flush=True)


def overhead(count: int = 16_384) -> str:
    """Time of one ask after a trial, with so many candidates."""
    document = {
        "model": "meta-llama/Llama-3.1-8B",
        "cluster": {"gpu": "h100_sxm", "nodes": 4, "gpus_per_node": 8},
        "workload": {"prompt_tokens": 1024, "output_tokens": 128, "arrival": {"requests_per_s": 60}},
        "slo": [{"metric": "ttft", "percentile": 95, "ms": 200}, {"metric": "tpot", "percentile": 95, "ms": 20}],
        "objective": "max_goodput",
        "space": {
            "tp": [1, 2, 4, 8], "pp": [1, 2, 4], "dp": [1, 2, 4, 8, 16, 32], "executor": ["mp", "ray"],
            "max_num_batched_tokens": list(range(1024, 16384, 1024)), "max_num_seqs": list(range(16, 1024, 32)),
        },
    }  # fmt: skip
    request = parse_request(document)
    model, cluster = load_model(request.model), Cluster.from_spec(request.cluster)  # type: ignore[arg-type]
    ranked = plan(request, model, cluster, load_space(request.space), count).ranked
    started = time.perf_counter()
    strategy = BeliefStrategy.of(request, ranked, model, cluster)
    made_ms = (time.perf_counter() - started) * 1e3
    found = problem(0, Conditions())
    best = next(c.layout for c in found.planned.ranked if np.isfinite(found.value(c.layout)))
    steps = found.trial(0, best, 0, 0.0, 0).steps
    times, search = [], Search(request, ranked, strategy)
    for number in range(5):
        started = time.perf_counter()
        proposal = search.ask()
        times.append((time.perf_counter() - started) * 1e3)
        if proposal is None:
            break
        slow = tuple(replace(s, step=replace(s.step, rate_req_per_s=r))
                     for s, r in zip(steps, request.rates_req_per_s, strict=False))  # fmt: skip
        search.tell(TrialResult(number, proposal.layout, TrialState.MEASURED, slow))
    return (
        f"Overhead between trials at {len(ranked):,} candidates: median {np.median(times):.0f} ms, "
        f"worst {max(times):.0f} ms (and {made_ms:.0f} ms once, for the prices)."
    )


def machine() -> str:
    """Where the times come from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{cpu}, one process, Python {platform.python_version()}; the clusters are simulated"


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every third problem, one noise seed")
    parser.add_argument(
        "--seeds", type=int, default=1, help="runs of each problem, every one with noise and term factors of its own"
    )
    parser.add_argument("--slow", action="store_true", help="the GP sampler, too, on every third problem")
    parser.add_argument("--only", choices=("before", "peers", "overhead"))
    parser.add_argument("--world", choices=tuple(WORLDS), help="whole studies in this one alone")
    parser.add_argument("--draw", type=int, default=0, help="of the factors and the noise of whole studies")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    lines = ["# Search economy", "", f"`python -m tests.benchmarks.search`, on {machine()}.", ""]
    if chosen.only in (None, "before"):
        lines += studies(chosen.quick, [chosen.world] if chosen.world else list(WORLDS), chosen.draw)
    if chosen.only in (None, "peers"):
        lines += compare(chosen.quick, chosen.seeds, chosen.slow)
    if chosen.only in (None, "overhead"):
        lines += [overhead(), ""]
    print("\n".join(lines))
    if chosen.out is not None:
        chosen.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
