"""An engine's processes that die: which, by what, and that a server which hangs after that is not waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.launch import engine_processes
from serve.launch.engine_processes import EngineProcesses, Lost, ended_with
from serve.launch.health import Waiting
from serve.launch.local_deployment import LocalProcessDeployment
from serve.launch.processes import ProcessId, end, identify
from tests.real.conftest import request_for
from tuner.ask.layout import ParallelLayout
from tuner.errors import FailureReason, LaunchFailed
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.seams import LaunchOrder, Watch

LAUNCHED = Launched("local-process", {}, "m", NoEngine("a stand-in"))
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
# A server that goes on after its worker was killed, as vLLM 0.29's does while an engine starts.
HANGS = f"""
import os, signal, subprocess, sys, time
worker = subprocess.Popen(["VLLM::Worker_TP0", "-c", {SLEEP!r}], executable=sys.executable)
time.sleep(1.0)
worker.send_signal(signal.SIGILL)
time.sleep(60)
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    words = ["VLLM::Worker_TP0", "-c", SLEEP]
    with subprocess.Popen(
        words, executable=sys.executable, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def eventually_lost(processes: EngineProcesses, leader: ProcessId) -> tuple[Lost, ...]:
    deadline = time.perf_counter() + 20
    while not (lost := processes.look([leader])) and time.perf_counter() < deadline:
        time.sleep(0.05)
    return lost


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_of_a_signal_says_which(worker: subprocess.Popen[str], number: signal.Signals) -> None:
    leader = identify(worker.pid)
    assert leader is not None
    processes = EngineProcesses()
    assert processes.look([leader]) == ()
    assert not processes.lost_for_long
    os.kill(worker.pid, number)
    assert eventually_lost(processes, leader) == (Lost("VLLM::Worker_TP0", worker.pid, -number),)
    assert str(processes.look([])[0]) == f"VLLM::Worker_TP0 was killed by {number.name}"


def test_a_process_whose_parent_has_asked_already_has_only_ended(worker: subprocess.Popen[str]) -> None:
    leader, processes = identify(worker.pid), EngineProcesses()
    assert leader is not None
    processes.look([leader])
    worker.kill()
    worker.wait()
    assert processes.look([leader]) == (Lost("VLLM::Worker_TP0", worker.pid, None),)


def test_processes_that_are_no_engines_may_end() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, start_new_session=True) as other:
        leader, processes = identify(other.pid), EngineProcesses()
        assert leader is not None
        processes.look([leader])
        other.kill()
    assert processes.look([leader]) == ()


@pytest.mark.parametrize(("status", "words"), [(-4, "was killed by SIGILL"), (-99, "was killed by signal 99")])
def test_a_signal_has_its_name(status: int, words: str) -> None:
    assert ended_with(status) == words
    assert ended_with(3) == "ended with exit status 3"
    assert ended_with(None) == "ended"


@pytest.mark.slow
def test_a_server_that_hangs_after_its_worker_was_killed_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_processes, "LAST_WORDS_S", 0.5)
    request = request_for(tmp_path, start_timeout_s=50)
    order = LaunchOrder("s", 0, "app", ParallelLayout(), request, tmp_path)
    with subprocess.Popen([sys.executable, "-c", HANGS], start_new_session=True) as server:
        deployment = LocalProcessDeployment(
            process=server,
            url="http://127.0.0.1:9",
            model_id="m",
            launched=LAUNCHED,
            logs=tmp_path,
            on_teardown=lambda: None,
        )
        try:
            with pytest.raises(LaunchFailed) as failed:
                deployment.wait_until_ready(order, time.perf_counter(), Waiting(Watch()))
        finally:
            leader = identify(server.pid)
            assert leader is not None
            end([leader], patience_s=1)
    assert failed.value.reason is FailureReason.ENGINE_CRASHED
    assert failed.value.detail == "VLLM::Worker_TP0 was killed by SIGILL"
