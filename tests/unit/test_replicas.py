"""An application's replicas, as Serve's controller reports them over a launch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from serve.logs import keep, tail, tells_of_no_memory
from serve.processes import identify
from serve.replicas import ReplicaHistory, last_message, status_of

HERE = "192.0.2.7"


def application(*replicas: dict[str, Any], status: str = "DEPLOYING", message: str = "") -> dict[str, Any]:
    deployments = {"LLMServer:tiny": {"replicas": list(replicas), "message": message}}
    return {"status": status, "message": "", "deployments": deployments}


def replica(name: str, state: str = "STARTING", **more: Any) -> dict[str, Any]:
    return {"replica_id": name, "state": state} | more


def test_a_replica_that_is_replaced_or_stopping_has_died() -> None:
    history = ReplicaHistory()
    assert history.died(history.look(application(replica("a")), HERE)) == []
    gone = history.died(history.look(application(replica("b")), HERE))
    assert [r.replica_id for r in gone] == ["a"]
    stopping = history.died(history.look(application(replica("b", "STOPPING")), HERE))
    assert {r.replica_id for r in stopping} == {"a", "b"}


def test_a_process_is_known_only_where_it_runs_and_stays_known() -> None:
    history, me = ReplicaHistory(), os.getpid()
    history.look(application(replica("a", pid=me, node_ip=HERE, worker_id="w")), HERE)
    history.look(application(replica("a", pid=me, node_ip="192.0.2.8")), HERE)
    history.look(application(replica("b", pid=me, node_ip="192.0.2.8")), HERE)
    assert history.leaders == (identify(me),)
    assert history.seen["a"].worker_id == "w"
    assert history.seen["a"].holds_engine


def test_what_serve_says_is_shown() -> None:
    assert last_message(application(message="A replica failed.\nValueError: no\n")) == "ValueError: no"
    assert last_message(application()) == ""
    assert status_of(application(status="RUNNING")) == "RUNNING"


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
