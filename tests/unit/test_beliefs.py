"""What people see of a search's belief: told as it goes on, kept, and drawn."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.report.belief_data import ShownBelief, ShownBeliefs
from deploy.report.belief_section import beliefs_section, latency_belief, objective_belief
from tests.fakes import make_candidate, make_request
from tests.world import World
from tuner.app.answers.beliefs import BeliefsAnswer
from tuner.app.tune.event_recorder import EventRecorder
from tuner.app.wiring import decision_of, shown
from tuner.search.belief import Forecast
from tuner.search.beliefs import SHOWN, beliefs
from tuner.search.choice import Outlook
from tuner.study.events import BELIEVED
from tuner.study.store import Store
from tuner.trial.results import TrialResult, TrialState

ROW = ShownBelief("tp=2,pp=1,dp=1", 2, 0.25, 0.9, (0.5, 0.8, 1.2), None)
BEST = replace(ROW, layout="tp=1,pp=1,dp=1", wins=0.0)


def believing(count, held, miss, e2e_ms=None):
    """A belief that is known outright: draws by candidate."""
    layouts = [f"tp={2**at},pp=1,dp=1" for at in range(count)]
    e2e_ms = np.ones(np.shape(miss)) if e2e_ms is None else e2e_ms
    forecast = Forecast(np.array(held), np.array(e2e_ms), np.array(miss))
    return SimpleNamespace(candidates=[make_candidate(text) for text in layouts], forecast=lambda: forecast)


def seeing(chance: list[float], meets: list[float], anything: float) -> Outlook:
    nothing = np.zeros(len(chance))
    return Outlook(np.array(chance), np.array(meets), nothing, anything, nothing, nothing)


def test_the_likeliest_winners_come_first_and_what_is_ruled_out_does_not():
    belief = believing(3, [[1, 1, 1]], [[-1.0, 0.0, 1.0]])
    seen = seeing([0.1, 0.7, 0.9], [0.5, 0.8, 0.9], 0.95)
    found = beliefs(make_request(), belief, np.array([True, True, False]), seen, ())
    assert [row.wins for row in found.rows] == [0.7, 0.1]
    assert (found.left, found.could_win, found.anything, found.best) == (2, 2, 0.95, None)


def test_the_best_measured_layout_is_told_of_beside_them():
    belief = believing(2, [[1, 1]], [[-1.0, 0.0]])
    seen = seeing([0.0, 0.0], [0.0, 0.0], 0.0)
    best = [TrialResult(0, belief.candidates[1].layout, TrialState.MEASURED)]
    found = beliefs(make_request(), belief, np.array([True, False]), seen, best)
    assert found.best is not None
    assert found.best.layout == belief.candidates[1].layout
    assert found.could_win == 0


def test_what_cannot_carry_the_rate_has_no_figure_there():
    belief = believing(1, [[0]] * 10, [[0.0]] * 8 + [[np.inf]] * 2)
    seen = seeing([1.0], [1.0], 1.0)
    (row,) = beliefs(make_request(), belief, np.array([True]), seen, ()).rows
    assert row.of_target == (1.0, 1.0, None)
    assert row.meets == 0.8


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("min_gpus", None), ("min_latency", (5.0, 5.0, 9.0)), ("max_goodput", (0.0, 4.0, 8.0))],
)
def test_the_objective_has_a_range_where_it_is_no_price(objective, expected):
    request = make_request({"objective": objective, "load.rates_req_per_s": [4, 8]})
    belief = believing(1, [[0], [1], [1], [2]], [[0.0]] * 4, [[5.0], [5.0], [9.0], [5.0]])
    seen = seeing([1.0], [1.0], 1.0)
    (row,) = beliefs(request, belief, np.array([True]), seen, ()).rows
    assert row.objective == expected


def test_no_more_are_listed_than_can_be_read():
    count = SHOWN + 5
    belief = believing(count, [[1] * count], [[0.0] * count])
    seen = seeing([1.0] * count, [1.0] * count, 1.0)
    found = beliefs(make_request(), belief, np.ones(count, dtype=bool), seen, ())
    assert (len(found.rows), found.left) == (SHOWN, count)


@pytest.mark.slow
def test_a_study_tells_before_its_first_trial_and_after_each(tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    world = World(url, tmp_path, believing=True)
    study, _, _, store, journal = world.process({"budget.launches": 2})
    kept = EventRecorder(store.events, "s", make_request())
    journal.believed = kept.believed
    study.run(False, {})
    told = [event for event in store.events.after("s", 0) if event.kind == BELIEVED]
    assert len(told) == 1 + len(store.snapshot("s").trials)
    first, *_, last = (BeliefsAnswer.model_validate(json.loads(event.data)) for event in told)
    assert first.best is None
    assert last.best is not None
    record = Store(url).study("s")
    data = shown(store, record, decision_of(store, record)[0], {})
    assert data.beliefs is not None
    assert data.beliefs.left == last.left
    store.close()


def test_the_chart_shows_what_could_win_what_hardly_and_the_best():
    hardly = replace(ROW, layout="tp=4,pp=1,dp=1", wins=0.001, of_target=(0.9, 2.0, None))
    figure = latency_belief(ShownBeliefs((ROW, hardly), 2, 1, 0.25, BEST, None))
    assert figure is not None
    assert [trace["name"] for trace in figure["data"]] == ["best measured", "could still win", "hardly", "SLO"]
    assert figure["data"][1]["text"] == ["25%"]
    assert figure["data"][2]["error_x"]["array"] == [0.5]  # an arm without an end reaches beyond all others


def test_a_price_has_no_chart_and_an_unknown_figure_no_point():
    assert objective_belief(ShownBeliefs((ROW,), 1, 1, 0.25, None, None)) is None
    lost = replace(ROW, of_target=(None, None, None))
    assert latency_belief(ShownBeliefs((lost,), 1, 1, 0.25, None, None)) is None


@pytest.mark.parametrize(
    ("left", "ended", "words"),
    [
        (0, False, "Nothing is left now"),
        (1, True, "One layout was left at the end"),
        (7, False, "7 layouts are left now"),
    ],
)
def test_it_is_said_in_words(left, ended, words):
    assert words in beliefs_section(ShownBeliefs((ROW,), left, 1, 0.25, BEST, None), ended)


def test_nothing_is_shown_of_a_study_that_told_nothing():
    assert beliefs_section(None, True) == ""
