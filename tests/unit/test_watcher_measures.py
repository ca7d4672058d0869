"""A round that measures: what serves misses its SLO, and the model, which expects nothing better, is wrong."""

from __future__ import annotations

import pytest

from tests.watch_world import POLICY, WatchWorld
from tuner.ask.layout import ParallelLayout
from tuner.retune.judgement import LayoutOutlook, Outlook
from tuner.retune.policy import RetunePolicy

pytestmark = pytest.mark.slow
SERVES, OTHER = ParallelLayout(), ParallelLayout(max_num_batched_tokens=8192)


def stuck(now, present, known, **_):
    """Nothing else is expected to do, or to carry more."""
    here = LayoutOutlook(present, 1, False, measured=True, goodput_req_per_s=10.0)
    other = LayoutOutlook(OTHER, 1, False, chance=0.1, goodput_req_per_s=10.0)
    return Outlook(here, other, spare_gpus=1, untried=other, untried_hours=0.01)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """One replica serves, on a cluster with room for another, and answers too late from some time on."""
    made = WatchWorld(tmp_path, POLICY.model_copy(update={"measure_hours": 24.0}))
    made.place.devices = made.nodes = 2
    made.watching = made.deploy()
    made.run(made.watching, 12)
    made.slow.add(str(SERVES))
    monkeypatch.setattr("tuner.app.watch.judging.outlook", stuck)
    yield made
    made.store.close()


def begins(world):
    return len(world.store.rounds.of("s")) == 2


def test_it_measures_once_a_day_and_says_why(world):
    world.store.watched.watch("s", RetunePolicy(consent="advise"), {"kind": "simulated"})
    world.run(world.watching, 12)
    world.store.watched.watch("s", world.policy, {"kind": "simulated"})
    assert world.watcher(dry=True).iterate().acted[0].startswith("would decide anew: it measures")
    assert not begins(world)
    found = world.run(world.watching, 3, until=lambda: begins(world))
    assert any("it measures" in text for text in found.acted)
    assert "by measurement" in found.judgement.why
    assert {"judged", "acted"} <= set(world.kinds())
    world.decide("s.r2")
    found = world.run(world.watching, 8)
    assert len(world.store.rounds.of("s")) == 2
    assert "measured" in found.judgement.held_by


def test_the_policy_stops_it(world):
    world.store.watched.watch("s", world.policy.model_copy(update={"measure_hours": 0.0}), {"kind": "simulated"})
    world.run(world.watching, 30)
    assert not begins(world)
