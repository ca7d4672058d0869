"""What came in is judged under the load that was seen before it, as long as nobody has seen enough of its own: a layout
that has just missed that load is not gone back to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rollouts import a_live
from tests.unit.test_whole import HERE, ROUNDS, THERE, Kept
from tests.watch_world import POLICY
from tuner.app.watch.judging import Case, judged
from tuner.app.watch.memory import Memory
from tuner.retune.demand import Demand, LoadRecord
from tuner.retune.known import Lived
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look, Tokens
from tuner.retune.situation import Situation

NOW_S = 1e6
BURNS = Notice(NoticeKind.SLO_BURN, "ttft p95", "40% of 200 requests miss", 1.0, NOW_S - 600.0)
GROWN = Demand(2.0, Tokens(500.0, 4096.0, None), Tokens(500.0, 128.0, None), 0.0)


def judged_of(load, before, lived=()):
    live = replace(a_live("s-d2"), deployment=HERE, study="s")
    situation = Situation(NOW_S, notices=(BURNS,), moved_s=NOW_S - 700.0)
    case = Case(live, load, (), situation, ROUNDS, lived, before=before)
    return judged(Kept(), case, POLICY, lambda _: None)


@pytest.mark.slow
@pytest.mark.long
def test_a_load_does_not_go_back_to_what_was_asked_as_the_layout_changes():
    missed = tuple(
        Lived(one, 2.0, 4000.0, 128.0, met=False) for one in (THERE, replace(THERE, dp=2), replace(HERE, dp=2))
    )
    found = judged_of(LoadRecord(), GROWN, missed)
    assert found.now.request.workload.prompt_tokens.mean == pytest.approx(4096, rel=0.05)
    assert {one.deployment for one in found.known.lived if not one.met} >= {HERE, THERE}
    shown = found.known.shown(found.now)
    assert not any(shown[one.deployment] for one in missed)
    assert judged_of(LoadRecord(), Demand(), missed).now.request.workload.prompt_tokens.mean == 1024


@pytest.mark.slow
def test_what_is_seen_counts_from_the_moment_that_it_is():
    load = LoadRecord()
    for at_s in range(0, 3 * 900, 30):
        seen = Tokens(60.0, 2048.0, 10.0), Tokens(60.0, 128.0, 10.0)
        load.add(Look(NOW_S - 2700.0 + at_s, 30.0, arrived=60.0, prompt=seen[0], output=seen[1]))
    assert judged_of(load, GROWN).now.request.workload.prompt_tokens.mean == pytest.approx(2048, rel=0.05)


@pytest.mark.slow
def test_the_load_is_remembered_with_what_was_learnt_under_it():
    found = judged_of(LoadRecord(), GROWN)
    memory = Memory().learnt(found.known, found.now)
    again = Memory.of(memory.model_dump(mode="json")).demand
    assert again.req_per_s == 2.0
    assert again.prompt.mean == pytest.approx(4096, rel=0.05)
    assert again.output.mean == 128
    assert Memory().demand == Demand()
    assert Memory().learnt(None, None) == Memory()
