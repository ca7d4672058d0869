"""Which looks a canary keeps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.rollouts import a_rollout
from tuner.app.watch.canaries import Canaries
from tuner.retune.rollout import Step
from tuner.retune.seen import Look


@pytest.mark.parametrize(
    ("step", "begun_s", "kept"), [(Step.CANARY, 100.0, 1), (Step.CANARY, 100.5, 0), (Step.WARMING, 100.0, 0)]
)
def test_first_requests_before_the_canary_do_not_count(step, begun_s, kept):
    found = []
    store = SimpleNamespace(rollouts=SimpleNamespace(add_look=lambda *look: found.append(look)))
    looks = {name: Look(115.0, 15.0, arrived=10.0, failed=0.0) for name in ("new", "old")}
    Canaries(store).keep(a_rollout(step=step, step_since_s=begun_s), looks, None)
    assert len(found) == kept
