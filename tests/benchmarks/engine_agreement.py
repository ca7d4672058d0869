"""Simulated against measured: real vLLM engines on this machine's CPUs, a few layouts under a few loads.

``python -m tests.benchmarks.engine_agreement [--out FILE.json]`` builds the tiny model, launches each
layout as a local vLLM process and measures it with our meter. Three numbers per layout are fitted, to requests that
come one by one to an idle engine: a factor on prefill, one on decode, and the time that a request spends outside of
steps. The loads are predicted with these; none of their own figures is used. ``--from FILE.json`` predicts what was
measured before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serve.launch.local_launcher import LocalProcessLauncher
from serve.measure.http_meter import HttpMeter
from serve.tiny_model import build_tiny_model
from tuner.ask.arrivals import OfferedLoad, offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, load_model
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.request_document import parse_request
from tuner.cost.latency import StepCosts, StepShape, Terms
from tuner.cost.volume import Phase
from tuner.simulate import SimulationResult, SimulationSettings, Simulator
from tuner.stats.intervals import percentile
from tuner.trial.results import LoadStep
from tuner.trial.seams import LaunchOrder, RunningDeployment, Watch

LAYOUTS = ("tp=1", "tp=2", "pp=2", "dp=2")
RATES_REQ_PER_S = (1.0, 2.0, 3.0)
PROBED_PROMPTS = (64, 256)  # tokens
PROBES_PER_S = 0.7  # slower than any answer, so that an engine is idle when the next one comes
OUTPUT_TOKENS = 32
ATTEMPTS = 3
KV_TOKENS = 60_000  # more than any of the loads fills
FIGURES = ((Metric.TTFT, 50), (Metric.TTFT, 99), (Metric.TPOT, 50), (Metric.TPOT, 99))


@dataclass(frozen=True)
class Probes:
    """Medians over requests alone, in ms: TTFT at the shorter and the longer prompt, TPOT over both."""

    short_ttft_ms: float
    long_ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True)
class Point:
    """One load on one layout: measured percentiles in ms, in the order of FIGURES."""

    layout: str
    rate_req_per_s: float
    seconds: float
    seed: int
    requests: int
    measured_ms: tuple[float, ...]
    schedule_lag_p99_ms: float | None
    others_share: float  # of the machine's CPU time in the window that went to other programs


class Fitted(StepCosts):
    """The CPU profile's step prices, with a factor per phase."""

    def __init__(self, model: ModelShape, cluster: Cluster, prefill: float = 1.0, decode: float = 1.0) -> None:
        super().__init__(model, cluster)
        self._factors = {"prefill": prefill, "decode": decode}

    def stages(self, layout: ParallelLayout, step: StepShape) -> list[Terms]:
        """Attention and host are scaled where they are priced."""
        factor, own = self._factors[step.phase], ("attention", "host")
        found = super().stages(layout, step)
        return [{name: ms if name in own else ms * factor for name, ms in terms.items()} for terms in found]

    def attention_ms(self, layout: ParallelLayout, step: StepShape) -> np.ndarray:
        return super().attention_ms(layout, step) * self._factors[step.phase]

    def host_parts(self, phase: Phase, layers: int, moe_layers: int = 0, in_graph: bool = False) -> tuple[float, float]:
        added, launch = super().host_parts(phase, layers, moe_layers, in_graph)
        return added * self._factors[phase], launch * self._factors[phase]


def request_for(model: Path, prompt_tokens: dict[str, int], rate_req_per_s: float, process: str) -> TuneRequest:
    arrival = {"process": process, "requests_per_s": rate_req_per_s}
    return parse_request(
        {
            "model": str(model),
            "cluster": {"gpu": "cpu", "gpus_per_node": 2},
            "workload": {"prompt_tokens": prompt_tokens, "output_tokens": OUTPUT_TOKENS, "arrival": arrival},
            "slo": [{"metric": "ttft", "percentile": 99, "ms": 5000}],
            "engine": {"dtype": "bfloat16", "kv_cache_gib": 1.0, "max_model_len": 512, "start_timeout_s": 400},
        }
    )


def loaded(model: Path, rate_req_per_s: float) -> TuneRequest:
    """Prompts of 64 to 256 tokens, uniform, at Poisson times."""
    return request_for(model, {"mean": 160, "min": 64, "max": 256}, rate_req_per_s, "poisson")


