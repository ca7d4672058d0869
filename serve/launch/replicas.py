"""The replicas of one Ray Serve application, read from what Serve's controller reports, and remembered.

Everything is decided from the controller's structured answer (``ServeInstanceDetails`` of Ray Serve 2.60), never from
its messages; those are only shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve.launch.processes import ProcessId, identify

_ENGINE = ("LLMServer:", "DPServer:")  # how Ray Serve LLM begins the names of deployments that hold engines


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica, as last seen. ``process`` is known where it runs on this machine."""

    deployment: str
    replica_id: str
    state: str
    worker_id: str | None
    process: ProcessId | None

    @property
    def holds_engine(self) -> bool:
        """True for a replica that runs vLLM, not one that only takes requests in."""
        return holds_engine(self.deployment)


def holds_engine(deployment: str) -> bool:
    """True for the name of a deployment whose replicas run vLLM."""
    return deployment.startswith(_ENGINE)


class ReplicaHistory:
    """What an application's replicas are now, and which were there before."""

    def __init__(self) -> None:
        self.seen: dict[str, Replica] = {}

    def look(self, application: dict[str, Any], own_ip: str) -> list[Replica]:
        """The replicas now. A process once seen stays known, also after the controller has forgotten it."""
        replicas = []
        for name, deployment in application["deployments"].items():
            for entry in deployment["replicas"]:
                replica = _read(name, entry, own_ip)
                before = self.seen.get(replica.replica_id)
                if before is None or replica.process is not None or before.process is None:
                    self.seen[replica.replica_id] = replica
                replicas.append(replica)
        return replicas

    def died(self, replicas: list[Replica]) -> list[Replica]:
        """Those once seen that are stopping or gone; while an application starts, each of them failed."""
        present = {replica.replica_id for replica in replicas if replica.state != "STOPPING"}
        return [replica for name, replica in self.seen.items() if name not in present]

    @property
    def leaders(self) -> tuple[ProcessId, ...]:
        """The processes of all replicas seen on this machine; each leads a process group with its engine in it."""
        return tuple(replica.process for replica in self.seen.values() if replica.process is not None)


def _read(deployment: str, entry: dict[str, Any], own_ip: str) -> Replica:
    pid, here = entry.get("pid"), entry.get("node_ip") == own_ip
    return Replica(
        deployment=deployment,
        replica_id=str(entry["replica_id"]),
        state=_word(entry["state"]),
        worker_id=entry.get("worker_id"),
        process=identify(int(pid)) if pid and here else None,
    )


def status_of(application: dict[str, Any]) -> str:
    """The application's status: ``DEPLOYING``, ``RUNNING``, ``DEPLOY_FAILED``, ``UNHEALTHY`` ..."""
    return _word(application["status"])


def messages(application: dict[str, Any]) -> tuple[str, ...]:
    """The lines that Serve has to say about the application and its deployments, tracebacks of replicas included."""
    texts = [application["message"], *(deployment["message"] for deployment in application["deployments"].values())]
    return tuple(line.rstrip() for text in texts for line in text.splitlines() if line.strip())


def last_message(application: dict[str, Any]) -> str:
    """The last of its ``messages``, for people; empty where it says nothing."""
    return next(reversed(messages(application)), "").strip()


def _word(value: Any) -> str:
    return str(getattr(value, "value", value))
