"""An application's replicas, as Serve's controller reports them over a launch."""

from __future__ import annotations

import os
from typing import Any

from serve.launch.failure import crash
from serve.launch.processes import identify
from serve.launch.replicas import ReplicaHistory, last_message, messages, status_of
from tuner.errors import FailureReason

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


def test_what_serve_says_holds_the_cause_where_no_log_can_be_read() -> None:
    said = (
        "The deployment failed to start 3 times in a row. Error:\nray::ServeReplica:app:LLMServer:tiny.initialize()\n"
        'Traceback (most recent call last):\n  File "a.py", line 1, in start\n'
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n\nSee the logs."
    )
    failed = crash(messages(application(message=said)), "it ended")
    assert failed.reason is FailureReason.DOES_NOT_FIT
    assert failed.detail.startswith("torch.OutOfMemoryError: CUDA out of memory")
