"""What every ``Launcher``, ``RunningDeployment`` and ``Meter`` must keep: those of real stacks and simulated.

Classes of tests inherit ``RunningContract`` and ``LaunchContract``; the ``bench`` is how a kind is started, broken and
looked at, and ``deployment`` one that a class of tests only looks at: it holds one of the two devices.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.errors import BadInput, Cancelled, Cause, FailureReason, LaunchFailed
from tuner.trial.cancel import CancelHandle
from tuner.trial.launched import Launched
from tuner.trial.results import LoadStep
from tuner.trial.seams import Launcher, LaunchOrder, Meter, Reconfigurable, RunningDeployment, Samples, Watch

OUTPUT_TOKENS = 8  # of every request
STEP = LoadStep(0, 4.0, 3.0, seed=1)


def eventually(seconds: float, holds: object) -> bool:
    deadline = time.perf_counter() + seconds
    while not (held := bool(holds())) and time.perf_counter() < deadline:  # type: ignore[operator]
        time.sleep(0.2)
    return held


@dataclass(frozen=True)
class Fault:
    """A request that cannot start: why, and a word that its failure and its log must hold."""

    request: TuneRequest
    reason: FailureReason
    said: str


@dataclass
class ContractBench:
    """One launcher on two devices, the orders it was given, and what it has running."""

    kind: str
    launcher: Launcher
    meter: Meter
    root: Path
    said: list[str] = field(default_factory=list)
    orders: int = 0
    waits: bool = True  # False: nothing takes any time, so that nothing is ever in progress

    def request(self, **engine: Any) -> TuneRequest:
        """A request that starts; ``engine`` changes its section."""
        raise NotImplementedError

    def fault(self, kind: str, scratch: Path) -> Fault:
        """How to break a start: ``crash`` or ``memory``."""
        raise NotImplementedError

    def kill_worker(self, deployment: RunningDeployment) -> None:
        """Have one of its processes die."""
        raise NotImplementedError

    def left_running(self) -> Sequence[object]:
        """What holds devices now."""
        raise NotImplementedError

    def gathered(self, deployment: RunningDeployment) -> float | None:
        """The share of tokens that come with the one before them; None where nobody can see it."""
        return None

    def answers(self, deployment: RunningDeployment) -> bool:
        """Whether it serves its model now."""
        raise NotImplementedError

    def record_of(self, layout: ParallelLayout, record: Launched) -> Launched:
        """What is recorded of a layout, of the record of one with another path."""
        return record

    @property
    def model_source(self) -> str:
        """What its engines load."""
        raise NotImplementedError

    def order(self, request: TuneRequest, layout: str = "tp=1") -> LaunchOrder:
        self.orders += 1
        app = f"parlay-test-{self.orders}"
        return LaunchOrder("test", self.orders, app, ParallelLayout.parse(layout), request, self.root / "logs" / app)

    def launch(self, request: TuneRequest, layout: str = "tp=1") -> RunningDeployment:
        return self.launcher.launch(self.order(request, layout), Watch(progress=self.said.append))


class RunningContract:
    """What holds of a deployment that is up."""

    def test_a_deployment_serves_its_model(self, bench: ContractBench, deployment: RunningDeployment) -> None:
        assert isinstance(bench.launcher, Launcher)
        assert isinstance(bench.meter, Meter)
        assert isinstance(deployment, RunningDeployment)
        assert bench.answers(deployment)
        assert 0 < deployment.ready_after_s < 240
        assert deployment.failure() is None
        assert deployment.log_tail()
        assert len(deployment.log_tail(1)) == 1
        assert bench.said

    def test_a_deployment_says_what_was_launched(self, bench: ContractBench, deployment: RunningDeployment) -> None:
        launched = deployment.launched
        assert launched.launcher == bench.launcher.name == bench.kind
        assert launched.versions == dict(bench.launcher.versions)
        assert {"parlay", "python"} <= launched.versions.keys()
        assert launched.model_source == bench.model_source
        record = TypeAdapter(Launched)
        assert record.validate_json(record.dump_json(launched)) == launched  # as a store keeps it

    def test_the_meter_measures_it(self, bench: ContractBench, deployment: RunningDeployment) -> None:
        seen: list[Samples] = []
        result = bench.meter.measure(deployment, STEP, bench.request(), Watch(samples=seen.append))
        assert result.step == STEP
        assert result.sent == result.completed > 3
        assert result.failed == 0
        assert not result.errors
        assert set(result.latency) == set(Metric)
        assert result.latency[Metric.E2E].mean_ms > result.latency[Metric.TTFT].mean_ms > 0
        assert len(result.slo_values_ms) == len(bench.request().slo)
        for samples_s in seen:  # once, or by a meter that does not know them never
            assert {metric: len(values) for metric, values in samples_s.items()} == {
                metric: found.count for metric, found in result.latency.items()
            }
        assert len(seen) <= 1
        assert result.output_tok_per_s == pytest.approx(OUTPUT_TOKENS * result.completed / result.wall_s)

    def test_its_path_changes_while_its_engine_runs_on(
        self, bench: ContractBench, deployment: RunningDeployment
    ) -> None:
        if not bench.launcher.in_place:
            assert not isinstance(deployment, Reconfigurable)
            return
        assert isinstance(deployment, Reconfigurable)
        record, engines = deployment.launched, list(bench.left_running())
        plain = ParallelLayout()
        other = replace(plain, stream_interval_ms=250, ingress_replicas=2)
        with pytest.raises(BadInput, match="with another ingress_replicas or stream_interval_ms"):
            deployment.reconfigure(replace(other, tp=2), Watch())
        handle = CancelHandle()
        handle.cancel(Cause.OPERATOR, "enough")
        with pytest.raises(Cancelled, match="enough"):
            deployment.reconfigure(other, Watch(handle))
        share = bench.gathered(deployment)
        deployment.reconfigure(other, Watch(progress=bench.said.append))
        assert list(bench.left_running()) == engines
        assert deployment.failure() is None
        assert bench.answers(deployment)
        assert 0 <= deployment.ready_after_s < 60
        assert deployment.launched == bench.record_of(other, record)
        after = bench.gathered(deployment)
        assert share is None or after is None or share < 0.5 < after
        deployment.reconfigure(plain, Watch())
        assert (list(bench.left_running()), deployment.launched) == (engines, record)
        assert deployment.failure() is None

    def test_a_cancelled_step_ends_soon_and_leaves_the_deployment(
        self, bench: ContractBench, deployment: RunningDeployment
    ) -> None:
        handle, long = CancelHandle(), replace(STEP, duration_s=120.0)
        asking = threading.Timer(1.0, handle.cancel, (Cause.RACING, "lost already"))
        if bench.waits:
            asking.start()
        else:
            asking.function(*asking.args)
        started = time.perf_counter()
        with pytest.raises(Cancelled, match="lost already") as cancelled:
            bench.meter.measure(deployment, long, bench.request(), Watch(handle))
        assert cancelled.value.cause is Cause.RACING
        assert time.perf_counter() - started < 10
        assert bench.answers(deployment)


class LaunchContract:
    """How launches go wrong, and end."""

    def test_a_layout_larger_than_the_cluster_is_refused_at_once(self, bench: ContractBench) -> None:
        started = time.perf_counter()
        with pytest.raises(LaunchFailed, match="needs 4 devices") as refused:
            bench.launch(bench.request(), "tp=2,dp=2")
        assert refused.value.reason is FailureReason.PLACEMENT_IMPOSSIBLE
        assert time.perf_counter() - started < 60  # Ray may have to be started first

    @pytest.mark.parametrize("kind", ["crash", "memory"])
    def test_an_engine_that_dies_at_start_says_why(self, bench: ContractBench, tmp_path: Path, kind: str) -> None:
        fault = bench.fault(kind, tmp_path)
        with pytest.raises(LaunchFailed) as failed:
            bench.launch(fault.request)
        assert failed.value.reason is fault.reason, failed.value
        assert fault.said in failed.value.detail
        assert any(fault.said in line for line in failed.value.log_tail)
        assert eventually(5, lambda: not bench.left_running())

    def test_a_start_up_that_never_ends_is_cut_off(self, bench: ContractBench) -> None:
        with pytest.raises(LaunchFailed, match="not ready within 3 s") as failed:
            bench.launch(bench.request(start_timeout_s=3))
        assert failed.value.reason is FailureReason.START_TIMED_OUT
        assert not bench.left_running()

    def test_an_interrupted_launch_leaves_nothing(self, bench: ContractBench) -> None:
        def interrupt(words: str) -> None:
            if bench.left_running():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bench.launcher.launch(bench.order(bench.request(), "tp=2"), Watch(progress=interrupt))
        assert not bench.left_running()

    def test_a_launch_that_is_cancelled_from_another_thread_ends_soon_and_leaves_nothing(
        self, bench: ContractBench
    ) -> None:
        handle, asked_at = CancelHandle(), []

        def ask() -> None:
            eventually(60, bench.left_running)
            asked_at.append(time.perf_counter())
            handle.cancel(Cause.SHUTDOWN, "the service ends")

        asking = threading.Thread(target=ask)
        asking.start() if bench.waits else handle.cancel(Cause.SHUTDOWN, "the service ends")
        with pytest.raises(Cancelled, match="the service ends") as cancelled:
            bench.launcher.launch(bench.order(bench.request(), "tp=2"), Watch(handle))
        assert cancelled.value.cause is Cause.SHUTDOWN
        if bench.waits:
            asking.join()
            assert time.perf_counter() - asked_at[0] < 25  # an engine may be given 10 s to end by itself
        assert not bench.left_running()

    def test_a_killed_worker_is_a_dead_replica(self, bench: ContractBench) -> None:
        running = bench.launch(bench.request(), "tp=2")
        bench.kill_worker(running)
        assert eventually(40, running.failure)
        failure = running.failure()
        assert failure is not None
        assert failure[0] is FailureReason.REPLICA_DIED
        running.teardown()
        running.teardown()
        assert not bench.left_running()
        assert not bench.answers(running)
        assert running.log_tail()

    def test_there_is_no_orphan_of_a_name_never_launched(self, bench: ContractBench) -> None:
        assert not bench.launcher.remove_orphan("parlay-never-launched")
