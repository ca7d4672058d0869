"""A trial's log files: their last lines, and the cause of a crash among its echoes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve.launch.logs import crash, keep, root_cause, tail, tells_of_no_memory
from tuner.errors import FailureReason

# Abridged from vLLM 0.29: a worker fails, and every process above it fails because of that.
CRASH = (
    "(EngineCore pid=7) INFO 11-21 02:30:05 [core.py:123] Initializing a V1 LLM engine",
    "(Worker_TP0 pid=9) ERROR 11-21 02:30:08 [multiproc_executor.py:944] Traceback (most recent call last):",
    "(Worker_TP0 pid=9) ERROR 11-21 02:30:08 [multiproc_executor.py:944]     raise ValueError(",
    "(Worker_TP0 pid=9) ERROR 11-21 02:30:08 [multiproc_executor.py:944] safetensors.SafetensorError: bad header",
    "(EngineCore pid=7) Exception: WorkerProc initialization failed",
    "RuntimeError: Engine core initialization failed. See root cause above.",
)


def test_the_tail_ends_with_what_was_written_last(tmp_path: Path) -> None:
    for order, name in enumerate(("b.log", "a.log")):
        (tmp_path / name).write_text(f":actor_name:x\n{name} 1\n\n{name} 2\n")
        os.utime(tmp_path / name, (order, order))
    files = [tmp_path / "a.log", tmp_path / "b.log", tmp_path / "absent.log"]
    assert tail(files, 3) == ("b.log 2", "a.log 1", "a.log 2")
    assert tail(files, 0) == ()
    keep(files, tmp_path / "kept")
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["a.log", "b.log"]


@pytest.mark.parametrize(
    ("line", "no_memory"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", True),
        ("ValueError: No available memory for the cache blocks. Try increasing ...", True),
        ("Available memory on node 0 (1/2 GiB) on kv cache allocation is less than requested memory for kv", True),
        ("safetensors_rust.SafetensorError: header too small", False),
    ],
)
def test_a_lack_of_memory_is_recognised(line: str, no_memory: bool) -> None:
    assert tells_of_no_memory(["INFO", line]) is no_memory


def test_the_first_exception_is_the_cause() -> None:
    assert root_cause(CRASH) == ("safetensors.SafetensorError: bad header", 3)
    assert root_cause(CRASH[:3]) is None
    failure = crash(CRASH, "it ended")
    assert (failure.reason, failure.detail) == (FailureReason.ENGINE_CRASHED, "safetensors.SafetensorError: bad header")
    assert CRASH[3] in failure.log_tail


def test_a_crash_without_an_exception_is_told_by_its_last_lines() -> None:
    failure = crash(CRASH[:1], "it ended")
    assert (failure.detail, failure.log_tail) == ("it ended", CRASH[:1])


def test_colours_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\x1b[36m(RayWorkerProc pid=8)\x1b[0m ValueError: no\n")
    lines = tail([tmp_path / "a.log"], 5)
    assert lines == ("(RayWorkerProc pid=8) ValueError: no",)
    assert root_cause(lines) == ("ValueError: no", 0)
