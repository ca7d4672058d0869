"""What cannot work is refused before it is rendered, by a message that names the value."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import kube_tools, tools
from tests.chart import CHART, template
from tests.chart_cases import CONTROLLER, POSTGRES, SERVICE, WINNER, Values, merged
from tests.helm.values_table import VALUES, values

pytestmark = pytest.mark.tools
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
GROUP = WINNER["serving"]["workerGroups"][0]
POOLS = [{**GROUP, "name": pool, "pool": pool} for pool in ("prefill", "decode")]
FREE = ("monitoring.dashboard.labels.", "serving.networkPolicy.operator.")  # keys that a site chooses
Way = tuple[str | int, ...]


# What an element of a list is made of, where something of it must be there.
ELEMENT = {**GROUP, "mountPath": "/a", "name": "a"}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return found


def required(schema: dict[str, Any], way: Way = ()) -> Iterator[tuple[Way, dict[str, Any]]]:
    """(path, schema) of every value that must be there, in elements of lists too, whose place is the first: 0."""
    for name, inner in schema.get("properties", {}).items():
        inner = resolved(inner)
        if name in schema.get("required", ()):
            yield (*way, name), inner
            yield from required(inner, (*way, name))
            yield from required(resolved(inner.get("items", {})), (*way, name, 0))


def put(values: Values, way: Way, value: Any) -> Way:
    """One value where it belongs, and its path. An element of a list is a new one, with what else it must have."""
    if 0 in way:
        *place, _, name = way
        *_, (_, whole) = [one for one in REQUIRED if one[0] == tuple(place)]
        kept = {key: ELEMENT[key] for key in resolved(whole["items"])["required"]} | {name: value}
        elements = held(values, place[:-1]).setdefault(place[-1], [])
        elements.append({key: inner for key, inner in kept.items() if inner is not None})
        return (*place, len(elements) - 1, name)
    held(values, way[:-1])[way[-1]] = value
    return way


def held(values: Values, way: Sequence[str | int]) -> Values:
    for name in way:
        values = values.setdefault(name, {})  # type: ignore[arg-type]
    return values


def wrong(schema: dict[str, Any]) -> list[Any]:
    """No value of it: null takes a default away, the rest is of another kind or no member."""
    if "enum" in schema:
        return [None, "no-such-word"]
    kinds = {"string": [7, {}], "integer": ["two", 0.5, -1], "boolean": ["perhaps"], "array": ["a"], "object": ["a"]}
    kind = schema["type"]
    return [None, *kinds[kind if isinstance(kind, str) else kind[0]]]


REQUIRED = list(required(SCHEMA))


def test_every_value_of_the_file_but_sections_of_a_kind_is_required() -> None:
    """So that the mutations below are of all of them."""
    known = {".".join(map(str, way)) for way, _ in REQUIRED}
    sections = {"tuner", "serving", "monitoring", "controller"}
    paths = {value.path for value in values(VALUES.read_text(encoding="utf-8"))}
    assert {path for path in paths - known - sections if not path.startswith(FREE)} == set()
    assert sum(0 in way for way, _ in REQUIRED) >= 16


@pytest.mark.slow
@pytest.mark.parametrize("binary", [tools.helm, kube_tools.helm4], ids=["helm-3", "helm-4"])
def test_no_value_that_is_required_can_be_left_out_or_be_something_else(
    binary: Callable[[], Path], tmp_path: Path
) -> None:
    """Several in one file where none is within another: a Helm names all that is wrong in one."""
    batches = defaultdict(list)
    for way, schema in REQUIRED:
        for number, value in enumerate(wrong(schema)):
            batches[number, len(way)].append((way, value))
    assert sum(map(len, batches.values())) > 450
    for batch in batches.values():
        given: Values = {}
        ways = [(put(given, way, value), value) for way, value in batch]
        done = template(given, tmp_path, binary=binary())
        assert done.returncode != 0
        said = re.sub(r"at '/?([^']*)'", lambda found: found[1].replace("/", ".") or "(root)", done.stderr)
        for way, value in ways:
            holder, named = ".".join(map(str, way[:-1])) or "(root)", ".".join(map(str, way))
            # Of one that is missing each Helm names what should hold it, and then itself.
            missing = rf"^ *- {re.escape(holder)}: .*\b{way[-1]}\b"
            pattern = missing if value is None else rf"^ *- {re.escape(named)}: "
            assert re.search(pattern, said, re.M), f"{named}={value!r}: {done.stderr}"


def conditions(schema: dict[str, Any], way: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths of the values of which some condition of the schema wants something."""
    for part in (schema, *schema.get("allOf", ())):
        if "then" in part:
            yield from wanted(part["then"], way)
    for name, inner in schema.get("properties", {}).items():
        yield from conditions(resolved(inner), (*way, name))


def wanted(schema: dict[str, Any], way: tuple[str, ...]) -> Iterator[str]:
    inner = schema.get("properties", {})
    if not inner:
        yield ".".join(way)
    for name, one in inner.items():
        yield from wanted(one, (*way, name))


def test_every_condition_of_the_schema_has_a_case() -> None:
    assert set(conditions(SCHEMA)) <= {named for _, named in IMPOSSIBLE.values()}


