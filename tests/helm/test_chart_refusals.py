"""What cannot work is refused before it is rendered, by a message that names the value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import kube_tools
from tests.chart import CHART, template
from tests.chart_cases import CONTROLLER, POSTGRES, SERVICE, WINNER, Values, merged

pytestmark = pytest.mark.tools
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
GROUP = WINNER["serving"]["workerGroups"][0]


def required(schema: dict[str, Any], way: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """(path, schema) of every value that must be there."""
    for name, inner in schema.get("properties", {}).items():
        resolved = SCHEMA["definitions"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        if name in schema.get("required", ()):
            yield (*way, name), resolved
            yield from required(resolved, (*way, name))


def nested(way: tuple[str, ...], value: Any) -> Values:
    for name in reversed(way):
        value = {name: value}
    return dict(value)


def wrong(schema: dict[str, Any]) -> list[Any]:
    """No value of it: null takes a default away, the rest is of another kind or no member."""
    if "enum" in schema:
        return [None, "no-such-word"]
    kinds = {"string": [7, {}], "integer": ["two", 0.5, -1], "boolean": ["perhaps"], "array": ["a"], "object": ["a"]}
    return [None, *kinds[schema["type"]]]


REQUIRED = list(required(SCHEMA))


@pytest.mark.slow
def test_no_value_that_is_required_can_be_left_out_or_be_something_else(tmp_path: Path) -> None:
    mutations = [
        (way, value) for way, schema in REQUIRED for value in wrong(schema) if not (value is None and way[1:] == ())
    ]
    assert len(REQUIRED) > 70

    def refused(mutation: tuple[tuple[str, ...], Any]) -> str:
        way, value = mutation
        folder = tmp_path / ".".join(way) / str(value)
        folder.mkdir(parents=True)
        done = template(nested(way, value), folder)
        # A null takes the whole value away: what must be there is then missing from what holds it.
        return "" if done.returncode and way[-1] in done.stderr else f"{'.'.join(way)}={value!r}: {done.stderr}"

    with ThreadPoolExecutor(2) as pool:
        assert [text for text in pool.map(refused, mutations) if text] == []


TOKEN = [{"name": "HF_TOKEN", "value": "hf_x"}]
IMPOSSIBLE = {
    "a service without an image": ({"tuner": {"enabled": True}}, "tuner.image"),
    "two processes on one SQLite": (merged(SERVICE, {"tuner": {"api": {"replicas": 2}}}), "tuner.api.replicas"),
    "real trials nowhere": (merged(SERVICE, {"tuner": {"launchers": ["ray"]}}), "tuner.rayAddress"),
    "an unknown launcher": (merged(SERVICE, {"tuner": {"launchers": ["slurm"]}}), "tuner.launchers"),
    "no launcher": (merged(SERVICE, {"tuner": {"launchers": []}}), "tuner.launchers"),
    "a password in clear": (merged(POSTGRES, {"tuner": {"extraEnv": TOKEN}}), "tuner.extraEnv"),
    "a token in clear": (merged(WINNER, {"serving": {"extraEnv": TOKEN}}), "serving.extraEnv"),
    "TLS for nobody": (merged(SERVICE, {"tuner": {"ingress": {"tlsSecret": "t"}}}), "tuner.ingress.host"),
    "an unknown scope": (merged(SERVICE, {"tuner": {"token": {"scope": "root"}}}), "tuner.token.scope"),
    "a misspelt value": ({"serving": {"wokerGroups": []}}, "wokerGroups"),
    "a misspelt job": ({"tunner": {"enabled": True}}, "tunner"),
    "memory in GB": (merged(WINNER, {"serving": {"head": {"memory": "16GB"}}}), "serving.head.memory"),
    "half a core of a worker": (merged(WINNER, {"serving": {"head": {"cpu": "0.5"}}}), "serving.head.cpu"),
    "a Ray without a version": (merged(WINNER, {"serving": {"rayVersion": "latest"}}), "serving.rayVersion"),
    "a name that is no label": (merged(WINNER, {"serving": {"name": "Not_A_Label"}}), "serving.name"),
    "a path without a claim": (merged(WINNER, {"serving": {"modelVolume": {"path": "/m"}}}), "claim"),
    "a layout without pods": (merged(WINNER, {"serving": {"workerGroups": []}}), "serving.workerGroups"),
    "no replica": (merged(WINNER, {"serving": {"workerGroups": [{**GROUP, "replicas": 0}]}}), "replicas"),
    "a group of no size": (merged(WINNER, {"serving": {"workerGroups": [{"name": "a"}]}}), "memory"),
    "groups of one name": (
        merged(WINNER, {"serving": {"workerGroups": [GROUP, GROUP]}}),
        "serving.workerGroups[1].name",
    ),
    "a pool of no kind": (merged(WINNER, {"serving": {"workerGroups": [{**GROUP, "pool": "x"}]}}), "pool"),
    "memory that is all /dev/shm": (merged(WINNER, {"serving": {"sharedMemory": "256Gi"}}), "serving.sharedMemory"),
    "a gang without a queue": (merged(WINNER, {"serving": {"gang": {"scheduler": "kueue"}}}), "serving.gang.queue"),
    "an unknown gang": (merged(WINNER, {"serving": {"gang": {"scheduler": "x", "queue": "q"}}}), "gang.scheduler"),
    "a device that is no resource": (merged(WINNER, {"serving": {"rdma": {"resource": "hca"}}}), "rdma.resource"),
    "no RDMA device": (merged(WINNER, {"serving": {"rdma": {"resource": "rdma/hca", "count": 0}}}), "rdma.count"),
    "an unknown upgrade": (merged(WINNER, {"serving": {"upgrade": "Recreate"}}), "serving.upgrade"),
    "an operator that is nobody": (
        merged(WINNER, {"serving": {"networkPolicy": {"operator": {"app.kubernetes.io/component": None}}}}),
        "networkPolicy.operator",
    ),
    "a scrape that is refused": (
        merged(SERVICE, {"monitoring": {"serviceMonitor": {"enabled": True}}}),
        "monitoring.serviceMonitor.token.secret",
    ),
    "a provider for nobody": (merged(SERVICE, {"tuner": {"oidc": {"issuer": "https://i"}}}), "tuner.oidc.audience"),
    "a provider in clear": (
        merged(SERVICE, {"tuner": {"oidc": {"issuer": "http://i", "audience": "p"}}}),
        "tuner.oidc.issuer",
    ),
    "an archive of nothing": (
        merged(SERVICE, {"tuner": {"retention": {"archiveTo": "/a"}}}),
        "tuner.retention.keepDays",
    ),
    "an archive that ends with its pod": (
        merged(POSTGRES, {"tuner": {"retention": {"keepDays": 1, "archiveTo": "/var/lib/parlay"}}}),
        "tuner.retention.archiveTo",
    ),
    "a controller's password in clear": (
        merged(CONTROLLER, {"controller": {"extraEnv": TOKEN}}),
        "controller.extraEnv",
    ),
    "studies that no worker runs": (
        merged(SERVICE, {"controller": {"enabled": True, "launchers": ["ray"]}}),
        "controller.launchers",
    ),
    "a controller of two stores": (
        merged(CONTROLLER, {"controller": {"store": {"claim": "c"}}}),
        "controller.store",
    ),
    "an unknown kind of GPU setting": (
        merged(WINNER, {"serving": {"gpuTypes": {"h100": {"node": {}}}}}),
        "gpuTypes.h100",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_work_is_refused_by_name(what: str, tmp_path: Path) -> None:
    values, named = IMPOSSIBLE[what]
    done = template(values, tmp_path)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.slow
def test_helm_4_refuses_them_too_and_names_them(tmp_path: Path) -> None:
    for what, (values, named) in IMPOSSIBLE.items():
        done = template(values, tmp_path, binary=kube_tools.helm4())
        assert done.returncode != 0, what
        said = done.stderr.replace("'", ".").replace("/", ".")
        assert named.rpartition(".")[2].rstrip("]") in said, f"{what}: {done.stderr}"
