"""What looks and notices show of the layout that serves: in its busy hours, just now, and of a load that grows."""

from dataclasses import replace

import pytest

from tests.unit.test_outlook import ANSWERS, REQUEST, SMALL, now
from tuner.ask.request import Metric
from tuner.retune.demand import PROMPT, RATE, LoadRecord
from tuner.retune.evidence import informed, lived_since, since_alike
from tuner.retune.known import Known, Lived
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look, Tokens
from tuner.stats.buckets import Within

DAY_S, STEP_S, KEY = 86_400.0, 300.0, (Metric.TPOT, 95.0)
LONGER = Notice(NoticeKind.WORKLOAD_SHIFT, PROMPT, "", 1.0, 0.0, {"prompt_tokens_before": 512.0, PROMPT: 1024.0})


def served(days, within=lambda at_s: 1.0, prompt=lambda at_s: 1024.0, rate=lambda at_s: 20.0):
    """A record of looks of five minutes; ``within`` is the share of requests that meet the target."""
    record = LoadRecord()
    for i in range(1, int(days * DAY_S / STEP_S) + 1):
        at_s = i * STEP_S
        count = STEP_S * rate(at_s)
        good = count * within(at_s)
        tokens = Tokens(count, prompt(at_s))
        record.add(Look(at_s, STEP_S, count, 0.0, {KEY: Within(count, good, good, good)}, {}, tokens, ANSWERS))
    return record


@pytest.mark.parametrize(
    ("hours", "met"), [(0.0, True), (1 / 6, True), (2.0, False)], ids=["never", "a burst", "busy hours"]
)
def test_a_layout_that_misses_its_slo_in_busy_hours_does_not_serve_well(hours, met):
    """Seven of a hundred miss where five may: no budget burns by a day's mean."""
    record = served(1.5, lambda at_s: 0.93 if 50_000 < at_s <= 50_000 + 3600 * hours else 0.99)
    found = lived_since(record, SMALL, 0.0, 1.5 * DAY_S)
    assert found == Lived(SMALL, 20.0, 1024.0, 128.0, met=met)


def test_that_it_misses_its_slo_is_known_before_a_day_is_over():
    record = served(0.25, lambda at_s: 0.9)
    assert lived_since(record, SMALL, 0.0, 0.25 * DAY_S).met is False


def test_what_was_shown_before_the_engine_changed_is_not_of_now():
    changed = Notice(NoticeKind.VERSION_CHANGED, "vllm", "", 1.0, 5000.0)
    assert since_alike(1000.0, [changed, replace(LONGER, since_s=9000.0)]) == 5000.0
    assert since_alike(7000.0, [changed]) == 7000.0
    assert since_alike(1000.0, [replace(changed, confidence=0.5)]) == 1000.0


def test_targets_that_are_missed_just_now_speak_against_it_under_a_heavier_load():
    assert informed(Known(REQUEST), [LONGER], SMALL, now(), missing=True).shown(now()) == {SMALL: False}
    lighter = replace(LONGER, figures={"prompt_tokens_before": 2048.0, PROMPT: 1024.0})
    assert not informed(Known(REQUEST), [lighter], SMALL, now(), missing=True).shown(now())


def test_while_requests_grow_longer_the_room_that_was_asked_for_is_not_taken_for_granted():
    known = Known(REQUEST, lived=(Lived(SMALL, 18.0, 1024.0, 128.0, met=True),))
    assert informed(known, [], SMALL, now()).shown(now()) == {SMALL: True}
    assert not informed(known, [LONGER], SMALL, now()).shown(now())
    whole = replace(known, lived=(Lived(SMALL, 20.0, 1024.0, 128.0, met=True),))
    assert informed(whole, [LONGER], SMALL, now()).shown(now()) == {SMALL: True}


GROWTHS = {
    "as they were": (lambda at_s: 1000.0, 1.0),
    "a tenth a day": (lambda at_s: 1000.0 * 1.1 ** (at_s / DAY_S), 1.1),
    "doubled this morning": (lambda at_s: 1000.0 if at_s < 2.6 * DAY_S else 2000.0, 1.0),
    "longer by night": (lambda at_s: 1000.0 if at_s % DAY_S < DAY_S / 2 else 3000.0, 1.0),
    "shorter": (lambda at_s: 1000.0 * 0.9 ** (at_s / DAY_S), 1.0),
    "far too fast for a drift": (lambda at_s: 1000.0 * 2 ** (at_s / DAY_S), 1.25),
}


@pytest.mark.parametrize(("prompt", "factor"), GROWTHS.values(), ids=GROWTHS)
def test_lengths_that_grow_by_the_day_are_planned_for_a_day_ahead(prompt, factor):
    record, at_s = served(3, prompt=prompt), 3 * DAY_S
    shift = replace(LONGER, since_s=at_s - DAY_S)
    latest = [prompt(at_s - STEP_S * i) for i in range(1, 73)]  # of six hours
    assert record.demand(at_s, [shift]).prompt.mean == pytest.approx(factor * sum(latest) / 72, rel=0.02)


def test_what_comes_now_has_to_be_carried_where_the_slo_is_missed():
    risen = lambda at_s: 20.0 if at_s <= DAY_S - 600 else 50.0  # noqa: E731
    well, ill = (served(1, lambda at_s, ill=ill: 0.5 if ill else 1.0, rate=risen) for ill in (False, True))
    assert well.demand(DAY_S).req_per_s == pytest.approx(20.0)
    assert 45 < ill.demand(DAY_S).req_per_s < 50


def test_a_shift_of_the_rate_alone_leaves_lengths_as_they_are():
    record, at_s = served(3, prompt=lambda at_s: 1000.0 * 1.1 ** (at_s / DAY_S)), 3 * DAY_S
    shift = Notice(NoticeKind.WORKLOAD_SHIFT, RATE, "", 1.0, 2.5 * DAY_S)
    assert record.demand(at_s, [shift]).prompt == record.demand(at_s).prompt


def test_a_shift_that_was_heeded_is_not_averaged_away():
    record, at_s = served(3, prompt=lambda at_s: 1000.0 if at_s < 2.9 * DAY_S else 4000.0), 3 * DAY_S
    assert record.demand(at_s).prompt.mean < 1500
    record.heed([replace(LONGER, since_s=2.9 * DAY_S)])
    assert record.demand(at_s).prompt.mean == pytest.approx(4000.0)


def test_what_the_layout_before_missed_is_not_held_against_the_next():
    record = served(0.25, lambda at_s: 0.5)
    assert record.missing
    record.heed([])
    assert not record.missing
    assert record.missed_s(0.0) == 0