TRIALS = merged(CONTROLLER, {"controller": {"trials": {"maxGpus": 8, "image": "r/p:1"}}})
TOKEN = [{"name": "HF_TOKEN", "value": "hf_x"}]
IMPOSSIBLE = {
    "a service without an image": ({"tuner": {"enabled": True}}, "tuner.image"),
    "two processes on one SQLite": (merged(SERVICE, {"tuner": {"api": {"replicas": 2}}}), "tuner.api.replicas"),
    "real trials nowhere": (merged(SERVICE, {"tuner": {"launchers": ["ray"]}}), "tuner.rayAddress"),
    "an engine of its own in a pod without devices": (
        merged(SERVICE, {"tuner": {"launchers": ["local"]}}),
        "tuner.launchers",
    ),
    "a Ray client's address": (
        merged(SERVICE, {"tuner": {"launchers": ["ray"], "rayAddress": "ray://head:10001"}}),
        "tuner.rayAddress",
    ),
    "APIs that an autoscaler counts, on SQLite": (
        merged(SERVICE, {"tuner": {"api": {"autoscaled": True}}}),
        "tuner.api.autoscaled",
    ),
    "workers that an autoscaler counts, on SQLite": (
        merged(SERVICE, {"tuner": {"worker": {"autoscaled": True}}}),
        "tuner.worker.autoscaled",
    ),
    "alerts of no service": (merged(WINNER, {"monitoring": {"rules": {"enabled": True}}}), "tuner.enabled"),
    "a variable twice": (
        merged(SERVICE, {"tuner": {"extraEnv": [{"name": "HOME", "value": "/home"}]}}),
        "tuner.extraEnv: HOME",
    ),
    "two variables of one name": (
        merged(WINNER, {"serving": {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}}),
        "serving.extraEnv: A",
    ),
    "a label that a selector needs": (
        merged(SERVICE, {"tuner": {"podLabels": {"app.kubernetes.io/name": "mine"}}}),
        "tuner.podLabels: app.kubernetes.io/name",
    ),
    "an annotation by which the site is read anew": (
        merged(CONTROLLER, {"controller": {"podAnnotations": {"parlay.dev/site": "mine"}}}),
        "controller.podAnnotations: parlay.dev/site",
    ),
    "an annotation of the layout": (
        merged(WINNER, {"serving": {"annotations": {"parlay/layout": "mine"}}}),
        "serving.annotations: parlay/layout",
    ),
    **{
        f"a label of the chart's own for {part}": (
            merged(SERVICE, {"monitoring": {part: {"labels": {"app.kubernetes.io/part-of": "mine"}}}}),
            f"monitoring.{part}.labels: app.kubernetes.io/part-of",
        )
        for part in ("serviceMonitor", "podMonitor", "rules", "dashboard")
    },
    "a volume twice": (
        merged(CONTROLLER, {"controller": {"extraVolumes": [{"name": "data", "emptyDir": {}}]}}),
        "controller.extraVolumes: data",
    ),
    "a volume of what the site says": (
        merged(CONTROLLER, {"controller": {"extraVolumes": [{"name": "site", "emptyDir": {}}]}}),
        "controller.extraVolumes: site",
    ),
    "a volume over what the site says": (
        merged(CONTROLLER, {"controller": {"extraVolumeMounts": [{"name": "v", "mountPath": "/etc/parlay"}]}}),
        "controller.extraVolumeMounts: /etc/parlay",
    ),
    "a volume of the worker beside a head": (
        merged(TRIALS, {"serving": {"extraVolumes": [{"name": "data", "emptyDir": {}}]}}),
        "serving.extraVolumes: data",
    ),
    "a volume over the files of Ray": (
        merged(TRIALS, {"serving": {"extraVolumeMounts": [{"name": "v", "mountPath": "/tmp/ray"}]}}),
        "serving.extraVolumeMounts: /tmp/ray",
    ),
    "a variable of the worker beside a head": (
        merged(TRIALS, {"serving": {"extraEnv": [{"name": "HOME", "value": "/home"}]}}),
        "serving.extraEnv: HOME",
    ),
    "two volumes at one place": (
        merged(WINNER, {"serving": {"extraVolumeMounts": [{"name": "v", "mountPath": "/hf-cache"}]}}),
        "serving.extraVolumeMounts: /hf-cache",
    ),
    "a configuration that is no YAML": (
        merged(WINNER, {"serving": {"serveConfigV2": "a: ["}}),
        "serving.serveConfigV2",
    ),
    "a configuration of something else": (
        merged(WINNER, {"serving": {"serveConfigV2": "import_path: a:b"}}),
        "serving.serveConfigV2",
    ),
    "a GPU that is no resource": (merged(WINNER, {"serving": {"gpuResource": "gpu"}}), "serving.gpuResource"),
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
    "one of two pools": (
        merged(WINNER, {"serving": {"workerGroups": [{**GROUP, "pool": "prefill"}]}}),
        "serving.workerGroups",
    ),
    "a group of no pool beside two": (
        merged(WINNER, {"serving": {"workerGroups": [GROUP, *POOLS]}}),
        "serving.workerGroups",
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
    given, named = IMPOSSIBLE[what]
    done = template(given, tmp_path)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.slow
def test_helm_4_refuses_them_too_and_names_them(tmp_path: Path) -> None:
    for what, (given, named) in IMPOSSIBLE.items():
        done = template(given, tmp_path, binary=kube_tools.helm4())
        assert done.returncode != 0, what
        assert named.replace("/", ".") in done.stderr.replace("/", "."), f"{what}: {done.stderr}"
