"""The real API server: it keeps what the one in memory keeps, takes our definition, and lets the controller do its work
and no more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube_bench import ACCOUNT, may, rendered
from tests.kube_contract import KubeContract
from tests.layout_requests import NAMESPACE, layout_request
from tuner.app.controller.kube import LAYOUT_REQUEST, KubeError

pytestmark = [pytest.mark.slow, pytest.mark.tools, pytest.mark.timeout(1800)]  # the server may still be built
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/layoutrequests.parlay.dev"

# What the controller does, and so may do; of Leases, to the one of its election alone.
RIGHTS = {
    ("parlay.dev", "layoutrequests"): {"list", "watch", "patch"},
    ("parlay.dev", "layoutrequests/status"): {"update"},
    ("ray.io", "rayservices"): {"list", "watch", "create", "patch"},
    ("ray.io", "rayclusters"): {"list", "watch", "create", "patch", "delete"},
    ("", "configmaps"): {"get", "create", "patch"},
    ("", "events"): {"create"},
    ("coordination.k8s.io", "leases"): {"create"},
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
OTHERS = [
    ("", "secrets"), ("", "pods"), ("", "services"), ("", "serviceaccounts"), ("", "namespaces"), ("", "nodes"),
    ("apps", "deployments"), ("batch", "jobs"), ("rbac.authorization.k8s.io", "roles"), ("ray.io", "rayjobs"),
    ("ray.io", "rayservices/status"), ("ray.io", "rayclusters/status"), ("parlay.dev", "layoutrequests/finalizers"),
]  # fmt: skip


class TestRealKube(KubeContract):
    """``kube`` is that of the folder."""


def test_the_definition_is_structural(kube: Any) -> None:
    """The server itself says what it thinks of it; a schema that is not structural has a condition of its own."""
    found = {c["type"]: c["status"] for c in kube.ask("GET", DEFINITION)["status"]["conditions"]}
    assert found == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize(
    ("changes", "spec", "named"),
    [
        ({"objective": "cheapest"}, {}, "spec.request.objective"),
        ({"slo.0.ms": 0}, {}, "spec.request.slo"),
        ({"budget.launches": "many"}, {}, "spec.request.budget.launches"),
        ({}, {"deploy": "maybe"}, "spec.deploy"),
    ],
)
def test_the_server_refuses_what_cannot_be(kube: Any, changes: Any, spec: Any, named: str) -> None:
    with pytest.raises(KubeError) as refused:
        kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request(changes=changes, **spec))
    assert refused.value.code == 422
    assert named in str(refused.value)


def test_what_is_left_out_is_filled_in_only_where_it_says_so(kube: Any) -> None:
    given = layout_request()
    del given["spec"]["deploy"]
    made = kube.create(LAYOUT_REQUEST, NAMESPACE, given)
    assert made["spec"] == given["spec"] | {"deploy": "manual"}


def test_people_see_how_it_stands(kube: Any) -> None:
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    path = LAYOUT_REQUEST.path(NAMESPACE)
    answer = kube._pool.request(
        "GET", kube._configuration.host + path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    )
    names = [column["name"] for column in answer.json()["columnDefinitions"]]
    assert names[:6] == ["Name", "Phase", "Model", "Layout", "GPUs", "Trials"]


@pytest.mark.parametrize(("group", "resource"), [*RIGHTS, *OTHERS], ids=lambda word: word or "core")
def test_the_controller_may_do_its_work_and_nothing_else(kube: Any, group: str, resource: str) -> None:
    allowed = {verb for verb in VERBS if may(kube, ACCOUNT, verb, group, resource, NAMESPACE)}
    assert allowed == RIGHTS.get((group, resource), set())
    assert not [verb for verb in VERBS if may(kube, ACCOUNT, verb, group, resource, "default")]


def test_of_leases_its_own_alone(kube: Any) -> None:
    def verbs(name: str) -> set[str]:
        return {v for v in VERBS if may(kube, ACCOUNT, v, "coordination.k8s.io", "leases", NAMESPACE, name)}

    assert verbs(ACCOUNT) == {"create", "get", "update"}
    assert verbs("another") == {"create"}


def test_for_all_namespaces_it_may_do_the_same_in_each_and_of_leases_no_more(kube: Any) -> None:
    """By a ClusterRole, which only a release that looks after all of them has."""
    root = "/apis/rbac.authorization.k8s.io/v1"
    documents = [one for one in rendered("controller.namespaces=all") if one["kind"].startswith("ClusterRole")]
    mine = [one for one in documents if one["metadata"]["name"] == f"{NAMESPACE}.{ACCOUNT}"]
    made = [(f"{root}/{one['kind'].lower()}s", one) for one in mine]
    try:
        for path, document in made:
            kube.post(path, document)
        for group, resource in [*RIGHTS, *OTHERS]:
            allowed = {verb for verb in VERBS if may(kube, ACCOUNT, verb, group, resource, "default")}
            leases = resource == "leases"
            assert allowed == (set() if leases else RIGHTS.get((group, resource), set())), resource
    finally:
        for path, document in made:
            kube.ask("DELETE", f"{path}/{document['metadata']['name']}")
