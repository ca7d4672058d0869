"""Two driver processes work on one study; one is killed, and what it did is neither lost nor done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.driver_process import LAUNCHES
from tuner.study.store import Store
from tuner.trial.results import TrialState

PATIENCE_S = 60


@pytest.fixture
def driver(url, tmp_path):
    """Start a driver of the study; all are gone at the end."""
    started = []

    def start():
        words = [sys.executable, "-m", "tests.driver_process", url, str(tmp_path)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(process):
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out


def test_a_killed_driver_loses_nothing_and_nothing_is_launched_twice(driver, url, tmp_path):
    def noted():
        path = tmp_path / "launches"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    store, doomed, other = Store(url), driver(), driver()
    until(lambda: {str(doomed.pid), str(other.pid)} <= {pid for pid, *_ in noted()})
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    ended_before = {t.number for t in store.trials("s") if t.state is not TrialState.RUNNING}
    answer = ended(other)

    trials = store.trials("s")
    assert store.snapshot("s").open == ()
    assert ended_before <= {t.number for t in trials}
    assert len(trials) == len({(t.layout, t.repeat) for t in trials}) == LAUNCHES
    assert all(t.state is not TrialState.RUNNING and (t.steps or t.failure) for t in trials)
    launches = noted()
    assert len({app for *_, app in launches}) == len(launches)  # a trial begun again has a deployment of its own
    for trial in trials:
        same = [pid for pid, layout, _ in launches if layout == str(trial.layout)]
        assert len(same) == 1 or (len(same) == 2 and same[0] == str(doomed.pid)), trial.layout
    assert {pid for pid, *_ in launches} == {str(doomed.pid), str(other.pid)}

    assert ended(driver()) == answer  # resumed after the end: nothing is left to launch
    assert noted() == launches
    store.close()
