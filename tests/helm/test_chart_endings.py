"""How the pods of the service end: who waits for whom, by the very commands that are rendered."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chart import documents, pods, render
from tests.chart_cases import POSTGRES, SERVICE, Values, merged

pytestmark = pytest.mark.tools
RAY: Values = {"tuner": {"launchers": ["ray"], "rayAddress": "head:6379", "worker": {"replicas": 2}}}


def containers(values: Values, folder: Path, deployment: str) -> dict[str, Any]:
    """By name."""
    made = documents(render(values, folder))
    (found,) = [one for one in made if (one["kind"], one["metadata"]["name"]) == ("Deployment", deployment)]
    (pod,) = pods(found)
    assert pod["terminationGracePeriodSeconds"] >= 60
    return {container["name"]: container for container in pod["containers"]}


def before_it_ends(container: Any) -> list[str]:
    program, *words = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "python"
    return [sys.executable, *words]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "deployment", "ports"),
    [(SERVICE, "parlay", ["9101", "9102"]), (POSTGRES, "parlay-worker", ["9101"])],
    ids=["processes", "pods"],
)
def test_the_ray_node_waits_for_the_workers_beside_it(
    values: Values, deployment: str, ports: list[str], tmp_path: Path
) -> None:
    """They tear their trials down through it; their metrics are there until they have."""
    found = containers(merged(values, RAY), tmp_path, deployment)
    command = before_it_ends(found["ray"])
    assert command[3:] == ports
    (worker,) = found.keys() - {"ray"}
    shown = {str(port["containerPort"]) for port in found[worker]["ports"] if port["name"].startswith("metrics")}
    assert shown == set(ports)
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
    words = [*command[:3], *(str(one.getsockname()[1]) for one in listening)]
    with subprocess.Popen(words) as waiting:
        for one in listening:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.3)
            one.close()
        assert waiting.wait(30) == 0


def test_an_api_that_is_replaced_answers_until_nobody_asks_it(tmp_path: Path) -> None:
    """In both ways to keep studies: a hook that goes would stay as an empty one, which Kubernetes refuses."""
    for values in (POSTGRES, SERVICE):
        *_, script = before_it_ends(containers(values, tmp_path, "parlay")["api"])
        assert script == "import time; time.sleep(5)"
