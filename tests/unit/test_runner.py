"""Studies of one process: side by side, ended from elsewhere, taken up again; each as if it had been alone."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import FakeLauncher, FakeMeter, copy_of_empty_store, make_request
from tuner.ask.cluster import Cluster
from tuner.errors import BadInput, Cancelled, Cause, FailureReason
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.conditions import SEED_FACT, Conditions
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.study.observer import Observer
from tuner.study.runner import StudyOrder, run_study
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle
from tuner.trial.results import TrialState

SPACE = {"tp": [1, 2, 4], "dp": [1, 2], "max_num_seqs": [64, 256], "executor": ["mp"]}
CONDITIONS = Conditions(pace=0.002, term_error=0.5)  # a start takes about 0.2 s, a load step 0.04 s


class OneByOne(SimulatedLauncher):
    """Which layout comes next depends on which has ended: one at a time, so that a study alone always goes one way."""

    parallel = 1


class Bench:
    """A simulated cluster of its own for a study."""

    def __init__(self, folder, name, store, rate, launcher=OneByOne, nodes=1, held=()):
        changes = {"space": SPACE, "objective": "min_latency", "load.seconds": 20, "load.rates_req_per_s": [rate]}
        changes |= {"cluster.nodes": nodes, "isolation": "none"}
        minutes = 1e9  # on a busy machine, a study must not run out of time
        request = make_request(
            {**changes, "budget.launches": 6, "budget.minutes": minutes, "budget.horizon_hours": 1e6}
        )
        self.world = SimulatedCluster(Cluster.from_spec(request.cluster), CONDITIONS)
        self.launcher, self.meter = launcher(self.world), Holding(self.world, held)
        self.name, self.store, self.request, self.folder = name, store, request, folder / name
        self.cancel = CancelHandle()

    def run(self, *observers, resume=False):
        order = StudyOrder(self.name, self.request, self.folder, resume)
        clock = lambda: self.world.clock_s  # noqa: E731
        return run_study(order, self.store, self.launcher, self.meter, observers, self.cancel, clock=clock)


class Holding(SimulatedMeter):
    """Measures, of some trials, without an end until their study is asked for one; each counts once it is there."""

    def __init__(self, world, apps):
        super().__init__(world)
        self._apps, self.held = apps, threading.Semaphore(0)

    def measure(self, deployment, step, request, watch):
        if deployment.app in self._apps:
            self.held.release()
            watch.cancel.wait(240)
        return super().measure(deployment, step, request, watch)


class Begun(Observer):
    """Tells when a study's first trial has begun."""

    def __init__(self):
        self.told = threading.Event()

    def trial_started(self, number, launches, proposal):
        self.told.set()


def essence(decision):
    """All of a decision but names and times."""
    trials = [(t.layout, t.state, t.purpose, t.repeat, t.steps, t.failure) for t in decision.trials]
    return decision.winner and decision.winner.layout, trials, decision.dropped, decision.why


def stores(tmp_path, shared):
    first = Store(copy_of_empty_store(tmp_path / "first.db"))
    return first, first if shared else Store(copy_of_empty_store(tmp_path / "second.db"))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("shared", [True, False], ids=["one store", "two stores"])
