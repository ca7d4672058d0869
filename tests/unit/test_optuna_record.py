"""Each trial is one of Optuna's, in the store's database, with its end; whatever drivers do beside each other."""

import threading

import optuna
import pytest

from tests.fakes import copy_of_empty_store, make_request, make_step
from tests.unit.test_search import RANKED, REQUEST, crashed, measured
from tests.world import World
from tuner.ask.layout import ParallelLayout
from tuner.plan.prune import Plan
from tuner.search.proposal import Proposal
from tuner.study.optuna_record import OptunaRecord
from tuner.study.records import TrialClaim
from tuner.study.store import Store
from tuner.trial.devices import Placement
from tuner.trial.results import LoadStep, Purpose, TrialState

PLAN = Plan(len(RANKED), tuple(RANKED), (), 0.0)
FIRST, SECOND, THIRD = (candidate.layout for candidate in RANKED[:3])


class Drivers:
    """A store with a study, and the records that its drivers keep in it."""

    def __init__(self, folder, request=REQUEST):
        self.url, self.folder, self.request = copy_of_empty_store(folder / "store.db"), folder, request
        self.store = Store(self.url)
        self.store.create_study("s", request, {})

    def record(self):
        """That of a driver which begins now."""
        record = OptunaRecord(self.store, "s", self.request)
        record.planned(PLAN)
        return record

    def claim(self, layout, repeat=0, driver="a"):
        claim = TrialClaim(driver, layout, Purpose.EXPLORE, repeat, 0.0, None, self.folder)
        return self.store.claim_trial("s", claim, lambda held: Placement(()), 100)

    def begin(self, record, layout, repeat=0, driver="a"):
        trial = self.claim(layout, repeat, driver)
        record.trial_started(trial.number, 8, Proposal(layout, "why not", repeat=repeat))
        return trial.number

    def end(self, record, result, driver="a"):
        for step in result.steps:
            self.store.add_step("s", result.number, step, driver)
            record.step_measured(result.number, step)
        self.store.finish_trial("s", result, driver)
        record.trial_finished(result)

    def forget(self, number, driver="b"):
        """What a driver does with the trial of another that is gone."""
        self.store.beat("s", driver, 0.0)
        assert self.store.take_over("s", driver, lambda *_: True)
        self.store.forget_trial("s", number, driver, 0.0)

    @property
    def trials(self):
        return optuna.load_study(study_name="s", storage=self.url).trials

    @property
    def states(self):
        return [(trial.user_attrs.get("layout"), trial.state.name) for trial in self.trials]


@pytest.fixture
def drivers(tmp_path):
    return Drivers(tmp_path)


@pytest.mark.slow
def test_a_trial_is_seen_while_it_runs(drivers):
    record = drivers.record()
    number = drivers.begin(record, RANKED[-1].layout)
    record.step_measured(number, make_step(LoadStep(-1, 4.0, 1.0, 0, warmup=True), REQUEST, 500))
    record.step_measured(number, make_step(LoadStep(0, 4.0, 1.0, 0), REQUEST, 50))
    (trial,) = drivers.trials
    assert trial.state is optuna.trial.TrialState.RUNNING
    assert trial.params == {
        "tp": 4, "pp": 1, "dp": 1, "executor": "ray", "max_num_seqs": 128,
        "max_num_batched_tokens": RANKED[-1].layout.max_num_batched_tokens,
    }  # fmt: skip
    assert trial.user_attrs == {"layout": str(RANKED[-1].layout), "why": "why not", "repeat": 0}
    assert trial.intermediate_values == {0: 0.5}


@pytest.mark.slow
def test_a_measured_trial_has_its_value_its_constraint_and_its_steps(drivers):
    record = drivers.record()
    drivers.end(record, measured(drivers.begin(record, FIRST), FIRST, [20, 30, 150]))
    (trial,) = drivers.trials
    assert (trial.state.name, trial.value, trial.constraints) == ("COMPLETE", -8.0, {"slo": -1.0})
    assert trial.intermediate_values == {0: 0.2, 1: 0.3, 2: 1.5}
    assert trial.user_attrs["at 12 requests/s"] == [150, 15]


@pytest.mark.slow
def test_a_failed_trial_is_no_slow_trial(drivers):
    record = drivers.record()
    drivers.end(record, crashed(drivers.begin(record, FIRST), FIRST))
    (trial,) = drivers.trials
    assert (trial.state.name, trial.value, trial.intermediate_values) == ("FAIL", None, {})


@pytest.mark.slow
def test_values_order_like_merit(tmp_path):
    request = make_request({"slo.0.ms": 100})
    drivers = Drivers(tmp_path, request)
    record = drivers.record()
    outcomes = [[50, 90], [50, 150], [50, 300], [150], [300]]  # from holding the asked rate to missing half of it
    for candidate, ttft_ms in zip(RANKED, outcomes, strict=False):
        number = drivers.begin(record, candidate.layout)
        drivers.end(record, measured(number, candidate.layout, ttft_ms, request))
    values = [trial.value for trial in drivers.trials]
    assert values == sorted(set(values))
    assert [trial.constraints for trial in drivers.trials] == [{"slo": -1.0}] + [{"slo": 1.0}] * 4


