"""A round that measures: the SLO is missed, and the model knows nothing better."""

from dataclasses import replace

import pytest

from tests.unit.test_judge import AUTO, BURN, HOUR, LONGER, NOW, OLD, expected, foreseen, hopeless, notice, regaining
from tests.unit.test_outlook import LARGE, REQUEST, SMALL, ask, now, trial
from tuner.ask.layout import ParallelLayout
from tuner.retune.judge import judge
from tuner.retune.judgement import Action, HeldBy
from tuner.retune.known import Known, Lived
from tuner.retune.notice import NoticeKind
from tuner.retune.policy import Consent

OTHER = ParallelLayout(tp=2, dp=4)
MISSED = replace(BURN, notices=(notice(NoticeKind.SLO_BURN, 2 * HOUR),), moved_s=NOW - 3 * HOUR)


def stuck(carries=9.5, spare=24):
    """Nothing is expected to do better than what serves, which carries 10 requests/s."""
    return replace(
        hopeless(), untried=expected(OTHER, False, 0.05, goodput=carries), untried_hours=0.5, spare_gpus=spare
    )


def test_where_the_model_knows_nothing_better_a_round_measures():
    found = judge(MISSED, AUTO, stuck())
    assert (found.action, found.measures) == (Action.RETUNE, True)
    assert found.outlook.best.deployment == OTHER
    assert found.outlook.tuning_gpu_hours == 4.0
    assert "by measurement" in found.why
    assert str(OTHER) in found.why


NOT = {
    "another is known to do": (MISSED, AUTO, replace(regaining(), untried=expected(OTHER, False, 0.05))),
    "another carries clearly more": (MISSED, AUTO, replace(stuck(), best=expected(OLD, False, 0.1, goodput=15.0))),
    "nobody saw that it is missed": (
        LONGER,
        AUTO,
        replace(foreseen(0.4, best=0.3), untried=expected(OTHER, None, 0.3)),
    ),
    "all were measured": (MISSED, AUTO, hopeless()),
    "the policy wants none": (MISSED, AUTO.model_copy(update={"measure_hours": 0}), stuck()),
    "no trials at all": (MISSED, AUTO.model_copy(update={"trials": "never"}), stuck()),
}


@pytest.mark.parametrize(("situation", "policy", "outlook"), NOT.values(), ids=NOT)
def test_else_none_does(situation, policy, outlook):
    assert not judge(situation, policy, outlook).measures


ANYWHERE = AUTO.model_copy(update={"in_place": True, "trials": "in_place"})
HELD = {
    "one was today": (replace(MISSED, measured_s=NOW - 23 * HOUR), AUTO, stuck(), HeldBy.MEASURED),
    "it has moved just now": (replace(MISSED, moved_s=NOW - 600), AUTO, stuck(), HeldBy.COOL_DOWN),
    "it has lasted for minutes": (BURN, AUTO, stuck(), HeldBy.NOT_FOR_LONG),
    "no GPU-hours are left": (replace(MISSED, gpu_hours_today=7.0), AUTO, stuck(), HeldBy.BUDGET),
    "no devices are spare": (MISSED, AUTO, stuck(carries=10.0, spare=4), HeldBy.NO_ROOM),
    "none are, wherever other trials may be": (MISSED, ANYWHERE, stuck(carries=10.0, spare=4), HeldBy.NO_ROOM),
    "a human has to agree": (MISSED, AUTO.model_copy(update={"consent": Consent.APPROVE}), stuck(), HeldBy.CONSENT),
    "it was refused": (replace(MISSED, vetoed=frozenset({OTHER})), AUTO, stuck(), HeldBy.VETOED),
    "it is paused": (replace(MISSED, paused=True), AUTO, stuck(), HeldBy.PAUSED),
}


@pytest.mark.parametrize(("situation", "policy", "outlook", "by"), HELD.values(), ids=HELD)
def test_what_holds_it(situation, policy, outlook, by):
    found = judge(situation, policy, outlook)
    assert (found.action, set(found.held_by), found.measures) == (Action.HOLD, {by}, False)


def test_a_day_later_the_next_may_begin():
    assert judge(replace(MISSED, measured_s=NOW - 24 * HOUR), AUTO, stuck()).measures


def test_what_is_untried_was_not_measured_and_is_not_far_behind():
    missed = Known(REQUEST, lived=(Lived(SMALL, 20.0, 1024.0, 128.0, met=False),))
    first = ask(SMALL, known=missed).untried
    assert first.deployment.tp != SMALL.tp  # of such engines the model is likely wrong alike
    tried = replace(missed, trials=(trial(first.deployment, 20.0, ms=90.0),))
    second = ask(SMALL, known=tried).untried
    assert second.deployment != first.deployment
    carries = ask(SMALL, known=missed).present.goodput_req_per_s
    assert min(first.goodput_req_per_s, second.goodput_req_per_s) >= 0.8 * carries


def test_what_missed_the_slo_this_week_is_not_gone_back_to_to_save():
    """A lighter load says nothing against it, but the week is not over."""
    known = Known(REQUEST, lived=(Lived(SMALL, 25.0, 1024.0, 128.0, met=False, at_s=NOW),))
    assert ask(LARGE, known=known).best.deployment == SMALL
    left = known.left(now(), NOW + 24 * HOUR)
    assert ask(LARGE, known=known, left=left).best.deployment != SMALL
    assert not known.left(now(), NOW + 8 * 24 * HOUR)
    assert not known.left(now(count=3), NOW + 24 * HOUR)  # other nodes
