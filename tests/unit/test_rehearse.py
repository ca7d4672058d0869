"""The simulated cluster keeps the contract of launchers and meters, and its conditions do what they say."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.fakes import copy_of_empty_store, make_request
from tests.launcher_contract import OUTPUT_TOKENS, STEP, ContractBench, Fault, LaunchContract, RunningContract
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Metric
from tuner.ask.space import load_space
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.conditions import AT_REST, Conditions
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.stats.warming import Warmth
from tuner.study.observer import Observer
from tuner.study.store import Store
from tuner.study.study import Setting, Study
from tuner.trial.results import LoadStep, TrialState
from tuner.trial.seams import LaunchOrder, Watch

REQUEST = make_request({"workload.prompt_tokens": 512, "workload.output_tokens": 32})
LONG_STEP = LoadStep(0, 8.0, 20.0, seed=5)


def cluster(nodes=1):
    return Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=nodes, gpus_per_node=8))


class SimulatedBench(ContractBench):
    """Two simulated devices."""

    def __init__(self, root):
        self.world = SimulatedCluster(Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=2)))
        super().__init__("simulated", SimulatedLauncher(self.world), SimulatedMeter(self.world), root, waits=False)

    def request(self, **engine):
        changes = {f"engine.{name}": value for name, value in engine.items()}
        return make_request({"workload.output_tokens": OUTPUT_TOKENS} | changes)

    @property
    def model_source(self):
        return REQUEST.model

    def fault(self, kind, scratch):
        if kind == "memory":
            large = make_request({"model": "meta-llama/Llama-3.1-405B"})
            return Fault(large, FailureReason.DOES_NOT_FIT, "GiB exceed")
        doomed = ParallelLayout.parse("tp=1")
        self.world.conditions = Conditions(failures={doomed: FailureReason.ENGINE_CRASHED})
        return Fault(self.request(), FailureReason.ENGINE_CRASHED, "engine_crashed")

    def kill_worker(self, deployment):
        deployment.die("a worker was killed")

    def left_running(self):
        return self.world.running

    def answers(self, deployment):
        try:
            return self.meter.measure(deployment, STEP, self.request(), Watch()).failed == 0
        except LaunchFailed:
            return False


@pytest.fixture
def bench(tmp_path):
    return SimulatedBench(tmp_path)


@pytest.fixture
def deployment(bench):
    return bench.launch(bench.request())


class TestRunning(RunningContract):
    """The shared cases."""


class TestLaunching(LaunchContract):
    """The shared cases."""


class World:
    """A simulated cluster with a launcher and a meter, and what was said."""

    def __init__(self, conditions=AT_REST, nodes=1):
        self.cluster = SimulatedCluster(cluster(nodes), conditions)
        self.launcher, self.meter = SimulatedLauncher(self.cluster), SimulatedMeter(self.cluster)
        self.said, self.orders = [], 0

    def launch(self, layout="tp=1", request=REQUEST, app=None, log_dir=None):
        self.orders += 1
        chosen = ParallelLayout.parse(layout)
        order = LaunchOrder("test", self.orders, app or f"app-{self.orders}", chosen, request, log_dir)
        return self.launcher.launch(order, Watch(progress=self.said.append))

    def measure(self, layout="tp=1", step=LONG_STEP, request=REQUEST, app=None):
        deployment = self.launch(layout, request, app)
        try:
            return self.meter.measure(deployment, step, request, Watch())
        finally:
            deployment.teardown()


def p99_ms(result, metric=Metric.TTFT):
    return result.latency[metric].p99_ms


def test_it_is_named_simulated():
    world = World()
    deployment = world.launch()
    assert world.launcher.name == "simulated"
    assert deployment.url.startswith("simulated://")
    assert all(words.startswith("simulated") for words in (*world.said, *deployment.log_tail()))


def test_a_deployment_holds_devices_until_it_is_torn_down():
    world = World()
    deployment = world.launch("tp=4", app="mine")
    assert world.cluster.running == ("mine",)
    assert world.cluster.free_devices == 4
    assert deployment.ready_after_s == pytest.approx(90, rel=0.5)
    assert deployment.failure() is None
    deployment.teardown()
    deployment.teardown()
    assert world.cluster.free_devices == 8


def test_deployments_share_the_cluster():
    world = World()
    first = world.launch("tp=4")
    world.launch("tp=2,dp=2")
    with pytest.raises(LaunchFailed, match="0 of 8 are free") as refused:
        world.launch("tp=1")
    assert refused.value.reason is FailureReason.PLACEMENT_IMPOSSIBLE
    first.teardown()
    world.launch("tp=1")


def test_figures_are_counted_as_a_real_meter_counts_them():
    result = World().measure()
    assert result.sent > 100
    assert list(result.slo_values_ms.values()) == [p99_ms(result), p99_ms(result, Metric.TPOT)]
    assert result.goodput_req_per_s == pytest.approx(result.attainment * result.sent / LONG_STEP.duration_s)
    assert result.schedule_lag_p99_ms is None


def test_requests_beyond_the_timeout_failed():
    half_ms = World().measure().latency[Metric.E2E].p50_ms
    changes = {"workload.prompt_tokens": 512, "workload.output_tokens": 32, "load.request_timeout_s": half_ms / 1e3}
    result = World().measure(request=make_request(changes))
    assert 0.4 < result.failed / result.sent < 0.6
    assert result.errors == {"timeout": result.failed}
    assert result.latency[Metric.E2E].p99_ms <= half_ms
    hopeless = make_request({"load.request_timeout_s": 0.01})
    with pytest.raises(LaunchFailed, match="timed out") as failed:
        World().measure(request=hopeless)
    assert failed.value.reason is FailureReason.CLIENT_ERROR


@pytest.mark.slow
def test_side_by_side_trials_share_devices_and_time():
    """Threads start and stop deployments of two devices on eight; none is held twice, and none is lost."""
    world = World(Conditions(pace=1e-5))
    held, refused, spent_s = [], [], []

    def trial(number):
        began_s = world.cluster.clock_s
        try:
            deployment = world.launch("tp=2", app=f"trial-{number}")
        except LaunchFailed as failure:
            refused.append(failure.reason)
            return
        held.append(world.cluster.free_devices)
        world.meter.measure(deployment, LONG_STEP, REQUEST, Watch())
        deployment.teardown()
        spent_s.append(world.cluster.clock_s - began_s)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(trial, range(40)))
    assert len(held) + len(refused) == 40
    assert len(held) >= 4
    assert min(held) >= 0
    assert set(refused) <= {FailureReason.PLACEMENT_IMPOSSIBLE}
    assert world.cluster.free_devices == 8
    assert world.cluster.clock_s >= max(spent_s) > 100  # a start of 90 s, a step of 20 s
    assert 2 * 100 * len(held) < world.cluster.busy_device_s <= 2 * sum(spent_s)
    assert world.cluster.busy_device_s <= 8 * world.cluster.clock_s


def test_devices_are_busy_while_they_are_held():
    world = World()
    deployment = world.launch("tp=4")
    world.cluster.pass_time(100)
    deployment.teardown()
    world.cluster.pass_time(50)
    assert world.cluster.busy_device_s == pytest.approx(4 * (world.cluster.clock_s - 50))


def test_a_node_lost_during_a_step_ends_it(monkeypatch):
    world = World()
    deployment = world.launch("tp=8")
    monkeypatch.setattr(world.cluster, "pass_time", lambda *seconds: world.cluster.lose_nodes(1))
    with pytest.raises(LaunchFailed, match="a node was lost") as failed:
        world.meter.measure(deployment, LONG_STEP, REQUEST, Watch())
    assert failed.value.reason is FailureReason.REPLICA_DIED


def test_a_name_in_use_is_refused():
    world = World()
    world.launch(app="mine")
    with pytest.raises(BadInput, match="mine"):
        world.launch(app="mine")


@pytest.mark.slow
def test_the_same_seed_is_the_same_world():
    conditions = Conditions(seed=7, noise=0.1, term_error=0.3, failure_share=0.5)
    layouts = ["tp=1", "tp=2", "tp=4", "tp=8", "tp=2,pp=2", "tp=1,dp=2"]

    def history(chosen):
        world, seen = World(chosen), []
        for layout in layouts:
            try:
                seen.append(p99_ms(world.measure(layout)))
            except LaunchFailed as failure:
                seen.append(str(failure))
        return seen, world.cluster.clock_s

    assert history(conditions) == history(conditions)
    assert history(conditions) != history(replace(conditions, seed=8))


@pytest.mark.slow
def test_noise_differs_between_trials_of_one_layout():
    world = World(Conditions(noise=0.05))
    values = [p99_ms(world.measure(), Metric.TPOT) for _ in range(12)]
    assert len(set(values)) == 12
    assert 0.02 < (max(values) - min(values)) / min(values) < 0.5


@pytest.mark.slow
def test_true_prices_differ_term_by_term():
    exact = {layout: p99_ms(World().measure(layout), Metric.TPOT) for layout in ("tp=1", "tp=8")}
    ratios = {
        (seed, layout): p99_ms(World(Conditions(seed=seed, term_error=0.3)).measure(layout), Metric.TPOT) / value
        for seed in range(4)
        for layout, value in exact.items()
    }
    assert all(0.3 < ratio < 3 for ratio in ratios.values())
    assert any(abs(ratios[seed, "tp=1"] / ratios[seed, "tp=8"] - 1) > 0.05 for seed in range(4))


def test_hardware_that_slows_down():
    world = World(Conditions(slowdown_per_hour=1.0))
    early = p99_ms(world.measure(), Metric.TPOT)
    world.cluster.pass_time(3600)
    assert p99_ms(world.measure(), Metric.TPOT) > 1.5 * early


@pytest.mark.parametrize(
    "reason", [FailureReason.ENGINE_CRASHED, FailureReason.START_TIMED_OUT, FailureReason.DOES_NOT_FIT]
)
def test_a_layout_fails_at_start_on_demand(reason):
    world = World(Conditions(failures={ParallelLayout.parse("tp=2"): reason}))
    with pytest.raises(LaunchFailed, match="simulated") as failed:
        world.launch("tp=2")
    assert failed.value.reason is reason
    assert world.cluster.free_devices == 8
    world.launch("tp=1")


def test_a_replica_dies_under_load_on_demand():
    world = World(Conditions(failures={ParallelLayout.parse("tp=2"): FailureReason.REPLICA_DIED}))
    deployment = world.launch("tp=2")
    world.meter.measure(deployment, replace(LONG_STEP, index=-1, warmup=True), REQUEST, Watch())
    with pytest.raises(LaunchFailed, match="killed") as failed:
        world.meter.measure(deployment, LONG_STEP, REQUEST, Watch())
    assert failed.value.reason is FailureReason.REPLICA_DIED
    assert deployment.failure()[0] is FailureReason.REPLICA_DIED
    assert world.cluster.free_devices == 8


@pytest.mark.parametrize(
    ("says", "lasts_s"), [(Warmth.WARM, 10.0), (Warmth.UNKNOWN, 20.0), (Warmth.COLD, 80.0)], ids=lambda it: str(it)
)
def test_a_simulated_warm_up_takes_the_time_of_a_real_one(monkeypatch, says, lasts_s):
    monkeypatch.setattr("tuner.stats.warm_up.warmth", lambda values: says)
    world = World()
    deployment, began_s = world.launch("tp=2"), world.cluster.clock_s
    step = replace(LONG_STEP, index=-1, warmup=True, longest_s=80.0)
    found = world.meter.measure(deployment, step, REQUEST, Watch())
    assert found.offered_s == lasts_s
    assert found.sent == pytest.approx(8 * lasts_s, rel=0.2)
    assert world.cluster.clock_s - began_s == pytest.approx(lasts_s, rel=0.1)
    fixed = world.meter.measure(deployment, replace(step, longest_s=None), REQUEST, Watch())
    assert fixed.offered_s == LONG_STEP.duration_s


def test_a_share_of_layouts_fails():
    conditions = Conditions(failure_share=0.3)
    layouts = [
        ParallelLayout(tp=tp, dp=dp, max_num_seqs=s) for tp in (1, 2, 4) for dp in range(1, 9) for s in (64, 256)
    ]
    failing = [conditions.failure_of(layout) for layout in layouts]
    assert 0.15 < sum(reason is not None for reason in failing) / len(layouts) < 0.45
    assert {reason for reason in failing if reason} == {
        FailureReason.ENGINE_CRASHED, FailureReason.START_TIMED_OUT, FailureReason.REPLICA_DIED,
    }  # fmt: skip


def test_a_slow_start_times_out():
    slow = make_request({"engine.start_timeout_s": 30})
    with pytest.raises(LaunchFailed, match="not ready within 30 s") as failed:
        World().launch(request=slow)
    assert failed.value.reason is FailureReason.START_TIMED_OUT


def test_a_model_that_does_not_fit_says_how_much_is_missing():
    large = make_request({"model": "meta-llama/Llama-3.1-405B"})
    with pytest.raises(LaunchFailed, match="GiB exceed") as failed:
        World().launch("tp=1", request=large)
    assert failed.value.reason is FailureReason.DOES_NOT_FIT


def test_lost_nodes_take_the_youngest_with_them():
    world = World(nodes=3)
    old, young = world.launch("tp=8"), world.launch("tp=8")
    world.cluster.lose_nodes(1)
    assert (old.failure(), young.failure()) == (None, None)
    world.cluster.lose_nodes(1)
    assert old.failure() is None
    assert young.failure()[0] is FailureReason.REPLICA_DIED
    assert world.cluster.running == (old.app,)


def test_an_orphan_is_removed_by_another_launcher():
    world = World()
    world.launch("tp=8", app="orphan")
    successor = SimulatedLauncher(world.cluster)
    assert successor.remove_orphan("orphan")
    assert not successor.remove_orphan("orphan")
    assert world.cluster.free_devices == 8


def test_it_refuses_what_the_engine_refuses():
    world = World()
    assert "heads" in world.launcher.refuses(ParallelLayout.parse("tp=3"), REQUEST)
    assert world.launcher.refuses(ParallelLayout.parse("tp=2"), REQUEST) is None


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"failure_share": 1.5}, {"pace": -1}])
def test_impossible_conditions_are_refused(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        Conditions(**wrong)


@pytest.mark.slow
def test_a_study_of_1024_devices_finds_a_layout_among_failures(tmp_path):
    request = make_request(
        {
            "model": "meta-llama/Llama-3.1-70B",
            "cluster": {"gpu": "h100_sxm", "nodes": 128, "gpus_per_node": 8},
            "workload.arrival.requests_per_s": 60,
            "slo": [{"metric": "ttft", "percentile": 95, "ms": 500}, {"metric": "tpot", "percentile": 95, "ms": 40}],
            "load.seconds": 5,
            "budget": {"launches": 6, "minutes": 60},
        }
    )
    world = World(Conditions(noise=0.02, term_error=0.1, failure_share=0.3), nodes=128)
    store = Store(copy_of_empty_store(tmp_path / "parlay.db"))
    setting = Setting("simulated", request, load_model(request.model), cluster(128), load_space("dense"), tmp_path)
    study = Study(setting, store, world.launcher, world.meter, Observer())
    decision = study.run(resume=False, facts={"launcher": world.launcher.name})
    store.close()
    assert decision.winner is not None
    assert {trial.state for trial in decision.trials} <= set(TrialState) - {TrialState.RUNNING}
    assert all("simulated" in (trial.detail or "simulated") for trial in decision.trials if trial.failure)
    assert world.cluster.running == ()
