"""The cause of an engine's death among its echoes, from logs of engines that were broken on purpose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from serve.launch.engine_processes import Lost
from serve.launch.failure import LONGEST_TEXT, crash, replica_died, root_cause
from serve.launch.logs import tail
from tuner.errors import FailureReason

LOGS = Path(__file__).parents[1] / "data" / "engine_logs"
CRASHED, NO_MEMORY = FailureReason.ENGINE_CRASHED, FailureReason.DOES_NOT_FIT
# An exception that somebody caught, in words of a lack of memory: it says nothing of what came later.
CAUGHT = (
    "(EngineCore pid=7) Traceback (most recent call last):",
    '(EngineCore pid=7)   File "a.py", line 1, in try_this_first',
    "(EngineCore pid=7) torch.OutOfMemoryError: No available memory for the cache blocks",
)


def recorded(name: str) -> tuple[str, ...]:
    return tail([LOGS / f"{name}.log"], 2000)


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("more_memory_than_there_is", NO_MEMORY, r"ValueError: Available memory on node 0 \(6.26/8.46 GiB\) on kv"),
        ("cache_too_small", NO_MEMORY, "ValueError: To serve at least one request with the model's max seq len"),
        ("corrupt_weights", CRASHED, r"safetensors\._safetensors_rust\.SafetensorError: Error while deserializing"),
        ("bad_config", CRASHED, r"ValueError: The hidden size \(256\) is not a multiple of .* heads \(7\)\."),
        ("unknown_architecture", CRASHED, r".*ValidationError: 1 validation error for ModelConfig: Value error, Model"),
        ("port_in_use", CRASHED, "OSError: .Errno 98. Address already in use"),
        ("worker_killed_at_start", CRASHED, "VllmWorker-0 was killed by SIGKILL"),
        ("worker_illegal_instruction_while_serving", CRASHED, "VllmWorker-0 was killed by SIGILL"),
        ("worker_illegal_instruction_in_a_replica", CRASHED, "VllmWorker-0 was killed by SIGILL"),
        ("worker_illegal_instruction_at_start", CRASHED, "VllmWorker-0 ended"),
        ("core_killed_at_start", CRASHED, "RuntimeError: Engine core initialization failed"),
    ],
)
@pytest.mark.parametrize("before", [(), CAUGHT], ids=["alone", "after a caught exception"])
def test_the_root_exception_decides(name: str, reason: FailureReason, said: str, before: Sequence[str]) -> None:
    if before and name in ("worker_illegal_instruction_at_start", "core_killed_at_start"):
        pytest.skip("a log without any cause: what was caught stands in for it")
    failure = crash([*before, *recorded(name)], "it ended")
    assert re.match(said, failure.detail), failure.detail
    assert failure.reason is reason
    assert len(failure.detail) < LONGEST_TEXT + 3
    assert failure.log_tail


@pytest.mark.parametrize(
    ("status", "lost", "said"),
    [
        (-9, (), "the server was killed by SIGKILL"),
        (1, (Lost("VLLM::Worker", 7, -4),), "VLLM::Worker was killed by SIGILL"),
        (None, (Lost("VLLM::Worker", 7, -11),), "VLLM::Worker was killed by SIGSEGV"),
        (None, (Lost("VLLM::EngineCore", 7, None),), "VLLM::EngineCore ended"),
        (1, (), "VllmWorker-0 ended"),
    ],
)
def test_a_signal_that_was_seen_goes_before_the_log(status: int | None, lost: tuple[Lost, ...], said: str) -> None:
    failure = crash(recorded("worker_illegal_instruction_at_start"), "it ended", status=status, lost=lost)
    assert (failure.reason, failure.detail) == (CRASHED, said)


@pytest.mark.parametrize("of_the_core", [-15, -9])
def test_what_a_broken_server_does_to_its_core_is_not_the_cause(of_the_core: int) -> None:
    """Its worker was killed, and reaped by the core before anybody saw how; then the server ended the core."""
    lines = ["Fatal Python error: Illegal instruction", "", "Thread 0x1 (most recent call first):"]
    lost = (Lost("VLLM::Worker", 7, None), Lost("VLLM::EngineCore", 6, of_the_core))
    assert "was killed by SIGILL" in crash(lines, "the server ended", status=1, lost=lost).detail


def test_processes_that_ended_after_an_exception_are_not_its_cause() -> None:
    lost = (Lost("VLLM::Worker", 7, 1), Lost("VLLM::EngineCore", 6, 1))
    assert crash(recorded("cache_too_small"), "it ended", status=1, lost=lost).reason is NO_MEMORY


@pytest.mark.parametrize(
    ("first", "link", "second", "cause"),
    [
        ("ValueError: why", "The above exception was the direct cause of the following exception:", "OSError: x", 0),
        ("ValueError: why", "During handling of the above exception, another exception occurred:", "OSError: x", 0),
        ("KeyError: 'a'", "During handling of the above exception, another exception occurred:", "OSError: x", 1),
        ("ValueError: why", "some other line", "OSError: x", 1),
    ],
)
def test_a_chain_is_named_by_where_it_began(first: str, link: str, second: str, cause: int) -> None:
    header = "Traceback (most recent call last):"
    found = root_cause([header, "  File", first, link, header, "  File", second])
    assert found is not None
    assert found.text == (first, second)[cause]


def test_a_crash_without_an_exception_is_told_by_its_last_lines() -> None:
    failure = crash(["INFO"], "it ended")
    assert (failure.reason, failure.detail, failure.log_tail) == (CRASHED, "it ended", ("INFO",))


def test_a_line_that_only_looks_like_an_exception_is_none() -> None:
    assert root_cause(["ValueError: printed, not raised", "torch.OutOfMemoryError: see the manual"]) is None


@pytest.mark.parametrize(
    "line",
    [
        "*** SIGTERM received at time=1764211 on cpu 1 ***",
        "(EngineCore pid=7) ERROR 11-27 02:50:16 [a.py:3] Worker proc W died unexpectedly (exit code: -15), shutting",
    ],
)
def test_a_process_that_others_ask_to_end_is_no_cause(line: str) -> None:
    found = root_cause([line, *CAUGHT])
    assert found is not None
    assert found.type == "torch.OutOfMemoryError"


def test_a_dead_replica_says_what_its_engine_died_of() -> None:
    killed = recorded("worker_illegal_instruction_while_serving")
    dead = FailureReason.REPLICA_DIED
    assert replica_died("gone: a", killed) == (dead, "gone: a; VllmWorker-0 was killed by SIGILL")
    assert replica_died("VLLM::Worker was killed by SIGILL", killed) == (dead, "VLLM::Worker was killed by SIGILL")
    assert replica_died("gone: a", ["INFO"]) == (dead, "gone: a")


@pytest.mark.parametrize(
    ("line", "signal"),
    [
        ("*** SIGSEGV received at time=1764211 on cpu 1 ***", "SIGSEGV"),
        ("Fatal Python error: Illegal instruction", "SIGILL"),
        ("Fatal Python error: Aborted", "SIGABRT"),
        ("Fatal Python error: Bus error", "SIGBUS"),
    ],
)
@pytest.mark.parametrize("above", ["EngineCore", "APIServer"])
def test_what_handlers_of_signals_print_is_read(line: str, signal: str, above: str) -> None:
    found = root_cause([line, f"({above} pid=7) {CAUGHT[0][18:]}", f"({above} pid=7) EOFError"])
    assert found is not None
    assert found.text == f"a process of the engine was killed by {signal}"