def probe(deployment: RunningDeployment, model: Path, count: int, seed: int) -> Probes:
    """Ask an idle engine, one request after the other."""
    ttft_ms, tpot_ms = [], []
    for prompt in PROBED_PROMPTS:
        samples: dict[Metric, Sequence[float]] = {}
        watch = Watch(samples=samples.update)
        request = request_for(model, {"mean": prompt}, PROBES_PER_S, "constant")
        HttpMeter().measure(deployment, LoadStep(0, PROBES_PER_S, count / PROBES_PER_S, seed), request, watch)
        ttft_ms.append(1e3 * statistics.median(samples[Metric.TTFT]))
        tpot_ms += [1e3 * value for value in samples[Metric.TPOT]]
    return Probes(*ttft_ms, statistics.median(tpot_ms))


def measure_point(
    deployment: RunningDeployment, model: Path, layout: str, rate: float, seconds: float, seed: int
) -> Point:
    """One window; one in which the client was late or the engine restarted is measured again."""
    request, samples = loaded(model, rate), {}
    watch = Watch(samples=samples.update)
    for _ in range(ATTEMPTS):
        before = cpu_seconds()
        result = HttpMeter().measure(deployment, LoadStep(0, rate, seconds, seed), request, watch)
        if result.invalid is None:
            break
        print(f"again: {layout} at {rate:g}/s: {result.invalid}", flush=True)
    own, busy, total = (late - early for late, early in zip(cpu_seconds(), before, strict=True))
    measured = tuple(1e3 * (percentile(samples[metric], level) or np.nan) for metric, level in FIGURES)
    others = max(busy - own, 0.0) / total
    return Point(layout, rate, seconds, seed, result.completed, measured, result.schedule_lag_p99_ms, others)


