"""What a study has spent: the sum of its launches, of those that came to nothing too."""

from __future__ import annotations

import pytest

from tests.fakes import make_request
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Budget
from tuner.study.budget import Purse
from tuner.trial.ledger import Entry, Outcome, Spent, spent

ONE, TWO = ParallelLayout(gpu="l40s"), ParallelLayout(tp=2, gpu="h100_sxm")
PRICES = {"l40s": 1.0, "h100_sxm": 4.0}


def price(layout):
    return PRICES.get(layout.gpu)


def entry(layout, outcome=Outcome.ENDED, ordered_s=0.0, device_s=None, usd=None):
    return Entry("app", layout, outcome, ordered_s, device_s, usd)


def test_nothing_yet():
    assert spent([], 0.0, price) == Spent(0, 0.0, 0.0, 0.0, 0)


def test_the_sum_of_ended_running_and_lost_launches():
    entries = [
        entry(TWO, device_s=3600.0),
        entry(ONE, Outcome.RUNNING, ordered_s=600.0),
        entry(TWO, Outcome.LOST, device_s=1800.0),
    ]
    found = spent(entries, 1500.0, price)
    assert (found.launches, found.lost, found.minutes) == (2, 1, 25.0)
    assert found.gpu_hours == pytest.approx(1.0 + 0.25 + 0.5)
    assert found.usd == pytest.approx(4.0 + 0.25 + 2.0)


def test_a_launch_costs_what_its_devices_cost_when_it_began():
    assert spent([entry(TWO, device_s=3600.0, usd=2.5)], 0.0, price).usd == pytest.approx(2.5)


def test_what_nobody_knows_any_more_costs_as_the_dearest_device():
    lost = entry(None, Outcome.LOST, ordered_s=None, device_s=3600.0)
    assert spent([entry(ONE, device_s=0.0), entry(TWO, device_s=0.0), lost], 0.0, price).usd == pytest.approx(4.0)


def test_a_device_without_a_price_leaves_none_in_all():
    entries = [entry(TWO, device_s=3600.0), entry(ParallelLayout(), device_s=3600.0)]
    found = spent(entries, 0.0, price)
    assert (found.gpu_hours, found.usd) == (2.0, None)


@pytest.mark.parametrize(
    ("budget", "empty"),
    [
        ({"launches": 2, "minutes": 60}, "the budget of 2 launches"),
        ({"launches": 3, "minutes": 25}, "the budget of 25 minutes"),
        ({"launches": 3, "minutes": 60, "gpu_hours": 1.5}, "the budget of 1.5 GPU-hours"),
        ({"launches": 3, "minutes": 60, "usd": 6}, "the budget of 6 US dollars"),
        ({"launches": 3, "minutes": 60, "gpu_hours": 2, "usd": 7}, None),
    ],
)
def test_a_budget_is_held_against_the_same_sum(budget, empty):
    used = Spent(launches=2, minutes=25.0, gpu_hours=1.75, usd=6.25, lost=4)
    assert Purse(Budget(**budget), used, price).empty() == empty


def test_a_lost_launch_is_no_launch_of_the_budget():
    """It is begun again: a study that was killed ends with as many trials as one that was not."""
    budget = make_request({"budget.launches": 1}).budget
    lost = [entry(TWO, Outcome.LOST, device_s=10.0)]
    assert Purse(budget, spent(lost, 0.0, price), price).empty() is None