@pytest.mark.slow
def test_a_trial_that_its_driver_did_not_live_to_end_fails(drivers):
    number = drivers.begin(drivers.record(), FIRST)
    drivers.forget(number)
    drivers.record()
    assert drivers.states == [(str(FIRST), "FAIL")]


@pytest.mark.slow
def test_a_trial_that_begins_again_ends_the_one_of_the_dead_driver(drivers):
    record = drivers.record()
    number = drivers.begin(drivers.record(), FIRST)
    drivers.forget(number)
    again = drivers.begin(record, FIRST, driver="b")
    assert drivers.states == [(str(FIRST), "FAIL"), (str(FIRST), "RUNNING")]
    drivers.end(record, measured(again, FIRST, [20] * 4), driver="b")
    record.ended("nothing is left")
    assert drivers.states == [(str(FIRST), "FAIL"), (str(FIRST), "COMPLETE")]


@pytest.mark.slow
def test_what_was_finished_but_not_told_is_told_by_the_next(drivers):
    result = measured(drivers.begin(drivers.record(), FIRST), FIRST, [20] * 4)
    for step in result.steps:
        drivers.store.add_step("s", 0, step, "a")
    drivers.store.finish_trial("s", result, "a")  # and its driver died
    for _ in range(2):
        drivers.record()
        assert drivers.states == [(str(FIRST), "FAIL"), (str(FIRST), "COMPLETE")]
    told = drivers.trials[-1]
    assert (told.value, told.constraints) == (-16.0, {"slo": -1.0})
    assert told.user_attrs["at 4 requests/s"] == [20, 2]
    assert told.user_attrs["why"] == "why not"


@pytest.mark.slow
def test_a_driver_that_begins_leaves_the_trials_of_others_alone(drivers):
    """Also one that the store has got since the other looked at it."""
    record = drivers.record()
    drivers.begin(record, FIRST)
    other = drivers.record()
    number = drivers.begin(other, SECOND, driver="b")
    drivers.begin(record, THIRD)
    other.ended("nothing is left")
    assert [state for _, state in drivers.states] == ["RUNNING"] * 3
    drivers.end(other, measured(number, SECOND, [20] * 4), driver="b")
    assert drivers.states[1] == (str(SECOND), "COMPLETE")


@pytest.mark.slow
def test_a_driver_that_was_thought_dead_is_not_brought_down(drivers):
    """It may report, and end, what another has ended by then."""
    record = drivers.record()
    number = drivers.begin(record, FIRST)
    result = measured(number, FIRST, [20] * 4)
    drivers.store.finish_trial("s", result, "a")
    drivers.record()  # of another driver, in the moment between the store's record and Optuna's
    record.step_measured(number, result.steps[0])
    record.trial_finished(result)
    assert drivers.states == [(str(FIRST), "FAIL"), (str(FIRST), "COMPLETE")]


@pytest.mark.slow
def test_a_queued_trial_is_not_taken_for_one_of_ours(drivers):
    drivers.record()
    study = optuna.load_study(study_name="s", storage=drivers.url)
    study.enqueue_trial({"tp": 16}, user_attrs={"layout": "tp=16,pp=1,dp=1"})
    drivers.begin(drivers.record(), FIRST)
    assert drivers.states == [("tp=16,pp=1,dp=1", "FAIL"), (str(FIRST), "RUNNING")]
    assert drivers.trials[1].params["tp"] == FIRST.tp


@pytest.mark.slow
def test_drivers_that_write_at_once_each_get_their_own_trial(drivers):
    failed = []

    def drive(driver, layouts):
        try:
            record = drivers.record()
            for layout in layouts:
                number = drivers.begin(record, layout, driver=driver)
                drivers.end(record, measured(number, layout, [20] * 4), driver=driver)
            record.ended("nothing is left")
        except BaseException as error:
            failed.append(error)

    halves = [[c.layout for c in RANKED[i::3]] for i in range(3)]
    threads = [threading.Thread(target=drive, args=(f"driver {i}", half)) for i, half in enumerate(halves)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    complete = [trial for trial in drivers.trials if trial.state.name == "COMPLETE"]
    assert sorted(t.user_attrs["layout"] for t in complete) == sorted(str(c.layout) for c in RANKED)
    for trial in complete:
        layout = ParallelLayout.parse(trial.user_attrs["layout"])
        assert trial.params == {axis: getattr(layout, axis) for axis in trial.params}


@pytest.mark.slow
def test_a_study_leaves_a_record_of_all_its_trials(tmp_path):
    world = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    study, _, _, store, _ = world.process({"budget.launches": 3})
    study.run(resume=False, facts={})
    trials = optuna.load_study(study_name="s", storage=world.url).trials
    ours = store.trials("s")
    assert [t.user_attrs["layout"] for t in trials] == [str(t.layout) for t in ours]
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3
    assert all(t.state is TrialState.MEASURED for t in ours)