def test_of_two_studies_at_once_one_is_cancelled_and_both_are_right(tmp_path, shared):
    expected = {}
    for rate in (8, 24):  # in stores of their own, as a study learns from what its store has decided before
        alone = Store(copy_of_empty_store(tmp_path / f"alone-{rate}.db"))
        expected[rate] = essence(Bench(tmp_path, f"alone-{rate}", alone, rate).run())
    assert all(len(trials) >= 2 for _, trials, *_ in expected.values())
    assert expected[8] != expected[24]

    first, second = stores(tmp_path, shared)
    ended, kept = Bench(tmp_path, "ended", first, 8, held=["parlay-ended-1"]), Bench(tmp_path, "kept", second, 24)
    begun = Begun()
    with ThreadPoolExecutor() as threads:
        doomed = threads.submit(ended.run)
        assert ended.meter.held.acquire(timeout=120)
        other = threads.submit(kept.run, begun)  # the younger of the two: the other does not learn from it when resumed
        assert begun.told.wait(120)
        ended.cancel.cancel(Cause.OPERATOR, "no longer wanted")  # from this thread, which runs neither
        with pytest.raises(Cancelled, match="cancelled by the operator: no longer wanted"):
            doomed.result(120)
        assert ended.world.running == ()
        assert essence(other.result(120)) == expected[24]
    done, cancelled = first.trials("ended")
    assert done.state in (TrialState.MEASURED, TrialState.STOPPED)
    assert (cancelled.state, cancelled.failure) == (TrialState.FAILED, FailureReason.CANCELLED)
    assert cancelled.detail == "cancelled by the operator: no longer wanted"
    assert first.snapshot("ended").open == second.snapshot("kept").open == ()
    assert kept.world.running == ()
    assert kept.cancel.cause is None

    again = Bench(tmp_path, "ended", first, 8)
    assert essence(again.run(resume=True)) == expected[8]  # in the process that had cancelled it
    assert again.world.running == ()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("parlay-", "heartbeat"))]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_trials_side_by_side_are_all_cancelled_and_the_study_goes_on_later(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    bench = Bench(tmp_path, "s", store, 8, SimulatedLauncher, nodes=3, held=["parlay-s-0", "parlay-s-1"])
    with ThreadPoolExecutor() as threads:
        running = threads.submit(bench.run)
        assert all(bench.meter.held.acquire(timeout=120) for _ in range(2))
        bench.cancel.cancel(Cause.SHUTDOWN, "SIGTERM")
        with pytest.raises(Cancelled):
            running.result(120)
    trials = store.trials("s")
    running = [trial for trial in trials if trial.failure is not None]
    assert len(running) > 1
    assert {trial.detail for trial in running} == {"cancelled by the shutdown: SIGTERM"}
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    assert bench.world.running == ()
    resumed = Bench(tmp_path, "s", store, 8, SimulatedLauncher, nodes=3).run(resume=True)
    assert resumed.winner is not None
    assert FailureReason.CANCELLED not in {trial.failure for trial in store.trials("s")}


@pytest.mark.slow
def test_a_run_touches_no_signal_and_needs_no_main_thread(tmp_path):
    store, before = Store(copy_of_empty_store(tmp_path / "store.db")), signal.getsignal(signal.SIGTERM)
    seen = []

    class Watching(Observer):
        def trial_started(self, number, launches, proposal):
            seen.append(signal.getsignal(signal.SIGTERM))

    request = make_request({"space": {"tp": [1], "dp": [1], "executor": ["mp"]}, "budget.launches": 1})
    order, meter = StudyOrder("s", request, tmp_path), FakeMeter(lambda layout, step: 10.0)
    with ThreadPoolExecutor() as threads:
        decision = threads.submit(run_study, order, store, FakeLauncher(), meter, [Watching()]).result(120)
    assert str(decision.winner.layout) == "tp=1,pp=1,dp=1"
    assert set(seen) == {before}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("began", "goes_on"), [({SEED_FACT: "3"}, {SEED_FACT: "4"}), ({SEED_FACT: "3"}, {}), ({}, {SEED_FACT: "3"})]
)
def test_a_study_goes_on_in_its_own_world_only(tmp_path, began, goes_on):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    request = make_request({"space": {"tp": [1], "dp": [1], "executor": ["mp"]}, "budget.launches": 1})
    launcher, meter = FakeLauncher(), FakeMeter(lambda layout, step: 10.0)
    run_study(StudyOrder("s", request, tmp_path, facts=began), store, launcher, meter)
    with pytest.raises(BadInput, match="with which study s began"):
        run_study(StudyOrder("s", request, tmp_path, resume=True, facts=goes_on), store, launcher, meter)
    run_study(StudyOrder("s", request, tmp_path, resume=True, facts=began), store, launcher, meter)


def test_what_cannot_be_offered_is_refused_before_anything_is_stored(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    trace = tmp_path / "gone.csv"
    trace.write_text("timestamp,prompt_tokens,output_tokens\n0,16,4\n1,16,4\n")
    request = make_request({"workload": {"arrival": {"process": "trace", "trace": str(trace)}}})
    trace.unlink()
    with pytest.raises(BadInput, match="gone"):
        run_study(StudyOrder("s", request, tmp_path), store, FakeLauncher(), FakeMeter(lambda *_: 10.0))
    assert store.study_names() == []
