"""Our processes are told from others by what they write, and a dead run's are ended by the next."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serve.launch.processes import (
    LauncherRecord,
    ProcessId,
    end,
    free_port,
    group_of,
    identify,
    require_free_port,
    sweep,
    writers_under,
)
from tuner.errors import BadInput

SLEEP = [sys.executable, "-c", "import signal, sys, time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [SLEEP[0], "-c", SLEEP[2].replace("print", "signal.signal(signal.SIGTERM, signal.SIG_IGN); print")]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "own"
    directory.mkdir()
    yield directory
    end(writers_under([directory]), patience_s=0)


def start(directory: Path, command: list[str] = SLEEP) -> ProcessId:
    file = directory / "log"
    with file.open("w") as log:
        process = identify(subprocess.Popen(command, stdout=log, start_new_session=True).pid)
    deadline = time.perf_counter() + 20
    while not file.read_text() and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert process is not None
    return process


def test_a_writer_is_found_and_a_reader_is_not(own: Path) -> None:
    writer = start(own)
    with subprocess.Popen(["tail", "-f", str(own / "log")], stdout=subprocess.DEVNULL) as reader:
        assert writers_under([own]) == (writer,)
        reader.kill()
    assert writers_under([own.parent / "ow"]) == ()  # a prefix of the name is another directory
    assert group_of(writer) == (writer,)
    assert group_of(replace(writer, start_ticks=writer.start_ticks - 1)) == ()  # its id is another's by now


@pytest.mark.slow
@pytest.mark.parametrize(("command", "patience_s"), [(SLEEP, 10.0), (STUBBORN, 0.2), (STUBBORN, 0.0)])
def test_the_end_comes_to_all(own: Path, command: list[str], patience_s: float) -> None:
    process = start(own, command)
    end([process], patience_s=patience_s)
    assert not process.alive
    end([process], patience_s=patience_s)


def test_a_reused_id_is_another_process() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert me.alive
    assert not ProcessId(me.pid, me.start_ticks - 1).alive
    end([ProcessId(me.pid, me.start_ticks - 1)], patience_s=0)  # or this test would not come to its end


def dead_run(state: Path, own: Path) -> None:
    record = LauncherRecord(state, "kind")
    for kind, entry in (("apps", "app-1"), ("directories", own), ("scratch", own)):
        record.add(kind, entry)
    (file,) = state.glob("kind-*.json")
    document = json.loads(file.read_text())
    document["owner"]["start_ticks"] -= 1  # the id now belongs to a process that started later
    file.write_text(json.dumps(document))


@pytest.mark.slow
def test_a_sweep_ends_what_a_dead_run_left_and_nothing_else(own: Path, tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    other.mkdir()
    left, strangers = start(own), start(other)
    dead_run(state, own)
    assert sweep(state, "kind") == {"app-1"}
    assert not left.alive
    assert strangers.alive
    assert not own.exists()
    assert sweep(state, "kind") == set()
    end([strangers], patience_s=0)
    own.mkdir()


def test_a_living_run_is_left_alone(own: Path, tmp_path: Path) -> None:
    process = start(own)
    record = LauncherRecord(tmp_path / "state", "kind")
    record.add("directories", own)
    assert sweep(tmp_path / "state", "kind") == set()
    assert process.alive
    record.close()
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize("text", ["", "{}", '{"owner": {"pid": "x"}}', "[]"])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "kind-1.json").write_text(text)
    with pytest.raises(BadInput, match=r"kind-1\.json"):
        sweep(tmp_path, "kind")


def test_ports() -> None:
    require_free_port(free_port(), "--http-port")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match=r"--http-port.*a free port"):
            require_free_port(taken.getsockname()[1], "--http-port")
    with pytest.raises(BadInput, match="1 to 65535"):
        require_free_port(70000, "--http-port")
