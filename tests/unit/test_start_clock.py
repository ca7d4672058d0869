"""A start by the launcher's own clock: every second of it belongs to one phase, also where little is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from serve.launch.health import Waiting
from serve.launch.start_clock import StartClock
from tests.unit.test_start_log import lines_of
from tuner.trial.cancel import CancelHandle
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.seams import Watch
from tuner.trial.start_up import StartPhase, StartUp

ORDERED_S = 19.0  # before the engine's first line in the recorded start of a GPU: Ray and Serve LLM were begun with


def follow(clock: StartClock, log: Path, name: str) -> None:
    """Write a recorded log line by line, and have the clock read it at the times of its lines."""
    for line in lines_of(name):
        with log.open("a") as stream:
            stream.write(line.text + "\n")
        clock.read([log], line.at_s + 52)


def test_all_phases_of_a_start_under_ray(tmp_path: Path) -> None:
    clock = StartClock()
    assert clock.doing == (StartPhase.SCHEDULING, 0.0)
    clock.session_s = ORDERED_S
    clock.process_seen(30.0)
    clock.process_seen(90.0)
    assert clock.doing == (StartPhase.IMPORTS, 30.0)
    follow(clock, tmp_path / "worker-1.out", "cuda_compiled")
    assert clock.doing == (StartPhase.FRONT, 125.0)
    clock.engine_seen(126.0)
    clock.listed(127.0)
    found = clock.start_up(132.0)
    assert {phase.value: s for phase, s in found.in_order()} == pytest.approx(
        {
            "session": 19.0, "scheduling": 11.0, "imports": 46.0, "weights": 4.911803, "compile": 19.4, "profile": 4.6,
            "capture": 4.0, "warm_up": 16.0, "front": 2.0, "first_answer": 5.0, "other": 0.088197,
        }
    )  # fmt: skip
    assert found.seconds == pytest.approx(132.0)
    assert found.compiled_anew is True


def test_an_engine_whose_log_lies_elsewhere_is_timed_as_a_whole() -> None:
    clock = StartClock()
    clock.read([Path("/nowhere/worker-1.out")], 1.0)
    clock.process_seen(3.0)
    clock.engine_seen(60.0)
    clock.listed(64.0)
    assert dict(clock.start_up(66.0).in_order()) == {
        StartPhase.SCHEDULING: 3.0, StartPhase.FRONT: 4.0, StartPhase.FIRST_ANSWER: 2.0, StartPhase.OTHER: 57.0,
    }  # fmt: skip


def test_half_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    clock, log = StartClock(), tmp_path / "engine.log"
    log.write_text("INFO 1 Starting to load mod")
    clock.read([log], 1.0)
    assert clock.doing[0] is StartPhase.SCHEDULING
    log.open("a").write("el x...\n")
    clock.read([log], 2.0)
    assert clock.doing == (StartPhase.WEIGHTS, 2.0)


@given(st.lists(st.floats(0, 1000), min_size=6, max_size=6))
def test_the_phases_add_up_to_the_whole(times_s: list[float]) -> None:
    clock = StartClock()
    clock.session_s, process_s, engine_s, listed_s, ready_s, _ = sorted(times_s)
    clock.process_seen(process_s)
    clock.engine_seen(engine_s)
    clock.listed(listed_s)
    assert clock.start_up(ready_s).seconds == pytest.approx(ready_s)


def test_what_is_waited_for_is_told_with_its_own_time() -> None:
    said: list[str] = []
    waiting = Waiting(Watch(CancelHandle(), said.append))
    waiting.on("loading weights", 45.0, 33.0)
    waiting.on("loading weights", 46.0, 33.0)
    waiting.on("compiling", 50.0, 50.0)
    assert said == ["loading weights (12 s, 45 s in all)", "compiling (0 s, 50 s in all)"]


def test_it_is_kept_with_what_was_launched_and_absent_in_older_records() -> None:
    adapter = TypeAdapter(Launched)
    launched = Launched("ray-serve", {}, "m", NoEngine("x"), StartUp({StartPhase.WEIGHTS: 5.0}, False))
    stored = adapter.dump_python(launched, mode="json")
    assert adapter.validate_python(stored) == launched
    del stored["start_up"]
    assert adapter.validate_python(stored).start_up is None
