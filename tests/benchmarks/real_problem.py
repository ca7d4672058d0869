"""A real tuning problem, solved twice: by measuring every layout, and by a study that may launch a handful.

    python -m serve.tiny_model parlay-out/tiny-llama --size demo
    python -m tests.benchmarks.real_problem measure     # every layout on real Ray Serve + vLLM: about 5 minutes
    python -m tests.benchmarks.real_problem             # the study against what was measured: seconds

``measure`` keeps each layout's windows the moment they are over and goes on where it was stopped. The study then runs
on the recorded windows (a launcher and a meter that look them up), so that it can be asked again without the wait. Each
launch of a layout gets the next of its windows; a layout's true figure is its mean over all of them.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from tuner.ask.cluster import requested_cluster
from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.request_document import load_request
from tuner.ask.space import load_space
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.plan.prune import Candidate, plan
from tuner.study.step_rows import dump_step, load_step
from tuner.study.store import Store
from tuner.study.study import Observer, Setting, Study
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.results import LoadStep, StepResult
from tuner.trial.seams import LaunchOrder, RunningDeployment, Watch

REQUEST = Path(__file__).with_suffix(".yaml")
RECORD = Path(__file__).parent / "results" / "real_problem.json"
WINDOWS = 2  # per layout, of different arrivals, in one deployment
FIRST_SEED = 20260101
NEAR = 1.03  # times the best: as good as found


@dataclass(frozen=True, slots=True)
class Record:
    """What one layout did: its windows, or why there are none."""

    layout: str
    ready_after_s: float | None
    windows: tuple[StepResult, ...]
    failure: FailureReason | None = None
    detail: str | None = None

    @property
    def e2e_ms(self) -> float | None:
        """Mean end-to-end latency over all windows, each request once; None where nothing was measured."""
        found = [window.latency[Metric.E2E] for window in self.windows if Metric.E2E in window.latency]
        count = sum(quantiles.count for quantiles in found)
        return sum(quantiles.mean_ms * quantiles.count for quantiles in found) / count if count else None


_RECORD = TypeAdapter(Record)


def measure(request: TuneRequest, record: Path) -> None:
    """Launch every runnable layout once and measure its windows."""
    from serve.launch.ray_launcher import RayServeLauncher
    from serve.measure.http_meter import HttpMeter

    done = load(record, request) if record.exists() else []
    layouts = [c.layout for c in candidates(request)]
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        launcher = RayServeLauncher(None, None, state_dir=Path(scratch) / "state")
        try:
            for number, layout in enumerate(layouts):
                if str(layout) in {r.layout for r in done} or launcher.refuses(layout, request):
                    continue
                logs = Path(scratch) / f"trial-{number}"
                logs.mkdir()
                order = LaunchOrder("real", number, f"real-{number}", layout, request, logs)
                done.append(_measured(order, request, launcher.launch, HttpMeter().measure))
                keep(record, done)
                _say(f"{len(done)}/{len(layouts)} {_row(done[-1])}")
        finally:
            launcher.close()


def _measured(
    order: LaunchOrder,
    request: TuneRequest,
    launch: Callable[[LaunchOrder, Watch], RunningDeployment],
    meter: Callable[[RunningDeployment, LoadStep, TuneRequest, Watch], StepResult],
) -> Record:
    rate, name = request.rates_req_per_s[0], str(order.layout)
    deployment: RunningDeployment | None = None
    try:
        deployment = launch(order, Watch())
        meter(
            deployment, LoadStep(-1, rate, request.load.warmup_seconds, FIRST_SEED - 1, warmup=True), request, Watch()
        )
        steps = [LoadStep(0, rate, request.load.seconds, FIRST_SEED + i) for i in range(WINDOWS)]
        windows = tuple(meter(deployment, step, request, Watch()) for step in steps)
        return Record(name, deployment.ready_after_s, windows)
    except LaunchFailed as failure:
        return Record(name, None, (), failure.reason, failure.detail)
    finally:
        if deployment is not None:
            deployment.teardown()


def candidates(request: TuneRequest) -> tuple[Candidate, ...]:
    """The layouts of the problem, best first by the model."""
    return plan(request, load_model(request.model), requested_cluster(request), load_space(request.space)).ranked


def load(path: Path, request: TuneRequest) -> list[Record]:
    """What was measured so far. Raises BadInput where nothing was."""
    if not path.exists():
        raise BadInput("record", str(path), "a file that `python -m tests.benchmarks.real_problem measure` wrote")
    rows = json.loads(path.read_text())["layouts"]
    windows = [[load_step(json.dumps(step), request.slo) for step in row["windows"]] for row in rows]
    return [_RECORD.validate_python(row | {"windows": steps}) for row, steps in zip(rows, windows, strict=True)]


def keep(path: Path, done: Sequence[Record]) -> None:
    """Write the records, each window as a store keeps it."""
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"
    rows = [_RECORD.dump_python(record, mode="json", exclude={"windows"}) for record in done]
    windows = [[json.loads(dump_step(step)) for step in record.windows] for record in done]
    document = {
        "machine": machine,
        "layouts": [row | {"windows": steps} for row, steps in zip(rows, windows, strict=True)],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _row(record: Record) -> str:
    if record.e2e_ms is None:
        return f"{record.layout}: {record.failure} ({record.detail})"
    windows = ", ".join(f"{window.latency[Metric.E2E].mean_ms:.0f}" for window in record.windows)
    return f"{record.layout}: E2E {record.e2e_ms:.0f} ms (windows {windows})"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Replayed:
    """A recorded layout, as a deployment."""

    record: Record
    layout: ParallelLayout
    window: int
    url: str = "http://127.0.0.1:1"
    model_id: str = "recorded"

    @property
    def ready_after_s(self) -> float:
        """As recorded."""
        return self.record.ready_after_s or 0.0

    @property
    def launched(self) -> Launched:
        """Nothing now."""
        return Launched("recorded", {}, self.model_id, NoEngine("a record"))

    def failure(self) -> tuple[FailureReason, str] | None:
        """It never breaks."""
        return None

    def log_tail(self, lines: int = 20) -> tuple[str, ...]:
        """Nothing was kept."""
        return ()

    def teardown(self) -> None:
        """Nothing runs."""


@dataclass
class Replay:
    """Launcher and meter that look up what was measured; ``first`` is the window that a first launch gets."""

    records: dict[str, Record]
    first: int
    launched: list[str] = field(default_factory=list)
    name: str = "recorded"
    parallel: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    in_place: frozenset[str] = frozenset()
    cluster: None = None

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """What was not measured."""
        return None if str(deployment) in self.records else "not measured"

    def launch(self, order: LaunchOrder, watch: Watch) -> Replayed:
        """As it went."""
        name = str(order.layout)
        record, window = self.records[name], self.first + self.launched.count(name)
        self.launched.append(name)
        if record.failure is not None:
            raise LaunchFailed(record.failure, record.detail or "")
        return Replayed(record, order.layout, window)

    def measure(self, deployment: RunningDeployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        """The recorded window, in the place of the step that is asked."""
        assert isinstance(deployment, Replayed)
        windows = deployment.record.windows
        return replace(windows[deployment.window % len(windows)], step=step)

    def remove_orphan(self, app: str) -> bool:
        """There is none."""
        return False

    def close(self) -> None:
        """Nothing is held."""


def judge(request: TuneRequest, done: Sequence[Record]) -> None:
    """Print what each layout did, then where studies ended, one for each window that a first launch may get."""
    truth = {r.layout: r.e2e_ms for r in done if r.e2e_ms and all(w.meets(request) for w in r.windows)}
    best_ms = min(truth.values())
    print("| layout | E2E, ms | windows, ms | of the best |\n|---|---|---|---|")
    for record in sorted(done, key=lambda r: truth.get(r.layout, float("inf"))):
        windows = ", ".join(f"{w.latency[Metric.E2E].mean_ms:.0f}" for w in record.windows) or record.failure
        if (found := truth.get(record.layout)) is None:
            print(f"| {record.layout} | misses the SLO | {windows} | |")
        else:
            print(f"| {record.layout} | {found:.0f} | {windows} | +{found / best_ms - 1:.1%} |")
    near = sum(ms <= NEAR * best_ms for ms in truth.values())
    mean = (len(done) + 1) / (near + 1)
    print(
        f"\n{len(done)} layouts, {near} of them within {NEAR - 1:.0%} of the best; in random order the first such one"
    )
    print(f"is launch {mean:.1f} on average")
    print("\n| first window | launches | first within 3 % | announced | regret |\n|---|---|---|---|---|")
    for first in range(max(len(r.windows) for r in done)):
        replay, chosen = studied(request, done, first)
        hits = [i for i, name in enumerate(replay.launched, 1) if truth.get(name, float("inf")) <= NEAR * best_ms]
        regret = f"{truth[chosen] / best_ms - 1:.1%}" if chosen in truth else "misses the SLO"
        print(f"| {first} | {len(replay.launched)} | {hits[0] if hits else 'never'} | {chosen} | {regret} |")


def studied(request: TuneRequest, done: Sequence[Record], first: int) -> tuple[Replay, str | None]:
    """A whole study on the recorded windows, and the layout that it announced."""
    replay = Replay({r.layout: r for r in done}, first)
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        setting = Setting(
            "real", request, load_model(request.model), requested_cluster(request), load_space(request.space),
            Path(scratch),
        )  # fmt: skip
        store = Store(f"sqlite:///{scratch}/study.db")
        decision = Study(setting, store, replay, replay, Observer()).run(resume=False, facts={})
    winner = decision.winner
    return replay, str(winner.layout) if winner else None


def main(words: Sequence[str]) -> None:
    """``measure``, or the judgement."""
    request = load_request(REQUEST)
    if list(words) == ["measure"]:
        measure(request, RECORD)
    judge(request, load(RECORD, request))


if __name__ == "__main__":
    main(sys.argv[1:])