def below(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [one for child in children.read_text().split() for one in below(int(child))]
    return found


def cpu_seconds() -> tuple[float, float, float]:
    """CPU time so far, in s: of this program and its engine, of all programs, and of the machine with its idle time."""
    own = 0.0
    for pid in below(os.getpid()):
        with contextlib.suppress(OSError):
            own += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    user, nice, system, idle, wait, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    busy, tick = user + nice + system + sum(rest), os.sysconf("SC_CLK_TCK")
    return own / tick, busy / tick, (busy + idle + wait) / tick


def measure(model: Path, layouts: Sequence[str], seconds: float, repeats: int, root: Path) -> Iterator[dict[str, Any]]:
    """Per layout: probes before, between and after its loads, and the loads' points."""
    launcher = LocalProcessLauncher(None, state_dir=root / "state")
    try:
        for number, layout in enumerate(layouts):
            app = f"parlay-agreement-{number}"
            order = LaunchOrder(
                "agreement", number, app, ParallelLayout.parse(layout), loaded(model, 1.0), root / "logs"
            )
            deployment = launcher.launch(order, Watch())
            try:
                HttpMeter().measure(
                    deployment, LoadStep(0, 2.0, 5.0, seed=99, warmup=True), loaded(model, 2.0), Watch()
                )
                probes, points = [probe(deployment, model, 6, seed=0)], []
                for repeat in range(repeats):
                    for rate in RATES_REQ_PER_S:
                        points.append(measure_point(deployment, model, layout, rate, seconds, seed=repeat + 1))
                        others = points[-1].others_share
                        print(f"measured {layout} at {rate:g}/s; to other programs: {others:.0%}", flush=True)
                    probes.append(probe(deployment, model, 6, seed=repeat + 1))
            finally:
                deployment.teardown()
            yield {
                "layout": layout,
                "ready_after_s": deployment.ready_after_s,
                "probes": [asdict(one) for one in probes],
                "points": [asdict(one) for one in points],
            }
    finally:
        launcher.close()


def simulator(costs: StepCosts, layout: ParallelLayout, request_ms: float) -> Simulator:
    """vLLM on CPUs schedules synchronously; its own balancer sends to the replica with the least in hand."""
    settings = SimulationSettings(asynchronous=False, router="least_loaded", request_ms=request_ms)
    return Simulator(costs, layout, kv_tokens=KV_TOKENS, longest_tokens=512, settings=settings)


def fit(model: ModelShape, cluster: Cluster, layout: ParallelLayout, probes: Probes) -> tuple[float, float, float]:
    """(prefill factor, decode factor, request_ms) with which requests alone take what the probes took."""
    plain = simulator(Fitted(model, cluster), layout, 0.0)

    def alone(prompt: int) -> SimulationResult:
        return plain.run(OfferedLoad(np.zeros(1), np.array([prompt]), np.array([OUTPUT_TOKENS])))

    short, long = (alone(prompt) for prompt in PROBED_PROMPTS)
    slope = (probes.long_ttft_ms - probes.short_ttft_ms) / float(long.ttft_ms[0] - short.ttft_ms[0])
    prefill = min(slope, probes.short_ttft_ms / float(short.ttft_ms[0]))
    request_ms = probes.short_ttft_ms - prefill * float(short.ttft_ms[0])
    return prefill, probes.tpot_ms / float((short.tpot_ms[0] + long.tpot_ms[0]) / 2), request_ms


def predicted_ms(sim: Simulator, model: Path, point: Point) -> tuple[float, ...]:
    """The same requests at the same times, simulated."""
    result = sim.run(offered(loaded(model, 1.0).workload, point.rate_req_per_s, point.seconds, point.seed))
    return tuple(result.at(metric, level) or np.nan for metric, level in FIGURES)


def compare(measured: Sequence[dict[str, Any]], model: Path) -> None:
    """Print each point, measured and simulated, and the errors over all."""
    shape, cluster, errors = load_model(str(model)), Cluster.from_spec(loaded(model, 1.0).cluster), []
    print("| layout | requests/s | n | TTFT p50 | TTFT p99 | TPOT p50 | TPOT p99 | worst error | to others |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in measured:
        layout = ParallelLayout.parse(row["layout"])
        found = [Probes(**one) for one in row["probes"]]
        middle = Probes(
            *(statistics.median(values) for values in zip(*(asdict(p).values() for p in found), strict=True))
        )
        prefill, decode, request_ms = fit(shape, cluster, layout, middle)
        sim = simulator(Fitted(shape, cluster, prefill, decode), layout, request_ms)
        points = [Point(**one) for one in row["points"]]
        for rate in sorted({point.rate_req_per_s for point in points}):
            same = [point for point in points if point.rate_req_per_s == rate]
            seen = [statistics.median(v) for v in zip(*(p.measured_ms for p in same), strict=True)]
            said = [statistics.median(v) for v in zip(*(predicted_ms(sim, model, p) for p in same), strict=True)]
            error = [b / a - 1 for a, b in zip(seen, said, strict=True)]
            errors.append(error)
            cells = [
                f"{a:.0f} / {b:.0f}" if a >= 100 else f"{a:.1f} / {b:.1f}" for a, b in zip(seen, said, strict=True)
            ]
            requests, others = sum(p.requests for p in same), statistics.median(p.others_share for p in same)
            worst = max(error, key=abs)
            print(f"| {row['layout']} | {rate:g} | {requests} | {' | '.join(cells)} | {worst:+.0%} | {others:.0%} |")
    absolute = np.abs(np.array(errors))
    for (metric, level), column in zip(FIGURES, absolute.T, strict=True):
        print(f"{metric.value} p{level}: error {column.mean():.0%} mean, {np.median(column):.0%} median, "
              f"{column.max():.0%} at most, {len(column)} points")  # fmt: skip


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{os.cpu_count()} CPUs, {names[0] if names else platform.machine()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="where the tiny model is, or is to be built")
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS))
    parser.add_argument("--seconds", type=float, default=25.0, help="of each load")
    parser.add_argument("--repeats", type=int, default=2, help="of each load, with other arrivals")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--from", dest="source", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        root = Path(scratch)
        model = build_tiny_model(options.model or root / "tiny", "demo")
        if options.source:
            document = json.loads(options.source.read_text())
        else:
            document = {"machine": machine(), "started": time.strftime("%F %T", time.gmtime()), "layouts": []}
            for row in measure(model, options.layouts, options.seconds, options.repeats, root):
                document["layouts"].append(row)
                if options.out:
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{document['machine']}; measured / simulated, ms")
        compare(document["layouts"], model)


if __name__ == "__main__":
    main()
