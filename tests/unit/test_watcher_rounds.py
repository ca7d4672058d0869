"""A round: shorter prompts make what was measured say nothing, a smaller layout may do, and a study decides it anew;
with the watcher killed at each place between the judgement and the rollout."""

from __future__ import annotations

import pytest

from tests.watch_world import WatchWorld
from tuner.retune.live import LiveState
from tuner.study.lifecycle import StudyState

pytestmark = pytest.mark.slow
WIDE, NARROW = "tp=1,pp=1,dp=2", "tp=1,pp=1,dp=1"


LONG = {
    "workload.prompt_tokens.mean": 2048,
    "workload.arrival.requests_per_s": 30,
    "load": {"seconds": 4, "warmup_seconds": 1, "rates_req_per_s": [30]},
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 400}],
}


class Killed(BaseException):
    """Nothing that any code of ours catches."""


@pytest.fixture
def world(tmp_path):
    """Two replicas serve, on a cluster with room for more; then prompts are so short that one would do."""
    made = WatchWorld(tmp_path, asked=LONG, rate=30.0, prompt=2048.0)
    made.place.devices = made.nodes = 4
    made.watching = made.deploy()
    assert serving(made) == [WIDE]
    made.run(made.watching, 12)
    made.prompt = 256.0
    yield made
    made.store.close()


def serving(world):
    return [str(one.deployment) for one in world.store.live.of("s") if one.state is LiveState.SERVING]


def test_a_round_decides_on_what_is_free_and_its_winner_serves(world):
    world.run(world.watching, 59, until=lambda: len(world.store.rounds.of("s")) == 2)
    asked = world.store.study("s.r2").request
    assert asked.workload.prompt_tokens.mean == pytest.approx(256, rel=0.05)
    assert asked.cluster.nodes == 2  # of four, two serve
    found = world.run(world.watching, 3)
    assert found.state == "acting"
    assert "s.r2" in found.text
    assert world.store.rollouts.open("s") is None
    world.decide("s.r2")
    world.run(world.watching, 59, until=lambda: serving(world) == [NARROW])
    live = world.store.live.of("s")[-1]
    assert (live.study, live.trial is not None) == ("s.r2", True)


@pytest.mark.parametrize("at", ["take", "remember", "begin", "after"])
def test_a_watcher_killed_on_the_way_to_a_round_leaves_one_round(world, at, monkeypatch):
    def die(*_, **__):
        raise Killed

    def die_after(real):
        def call(*args):
            real(*args)
            die()

        return call

    with monkeypatch.context() as patch:
        if at == "take":
            patch.setattr(world.store.rounds, "take", die_after(world.store.rounds.take))
        elif at == "remember":
            takes = world.store.rounds.take

            def take(study):
                patch.setattr(world.store.watched, "remember", die)
                return takes(study)

            patch.setattr(world.store.rounds, "take", take)
        else:
            begins = world.watching.rounds.begin
            patch.setattr(world.watching.rounds, "begin", die if at == "begin" else die_after(begins))
        with pytest.raises(Killed):
            world.run(world.watching, 59)
    again = world.watcher("another")
    world.run(again, 10, until=lambda: world.store.listing.state("s.r2") is StudyState.QUEUED)
    world.decide("s.r2")
    world.run(again, 59, until=lambda: serving(world) == [NARROW])
    assert world.store.rounds.of("s") == ("s", "s.r2")
    assert len(world.store.rollouts.of("s")) == 2


def test_a_round_that_was_cancelled_changes_nothing(world):
    world.run(world.watching, 59, until=lambda: len(world.store.rounds.of("s")) == 2)
    world.store.change_state("s.r2", StudyState.CANCELLED)
    found = world.run(world.watching, 2)
    assert world.store.rollouts.open("s") is None
    assert serving(world) == [WIDE]
    assert found.state != "failed"
