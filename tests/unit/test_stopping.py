"""The sentence that says why a study launched no more."""

from __future__ import annotations

from dataclasses import replace

from tuner.ask.request import Objective
from tuner.decide.stopping import NextLaunch, Stopped, Sum, Unconfirmed

LAUNCH = NextLaunch("tp=1", Sum(0.13, 0.4), 0.03, Objective.MIN_COST, 0.02, Sum(0.005, 0.0144))
STOPPED = Stopped(24.0, 0.03, 0.01, launch=LAUNCH)


def test_the_trade_is_one_sentence():
    assert STOPPED.sentence == (
        "Stopped: another launch costs 0.40 US dollars, and could save 0.02 US dollars per hour with a probability of "
        "3 %, which is worth 0.01 US dollars over 24 h."
    )


def test_what_has_no_price_is_told_in_gpu_hours_and_in_the_unit_of_the_objective():
    free = NextLaunch("tp=1", Sum(0.13, None), 0.12, Objective.MAX_GOODPUT, 2.5, Sum(0.005, None))
    assert replace(STOPPED, launch=free).sentence == (
        "Stopped: another launch costs 0.13 GPU-hours, and could serve 2.50 requests/s more with a probability of "
        "12 %, which is worth 0.005 GPU-hours over 24 h."
    )


def test_a_budget_that_ended_it_is_named_first():
    text = replace(STOPPED, budget="the budget of 6 launches is spent").sentence
    assert text.startswith(
        "Stopped: the budget of 6 launches is spent; another launch costs 0.40 US dollars, and could"
    )


def test_ties_and_a_winner_that_was_measured_once_are_told():
    hopeless = replace(LAUNCH, chance=0.0, gain=0.0)
    once = Unconfirmed(Sum(0.1, 0.3), 0.00004, Sum(0.001, 0.003))
    assert Stopped(24.0, 0.03, 0.01, None, hopeless, once, 3).sentence == (
        "Stopped: nothing is left that could win by over 3%; 3 other layouts tie with the winner within 3%. A second "
        "run of the winner would cost 0.30 US dollars, and it fails to hold with a probability of less than 0.1 %."
    )
    assert "; 1 other layout ties with the winner" in Stopped(24.0, 0.03, 0.01, None, None, None, 1).sentence


def test_without_anything_left_it_says_that():
    assert Stopped(24.0, 0.03, 0.01).sentence == "Stopped: nothing is left that could win."


def test_a_chance_that_is_none_is_worth_nothing():
    text = replace(STOPPED, launch=replace(LAUNCH, chance=0.0039)).sentence
    assert text.endswith("with a probability of 0.39 %, too little to be told from none.")


def test_whole_figures_are_told_as_such():
    assert "could save 4 devices" in replace(LAUNCH, objective=Objective.MIN_GPUS, gain=4.0).words
