"""A round that measures: what serves misses its SLO, and the model, which expects nothing better, is wrong."""

from __future__ import annotations

import pytest

from tests.unit.test_watcher_rounds import LONG, WIDE, serving
from tests.watch_world import POLICY, WatchWorld

pytestmark = pytest.mark.slow
SPACE = {"tp": [1], "dp": [1, 2], "max_num_batched_tokens": [2048, 4096, 8192], "front": ["ray_direct"]}


@pytest.fixture
def world(tmp_path):
    """Two replicas serve, on a cluster with room for as many, of another kind too, and none of more."""
    policy = POLICY.model_copy(update={"measure_hours": 24.0})
    made = WatchWorld(tmp_path, policy, asked=LONG | {"space": SPACE}, rate=30.0, prompt=2048.0)
    made.place.devices = made.nodes = 4
    made.watching = made.deploy()
    made.run(made.watching, 12)
    made.slow.update(str(one.deployment) for one in made.store.live.of("s"))
    yield made
    made.store.close()


def begins(world):
    return len(world.store.rounds.of("s")) == 2


def test_it_measures_once_a_day_and_says_why(world):
    assert serving(world)[0].startswith(WIDE)
    said = []
    for _ in range(59):
        world.tick()
        said.append(world.watcher(dry=True).iterate())
        found = world.watching.iterate()
        if begins(world):
            break
    assert begins(world)
    assert any("it measures" in text for text in found.acted)
    assert "by measurement" in found.judgement.why
    assert any("would decide anew: it measures" in text for one in said for text in one.acted)
    assert "acted" in world.kinds()
    world.decide("s.r2")
    first = world.store.rounds.of("s")
    world.run(world.watching, 40)
    assert world.store.rounds.of("s") == first


def test_the_policy_stops_it(world):
    world.store.watched.watch("s", world.policy.model_copy(update={"measure_hours": 0.0}), {"kind": "simulated"})
    world.run(world.watching, 40)
    assert not begins(world)
