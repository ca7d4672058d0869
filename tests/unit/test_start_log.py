"""What the log of a starting engine tells of its phases: recorded on CPUs, and with the words of a GPU's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.launch.start_log import LogLine, engine_start, marks, stage
from tuner.trial.start_up import StartPhase

LOGS = Path(__file__).parents[1] / "data" / "start_logs"
_CLOCK = re.compile(r"\d\d-\d\d (\d\d):(\d\d):(\d\d) ")


def lines_of(name: str) -> list[LogLine]:
    """The lines of a recorded log, at the times that they bear, from its first."""
    found, now_s = [], 0.0
    for text in (LOGS / f"{name}.log").read_text().splitlines():
        if (clock := _CLOCK.search(text)) is not None:
            hours, minutes, seconds = map(int, clock.groups())
            now_s = 3600.0 * hours + 60 * minutes + seconds
        found.append(LogLine(now_s, text))
    first_s = next(line.at_s for line in found if line.at_s)
    return [LogLine(max(0.0, line.at_s - first_s), line.text) for line in found]


@pytest.mark.parametrize(
    ("name", "loads_at_s", "ready_at_s", "phases_s", "anew"),
    [
        ("cpu_local_0.29", 30, 31, {"weights": 0.01, "warm_up": 1.27}, None),
        ("cpu_ray_tp2_0.29", 34, 38, {"weights": 1.0, "warm_up": 2.93}, None),
        (
            "cuda_compiled",
            24,
            73,
            {"weights": 4.911803, "compile": 19.4, "profile": 4.6, "capture": 4.0, "warm_up": 16.0},
            True,
        ),
        ("cuda_cached", 24, 57, {"weights": 4.911803, "compile": 4, "profile": 4, "capture": 4, "warm_up": 16}, False),
    ],
)
def test_the_phases_of_recorded_starts(
    name: str, loads_at_s: float, ready_at_s: float, phases_s: dict[str, float], anew: bool | None
) -> None:
    found = engine_start(marks(lines_of(name)))
    assert (found.loads_at_s, found.ready_at_s, found.compiled_anew) == (loads_at_s, ready_at_s, anew)
    assert {phase.value: s for phase, s in found.phases_s.items()} == pytest.approx(phases_s)


def test_it_is_told_what_it_is_busy_with() -> None:
    lines, said = lines_of("cuda_compiled"), list[tuple[StartPhase, float]]()
    for count in range(1, len(lines) + 1):
        found = stage(marks(lines[:count]))
        assert found is not None
        if not said or said[-1][0] is not found[0]:
            said.append(found)
    assert [(phase.value, at_s) for phase, at_s in said] == [
        ("imports", 0), ("weights", 24), ("profile", 29), ("compile", 34), ("profile", 49), ("warm_up", 53),
        ("capture", 53), ("warm_up", 57), ("front", 73),
    ]  # fmt: skip
    assert stage([]) is None


@pytest.mark.parametrize(
    ("text", "phase", "seconds"),
    [
        ("INFO 04-29 [gpu_model_runner.py:1347] Model loading took 7.1217 GiB and 170.7 seconds", "weights", 170.7),
        ("INFO [monitor.py:34] torch.compile takes 45.15 s in total", "compile", 45.15),
        ("torch.compile and initial profiling/warmup run together took 9.5 s in total", "compile", 9.5),
        ("init engine (profile, create kv cache, warmup model) took 216.57 seconds", "warm_up", 216.57),
        ("INFO [weight_utils.py] Time spent downloading weights for a/b: 67.507208 seconds", "download", 67.507208),
        ("Graph capturing finished in 54 secs, took 3.45 GiB", "capture", 54),
    ],
)  # fmt: skip
def test_other_wordings(text: str, phase: str, seconds: float) -> None:
    assert engine_start(marks([LogLine(1.0, text)])).phases_s[StartPhase(phase)] == seconds


def test_ranks_load_at_the_same_time_and_one_compiles_several_parts() -> None:
    said = [
        "(Worker_TP0 pid=1) INFO 1 Model loading took 7.1 GiB memory and 30.5 seconds",
        "(Worker_TP1 pid=2) INFO 1 Model loading took 7.1 GiB memory and 41.5 seconds",
        "(Worker_TP0 pid=1) INFO 1 torch.compile took 20.00 s in total",
        "(Worker_TP0 pid=1) INFO 1 torch.compile took 5.00 s in total",
        "(Worker_TP1 pid=2) INFO 1 torch.compile took 22.00 s in total",
    ]
    found = engine_start(marks([LogLine(0.0, text) for text in said]))
    assert found.phases_s == {StartPhase.WEIGHTS: 41.5, StartPhase.COMPILE: 25.0}


@given(st.lists(st.sampled_from(lines_of("cuda_compiled") + lines_of("cpu_ray_tp2_0.29")), max_size=40))
def test_no_order_of_lines_makes_a_phase_negative(lines: list[LogLine]) -> None:
    found = engine_start(marks(lines))
    assert all(seconds >= 0 for seconds in found.phases_s.values())
