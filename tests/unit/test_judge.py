"""What is to be done about what is deployed: a table of situations, each with what must be answered."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.layout import ParallelLayout
from tuner.retune.judge import judge, pays_back_hours
from tuner.retune.judgement import Action, HeldBy, LayoutOutlook, Outlook
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.policy import Consent, MaintenanceWindow, RetunePolicy
from tuner.retune.situation import Situation

NOW = 1_760_000_000.0  # Thursday, 2025-10-09 08:53 UTC
HOUR = 3600.0
OLD, NEW = ParallelLayout(tp=8, dp=2), ParallelLayout(tp=4, dp=2)
AUTO = RetunePolicy(consent="auto", cool_down_hours=24, gpu_hours_per_day=10)


def notice(kind=NoticeKind.WORKLOAD_SHIFT, ago_s=2 * HOUR):
    return Notice(kind, "rate", f"{kind.value} with figures", 0.999, NOW - ago_s)


def expected(layout, meets, chance=None, measured=False, goodput=10.0):
    return LayoutOutlook(layout, layout.devices, meets, None, {}, chance, measured, goodput)


def saving(measured=True, gain=0.5, chance=0.9):
    best = expected(NEW, True, None if measured else chance, measured)
    return Outlook(expected(OLD, True, 0.95), best, gain, gain * 16, False, 0.0 if measured else 2.0, 1.0, 16)


def regaining(chance=0.9, measured=False):
    best = expected(OLD, True, None if measured else chance, measured)
    return Outlook(expected(NEW, False, measured=True), best, -1.0, -8.0, True, 0.0 if measured else 4.0, 1.0, 24)


def foreseen(chance, best=0.9):
    """Nobody saw the present layout miss its SLO; the model says how likely it meets it."""
    present = expected(NEW, False if chance <= 0.2 else None, chance)
    found = expected(OLD, True if best >= 0.8 else None, best)
    return Outlook(present, found, -1.0, -8.0, present.meets is False, 4.0, 1.0, 24)


def hopeless(carries=10.0):
    best = expected(OLD, False, 0.1, goodput=carries)
    return Outlook(expected(NEW, False, measured=True, goodput=10.0), best, -1.0, -8.0, False, 4.0, 1.0, 24)


def lost(best=True, regains=True):
    found = expected(NEW, None, 0.7 if regains else 0.1, measured=False) if best else None
    return Outlook(None, found, regains_slo=regains, spare_gpus=8)


SHIFT = Situation(NOW, (notice(),), moved_s=NOW - 100 * HOUR)
LONGER = replace(SHIFT, notices=(replace(notice(), of="prompt_tokens"),))
BURN = Situation(NOW, (notice(NoticeKind.SLO_BURN, 600),), moved_s=NOW - HOUR)
GONE = Situation(NOW, (notice(NoticeKind.NODE_LOST, 5),), moved_s=NOW - HOUR)
BLIND = notice(NoticeKind.BLIND)

ACTS = {
    "nothing was noticed": (Situation(NOW), AUTO, None, Action.NOTHING),
    "a shift, and nothing better": (SHIFT, AUTO, saving(gain=0.0), Action.NOTHING),
    "a shift, and what is better is unlikely to hold": (SHIFT, AUTO, saving(False, chance=0.4), Action.NOTHING),
    "a saving that was measured": (SHIFT, AUTO, saving(), Action.MOVE),
    "a saving that only the model knows": (SHIFT, AUTO, saving(measured=False), Action.RETUNE),
    "the same, sure, where no trial is allowed": (
        SHIFT,
        AUTO.model_copy(update={"trials": "never"}),
        saving(measured=False),
        Action.MOVE,
    ),
    "an SLO missed for long, and something lighter just now": (
        replace(BURN, notices=(*BURN.notices, notice(ago_s=10))),
        AUTO,
        regaining(),
        Action.MOVE,
    ),
    "an SLO that the model alone expects to be missed": (SHIFT, AUTO, foreseen(0.1), Action.RETUNE),
    "longer requests, with which it likely will be": (LONGER, AUTO, foreseen(0.4), Action.RETUNE),
    "the same, of a rate": (SHIFT, AUTO, foreseen(0.4), Action.NOTHING),
    "the same, and nothing else is sure to meet it": (LONGER, AUTO, foreseen(0.4, 0.7), Action.NOTHING),
    "an SLO that another layout surely meets": (BURN, AUTO, regaining(), Action.MOVE),
    "an SLO that a measured layout meets": (BURN, AUTO, regaining(measured=True), Action.MOVE),
    "an SLO that is missed once it has settled": (
        replace(BURN, moved_s=NOW - 150, settles_s=30.0),
        AUTO,
        regaining(),
        Action.MOVE,
    ),
    "an SLO that another layout likely meets": (BURN, AUTO, regaining(chance=0.6), Action.MOVE),
    "no layout meets the SLO, one carries far more": (BURN, AUTO, hopeless(15.0), Action.MOVE),
    "a node lost under the layout": (GONE, AUTO, lost(), Action.EMERGENCY),
    "the same, though the SLO cannot be met": (GONE, AUTO, lost(regains=False), Action.EMERGENCY),
    "the same, blind to the metrics": (replace(GONE, notices=(*GONE.notices, BLIND)), AUTO, lost(), Action.EMERGENCY),
    "the same, outside all windows": (
        GONE,
        AUTO.model_copy(update={"windows": (MaintenanceWindow(days=("sun",)),)}),
        lost(),
        Action.EMERGENCY,
    ),
    "a node lost beside the layout": (GONE, AUTO, replace(saving(gain=0.0), spare_gpus=0), Action.NOTHING),
    "what serves was never measured": (
        Situation(NOW, moved_s=NOW - 100 * HOUR, unmeasured=True),
        AUTO,
        saving(measured=False),
        Action.RETUNE,
    ),
}

HOLDS = {
    "blind, and nothing else": (Situation(NOW, (BLIND,)), AUTO, None, {HeldBy.BLIND}),
    "blind, and a saving": (replace(SHIFT, notices=(notice(), BLIND)), AUTO, saving(), {HeldBy.BLIND}),
    "blind, and nothing better": (replace(SHIFT, notices=(notice(), BLIND)), AUTO, saving(gain=0.0), {HeldBy.BLIND}),
    "the model cannot say": (SHIFT, AUTO, None, {HeldBy.BLIND}),
    "just now": (
        replace(SHIFT, notices=(notice(ago_s=60),)), AUTO, saving(), {HeldBy.NOT_FOR_LONG}),
    "an SLO missed just now": (
        replace(BURN, notices=(notice(NoticeKind.SLO_BURN, 60),)), AUTO, regaining(), {HeldBy.NOT_FOR_LONG}),
    "after a weightier reason just now": (
        replace(SHIFT, notices=(notice(), notice(NoticeKind.SLO_BURN, 60))), AUTO, regaining(), {HeldBy.NOT_FOR_LONG}),
    "after a change": (replace(SHIFT, moved_s=NOW - HOUR), AUTO, saving(), {HeldBy.COOL_DOWN}),
    "an SLO missed right after a change": (
        replace(BURN, moved_s=NOW - 60), AUTO, regaining(), {HeldBy.COOL_DOWN}),
    "an SLO that may be missed, right after a change": (
        replace(LONGER, moved_s=NOW - HOUR), AUTO, foreseen(0.4), {HeldBy.COOL_DOWN}),
    "outside the windows": (
        SHIFT, AUTO.model_copy(update={"windows": (MaintenanceWindow(days=("sun",)),)}), saving(), {HeldBy.WINDOW}),
    "no GPU-hours left": (replace(SHIFT, gpu_hours_today=9), AUTO, saving(measured=False), {HeldBy.BUDGET}),
    "too small a gain": (SHIFT, AUTO, saving(gain=0.04), {HeldBy.GAIN}),
    "a gain that costs too much": (
        SHIFT, AUTO.model_copy(update={"horizon_hours": 0.1}), saving(measured=False), {HeldBy.GAIN}),
    "no layout meets the SLO": (BURN, AUTO, hopeless(), {HeldBy.GAIN}),
    "no room to move": (BURN, AUTO, replace(regaining(), spare_gpus=8), {HeldBy.NO_ROOM}),
    "no room for trials": (SHIFT, AUTO, replace(saving(measured=False), spare_gpus=7), {HeldBy.NO_ROOM}),
    "nobody knows of room": (SHIFT, AUTO, replace(saving(), spare_gpus=None), {HeldBy.NO_ROOM}),
    "no trial allowed": (
        SHIFT, AUTO.model_copy(update={"trials": "never"}), saving(False, chance=0.6), {HeldBy.CONSENT}),
    "advice alone": (SHIFT, AUTO.model_copy(update={"consent": Consent.ADVISE}), saving(), {HeldBy.CONSENT}),
    "not approved": (SHIFT, AUTO.model_copy(update={"consent": Consent.APPROVE}), saving(), {HeldBy.CONSENT}),
    "paused": (replace(SHIFT, paused=True), AUTO, saving(), {HeldBy.PAUSED}),
    "vetoed": (replace(SHIFT, vetoed=frozenset({NEW})), AUTO, saving(), {HeldBy.VETOED}),
    "a rollout": (replace(SHIFT, rollout="number 3 is under way"), AUTO, saving(), {HeldBy.ROLLOUT}),
    "changed by hand": (replace(SHIFT, foreign="dp=3 by hand"), AUTO, saving(), {HeldBy.FOREIGN}),
    "an emergency, paused": (replace(GONE, paused=True), AUTO, lost(), {HeldBy.PAUSED}),
    "an emergency in a rollout": (replace(GONE, rollout="number 3 is under way"), AUTO, lost(), {HeldBy.ROLLOUT}),
    "an emergency, changed by hand": (replace(GONE, foreign="dp=3 by hand"), AUTO, lost(), {HeldBy.FOREIGN}),
    "an emergency, not approved": (
        GONE, AUTO.model_copy(update={"emergency": Consent.APPROVE}), lost(), {HeldBy.CONSENT}),
    "an emergency, and nothing fits": (GONE, AUTO, lost(best=False), {HeldBy.NO_ROOM}),
    "several at once, each named": (
        replace(SHIFT, paused=True, moved_s=NOW - HOUR), AUTO.model_copy(update={"consent": Consent.APPROVE}),
        saving(), {HeldBy.PAUSED, HeldBy.COOL_DOWN, HeldBy.CONSENT}),
}  # fmt: skip


@pytest.mark.parametrize(("situation", "policy", "outlook", "action"), ACTS.values(), ids=ACTS)
def test_what_is_done(situation, policy, outlook, action):
    found = judge(situation, policy, outlook)
    assert found.action is action
    assert not found.held_by
    assert found.why.endswith(".")
    assert found.at_s == NOW


@pytest.mark.parametrize(("situation", "policy", "outlook", "held_by"), HOLDS.values(), ids=HOLDS)
def test_what_is_held_and_by_what(situation, policy, outlook, held_by):
    found = judge(situation, policy, outlook)
    assert found.action is Action.HOLD
    assert set(found.held_by) == held_by
    assert all(words in found.why for words in found.held_by.values())


def test_a_human_agrees_to_a_layout():
    policy = AUTO.model_copy(update={"consent": Consent.APPROVE})
    assert judge(replace(SHIFT, approved=frozenset({NEW})), policy, saving()).action is Action.MOVE
    assert judge(replace(SHIFT, approved=frozenset({OLD})), policy, saving()).action is Action.HOLD


def test_an_operator_reads_a_sentence_with_figures():
    found = judge(replace(SHIFT, moved_s=NOW - HOUR), AUTO, saving())
    assert found.why == (
        "Workload_shift with figures; tp=4,pp=1,dp=2 saves 50%, as was measured, and pays back in 0.1 h. Held: the "
        "layout changed 2025-10-09 07:53 UTC; the next change may come 2025-10-10 07:53 UTC."
    )


KINDS = st.sampled_from([kind for kind in NoticeKind if kind is not NoticeKind.BLIND])
NOTICES = st.lists(st.builds(notice, KINDS, st.floats(0, 1e6)), max_size=4).map(tuple)
OUTLOOKS = st.one_of(
    st.builds(saving, st.booleans(), st.floats(-2, 1), st.floats(0, 1)),
    st.builds(regaining, st.floats(0.5, 1), st.booleans()),
    st.builds(hopeless, st.floats(1, 100)),
)
SITUATIONS = st.builds(Situation, st.just(NOW), NOTICES, st.floats(0, NOW), unmeasured=st.booleans())
POLICIES = st.builds(
    RetunePolicy,
    consent=st.just("auto"),
    horizon_hours=st.floats(1, 1000),
    least_gain=st.floats(0.01, 0.5),
    persists_minutes=st.floats(0, 100),
    cool_down_hours=st.floats(0, 100),
    trials=st.sampled_from(["never", "spare", "in_place"]),
    in_place=st.booleans(),
)
DOES = {Action.RETUNE, Action.MOVE, Action.EMERGENCY}


@given(SITUATIONS, POLICIES, OUTLOOKS)
def test_blind_it_never_acts(situation, policy, outlook):
    found = judge(replace(situation, notices=(*situation.notices, BLIND)), policy, outlook)
    assert found.action is Action.HOLD
    assert HeldBy.BLIND in found.held_by


@pytest.mark.slow
@given(SITUATIONS, POLICIES, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_what_is_done_for_a_gain_is_done_for_a_greater_one(situation, policy, one, two, measured):
    less, more = sorted((one, two))
    if judge(situation, policy, saving(measured, less)).action in DOES:
        assert judge(situation, policy, saving(measured, more)).action in DOES


@given(SITUATIONS, POLICIES, OUTLOOKS)
def test_a_move_is_never_worth_its_reverse(situation, policy, outlook):
    """On the same observations: what was seen of the layout that was left stays as it is."""
    if judge(situation, policy, outlook).action not in DOES or outlook.present is None or outlook.best is None:
        return
    share, unit = outlook.gain, outlook.gain_per_hour / outlook.gain if outlook.gain else 0.0
    back = -share / (1 - share) if share < 1 else -1e9
    reverse = Outlook(
        outlook.best, outlook.present, back, back * unit * (1 - share), False, 0.0, outlook.moving_gpu_hours, 64
    )
    assert judge(replace(situation, moved_s=0.0), policy, reverse).action not in DOES


@pytest.mark.slow
@given(SITUATIONS, POLICIES, OUTLOOKS)
def test_the_same_is_judged_alike_and_nothing_without_a_reason(situation, policy, outlook):
    found = judge(situation, policy, outlook)
    assert found == judge(situation, policy, outlook)
    if situation.reason is None:
        assert found.action is Action.NOTHING


def test_how_long_a_gain_must_last():
    assert pays_back_hours(saving()) == pytest.approx(1.0 / 8)
    assert pays_back_hours(saving(measured=False, chance=0.5)) == pytest.approx(3.0 / 4)
    assert pays_back_hours(regaining()) == float("inf")


def test_a_reason_that_lies_ahead_of_the_clock_has_lasted_no_time():
    ahead = replace(SHIFT, notices=(notice(ago_s=-20),))
    held = judge(ahead, AUTO, saving()).held_by[HeldBy.NOT_FOR_LONG]
    assert held.startswith("it has lasted 0 min of the")
