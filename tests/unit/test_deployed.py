"""How any deployment is waited for, and what is left of one that fails: told with a stand-in and no engine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from serve.launch import deployed
from serve.launch.deployed import Deployed
from serve.launch.health import Waiting
from tests.real.conftest import request_for
from tuner.ask.layout import ParallelLayout
from tuner.errors import FailureReason, LaunchFailed
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.seams import LaunchOrder, Watch

DIED = LaunchFailed(FailureReason.ENGINE_CRASHED, "it died")


class StandIn(Deployed):
    """Is up after so many looks; ``dies`` at the first of them instead."""

    lists_within_s = 1.0

    def __init__(self, looks: int = 0, *, dies: bool = False) -> None:
        super().__init__("http://127.0.0.1:9", "m", Launched("stand-in", {}, "m", NoEngine("a stand-in")))
        self.looks, self.dies = looks, dies
        self.done: list[str] = []

    def log_tail(self, lines: int = 20) -> tuple[str, ...]:
        return ("its last words",)

    def teardown(self) -> None:
        self.done.append("torn down")

    def _is_up(self, waiting: Waiting, elapsed_s: float) -> bool:
        if self.dies:
            raise DIED
        self.looks -= 1
        return self.looks < 0

    def _take_stock(self) -> None:
        self.done.append("ready")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the endpoint; it lists its model from the second time on, and answers at once."""
    asked: list[str] = []

    def served_models(url: str, *, timeout_s: float) -> tuple[str, ...]:
        asked.append(f"models within {timeout_s:g} s")
        return ("m",) if len(asked) > 1 else ()

    def warm_up(url: str, model_id: str, replicas: int, *, timeout_s: float) -> bool:
        asked.append(f"{replicas} replicas of {model_id}")
        return True

    monkeypatch.setattr(deployed, "POLL_S", 0.001)
    monkeypatch.setattr(deployed, "served_models", served_models)
    monkeypatch.setattr(deployed, "warm_up", warm_up)
    return asked


def order(folder: Path, start_timeout_s: float = 60.0) -> LaunchOrder:
    request = request_for(folder, start_timeout_s=start_timeout_s)
    return LaunchOrder("s", 0, "app", ParallelLayout(dp=3), request, folder)


def test_it_is_ready_once_it_is_up_names_its_model_and_every_replica_has_answered(
    tmp_path: Path, said: list[str]
) -> None:
    told: list[str] = []
    one = StandIn(looks=2)
    one.wait_until_ready(order(tmp_path), time.perf_counter(), Waiting(Watch(progress=told.append)))
    assert said == ["models within 1 s", "models within 1 s", "3 replicas of m"]
    assert [words.partition(" (")[0] for words in told] == ["waiting for the engine", "waiting for the first answers"]
    assert one.done == ["ready"]
    assert one.ready_after_s > 0


def test_one_that_is_never_up_times_out(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(LaunchFailed, match=r"not ready within 0\.01 s") as failed:
        StandIn(looks=10**9).wait_until_ready(order(tmp_path, 0.01), time.perf_counter(), Waiting(Watch()))
    assert failed.value.reason is FailureReason.START_TIMED_OUT
    assert said == []


def test_a_death_is_a_death_even_if_it_is_seen_too_late(tmp_path: Path, said: list[str]) -> None:
    """Ray's deployments said that they timed out where the last look would have found them dead."""
    with pytest.raises(LaunchFailed) as failed:
        StandIn(dies=True).wait_until_ready(order(tmp_path, 0.01), time.perf_counter() - 1.0, Waiting(Watch()))
    assert failed.value.reason is FailureReason.ENGINE_CRASHED


def test_one_that_fails_is_torn_down_and_leaves_its_last_words() -> None:
    one = StandIn()
    with pytest.raises(LaunchFailed) as failed, one.ended_unless_ready():
        raise DIED
    assert (failed.value.detail, failed.value.log_tail) == ("it died", ("its last words",))
    assert one.done == ["torn down"]


def test_what_a_failure_quotes_is_kept() -> None:
    with pytest.raises(LaunchFailed) as failed, StandIn().ended_unless_ready():
        raise LaunchFailed(FailureReason.ENGINE_CRASHED, "it died", ("the line that says why",))
    assert failed.value.log_tail == ("the line that says why",)


def test_whoever_is_interrupted_leaves_no_deployment_behind() -> None:
    one = StandIn()
    with pytest.raises(KeyboardInterrupt), one.ended_unless_ready():
        raise KeyboardInterrupt
    assert one.done == ["torn down"]
    with one.ended_unless_ready():
        pass
    assert one.done == ["torn down"]
