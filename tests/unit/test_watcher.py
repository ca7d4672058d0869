"""A watcher on a simulated place and a real store: it looks, judges, decides anew, rolls out; and what humans ask."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from tests.rollouts import a_live
from tests.watch_world import WatchWorld
from tuner.app.watch.first import let_go
from tuner.app.watch.options import DeployOptions
from tuner.app.watch.rounds import OwnRounds
from tuner.app.watch.run import run_deploy
from tuner.app.watch.wishes import proposed, say
from tuner.errors import BadInput
from tuner.retune.live import LiveState
from tuner.retune.policy import Consent, RetunePolicy
from tuner.retune.rollout import Step, Wish
from tuner.study.lifecycle import StudyState

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path):
    made = WatchWorld(tmp_path)
    yield made
    made.store.close()


def serving(world):
    return [str(one.deployment) for one in world.store.live.of("s") if one.state is LiveState.SERVING]


def test_a_study_that_holds_its_slo_is_left_alone(world):
    watcher = world.deploy()
    assert serving(world) == ["tp=1,pp=1,dp=1"]
    found = world.run(watcher, 20)
    assert (found.state, found.notices) == ("well", [])
    assert len(world.store.live.of("s")) == 1


def test_an_slo_that_burns_is_regained_by_another_layout(world):
    watcher = world.deploy()
    world.run(watcher, 6)
    world.slow.add("tp=1,pp=1,dp=1")
    world.nodes = 3
    world.place.devices = 3
    world.run(watcher, 59, until=lambda: serving(world) == ["tp=1,pp=1,dp=2"])
    rollout = world.store.rollouts.of("s")[0]
    assert rollout.outcome
    assert {"noticed", "judged", "acted", "rollout"} <= set(world.kinds())


def test_what_serves_is_not_deployed_again_and_nothing_of_it_changes(world, tmp_path):
    world.deploy()
    before = world.store.watched.watched("s").policy
    options = DeployOptions(
        "s", ray_address="127.0.0.1:1", out=tmp_path, store=f"sqlite:///{world.folder / 'store.db'}"
    )
    with pytest.raises(BadInput, match=r"one of which nothing serves.*looks after it"):
        run_deploy(options, Console())
    assert world.store.watched.watched("s").policy == before != RetunePolicy()


def test_what_is_watched_no_more_is_deployed_anew_once_it_is_gone(world, tmp_path, monkeypatch):
    world.deploy()
    world.store.watched.unwatch("s")
    monkeypatch.setattr("tuner.app.watch.run.place_of", lambda *_: world)
    options = DeployOptions(
        "s", ray_address="127.0.0.1:1", out=tmp_path, store=f"sqlite:///{world.folder / 'store.db'}"
    )
    with pytest.raises(BadInput, match="s-d1 is, and nobody watches it any more: end it first"):
        run_deploy(options, Console())
    assert world.store.watched.find("s") is None
    assert serving(world) == ["tp=1,pp=1,dp=1"]
    world.place.things.clear()
    world.place.shares, world.place.start_s = {}, 0.0
    run_deploy(options, Console())
    assert [(one.name, one.state.value) for one in world.store.live.of("s")] == [("s-d1", "ended"), ("s-d2", "serving")]
    assert world.place.shares == {"s-d2": 1.0}
    assert world.store.watched.find("s") is not None


def test_a_rollout_that_was_under_way_when_nobody_watched_any_more_ends(world):
    watcher = world.deploy()
    world.run(watcher, 6)
    rollout = replace(world.store.rollouts.of("s")[0], old="s-d1", new="s-d2", step=Step.STARTING, outcome="")
    claim = world.store.watched.claim("s", "me", lambda *_: True)
    begun = world.store.rollouts.begin(rollout, a_live("s-d2"), claim)
    world.store.watched.unwatch("s")
    world.store.watched.watch("s", RetunePolicy(), {})
    claim = world.store.watched.claim("s", "me", lambda *_: True)
    with pytest.raises(BadInput, match="s-d1 is, and nobody"):
        let_go(world.store, world, claim)
    world.place.things.clear()
    let_go(world.store, world, claim)
    assert world.store.rollouts.open("s") is None
    assert world.store.rollouts.get("s", begun.number).step is Step.FAILED


def test_a_fault_of_ours_in_a_round_is_not_begun_again_for_ever(world, tmp_path, monkeypatch):
    def fails(*_):
        raise KeyError("ours")

    monkeypatch.setattr("tuner.app.watch.rounds.bench", fails)
    rounds = OwnRounds(world.store, tmp_path, None)
    rounds.begin("s.r2", world.request)
    rounds.close()
    assert rounds.stands("s.r2") is StudyState.FAILED


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(world):
    watcher = world.deploy()
    world.run(watcher, 6)
    world.slow.add("tp=1,pp=1,dp=1")
    world.place.devices = world.nodes = 3
    world.store.watched.watch("s", RetunePolicy(consent="advise"), {"kind": "simulated"})
    world.run(watcher, 12)
    world.store.watched.watch("s", world.policy, {"kind": "simulated"})
    before = world.store.events.latest(["s"]), world.store.rollouts.of("s"), world.store.live.of("s")
    found = world.watcher(dry=True).iterate()
    assert found.acted[0].startswith("would roll out tp=1,pp=1,dp=2")
    assert (world.store.events.latest(["s"]), world.store.rollouts.of("s"), world.store.live.of("s")) == before


def test_another_process_knows_what_the_one_before_knew(world):
    watcher = world.deploy()
    world.run(watcher, 6)
    world.slow.add("tp=1,pp=1,dp=1")
    told = [one.kind for one in world.run(watcher, 3).notices]
    assert "slo_burn" in told
    world.store.watched.watch("s", RetunePolicy(consent="advise"), {"kind": "simulated"})
    again = world.watcher("another").iterate()
    assert [one.kind for one in again.notices] == told


def test_what_is_not_seen_is_blind_and_never_acted_upon(world):
    watcher = world.deploy()
    world.run(watcher, 6)
    world.away = True
    found = world.run(watcher, 4)
    assert found.state in ("blind", "failed")
    assert len(world.store.live.of("s")) == 1
    world.away = False
    assert world.run(watcher, 4).state == "well"


@pytest.fixture
def proposing(world):
    """One that waits for a human."""
    world.policy = world.policy.model_copy(update={"consent": Consent.APPROVE})
    watcher = world.deploy()
    world.run(watcher, 6)
    world.slow.add("tp=1,pp=1,dp=1")
    world.place.devices = world.nodes = 3
    world.run(watcher, 59, until=lambda: proposed(world.store, "s") is not None)
    return watcher


def test_what_waits_for_a_human_goes_on_with_one(world, proposing):
    world.run(proposing, 4)
    assert world.store.rollouts.open("s") is None
    assert say(world.store, "s", Wish.APPROVE, "ann") == "tp=1,pp=1,dp=2: approved"
    world.run(proposing, 59, until=lambda: serving(world) == ["tp=1,pp=1,dp=2"])
    assert world.store.audit.page()[0].action == "watch approve"


def test_a_veto_stands(world, proposing):
    say(world.store, "s", Wish.VETO, "ann")
    world.run(proposing, 10)
    assert world.store.rollouts.open("s") is None
    assert serving(world) == ["tp=1,pp=1,dp=1"]


def test_a_pause_holds_everything_until_it_is_resumed(world, proposing):
    say(world.store, "s", Wish.APPROVE, "ann")
    say(world.store, "s", Wish.PAUSE, "ann")
    found = world.run(proposing, 5)
    assert found.state == "held"
    assert "paused" in found.judgement.held_by
    with pytest.raises(BadInput, match="resume it first"):
        say(world.store, "s", Wish.FORCE, "ann")
    say(world.store, "s", Wish.RESUME, "ann")
    world.run(proposing, 59, until=lambda: serving(world) == ["tp=1,pp=1,dp=2"])


def test_force_begins_what_is_held(world, proposing):
    say(world.store, "s", Wish.FORCE, "ann")
    world.run(proposing, 3)
    assert world.store.rollouts.of("s")[0].step is not Step.PLANNED


def test_a_wish_that_means_nothing_is_refused(world):
    watcher = world.deploy()
    world.run(watcher, 2)
    with pytest.raises(BadInput, match="proposed"):
        say(world.store, "s", Wish.APPROVE, "ann")
    with pytest.raises(BadInput):
        say(world.store, "nobody", Wish.PAUSE, "ann")


def test_a_node_that_is_gone_under_the_layout_is_an_emergency(world):
    world.slow.add("tp=1,pp=1,dp=1")
    watcher = world.deploy()
    world.place.devices = world.nodes = 3
    world.run(watcher, 59, until=lambda: serving(world) == ["tp=1,pp=1,dp=2"] and not world.store.rollouts.open("s"))
    world.place.devices = world.nodes = 1
    world.place.kill(world.store.live.of("s")[-1].name)
    world.run(watcher, 20, until=lambda: len(world.store.live.of("s")) == 3)
    assert world.store.rollouts.of("s")[0].way == "replace"


def test_a_lost_node_ends_nothing_that_still_serves(world):
    """One of two replicas is gone with its node: the other one has the only device, and serves on."""
    world.slow.add("tp=1,pp=1,dp=1")
    watcher = world.deploy()
    world.place.devices = world.nodes = 3
    world.run(watcher, 59, until=lambda: serving(world) == ["tp=1,pp=1,dp=2"] and not world.store.rollouts.open("s"))
    world.place.devices = world.nodes = 1
    found = world.run(watcher, 8)
    assert found.judgement.action == "emergency"
    assert "no room beside what serves" in found.acted[0]
    assert serving(world) == ["tp=1,pp=1,dp=2"]
    world.place.kill(world.store.live.of("s")[-1].name)
    world.run(watcher, 20, until=lambda: len(world.store.live.of("s")) == 3)


def test_nodes_that_nobody_sees_are_no_emergency(tmp_path):
    """What serves needs more nodes than were asked for once; they joined later, and then nobody tells of them."""
    world = WatchWorld(tmp_path, asked={"cluster.nodes": 1})
    watcher = world.deploy()
    world.run(watcher, 6)
    world.slow.add("tp=1,pp=1,dp=1")
    world.place.devices = world.nodes = 3
    world.run(watcher, 59, until=lambda: serving(world) == ["tp=1,pp=1,dp=2"] and not world.store.rollouts.open("s"))
    world.unseen = True
    world.slow.add("tp=1,pp=1,dp=2")
    found = world.run(world.watcher("another"), 8)
    assert found.judgement.action == "hold"
    assert len(world.store.live.of("s")) == 2
    world.store.close()
