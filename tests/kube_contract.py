"""What the controller relies on of an API server: the one in memory and a real one pass the same tests.

A subclass has a fixture ``kube``: a ``Kube`` with ``edit``, ``set_status`` and ``delete`` for what others do, whose
namespace ``serving`` is empty.
"""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any

import pytest

from deploy.controller.names import FINALIZER
from deploy.specs.rayservice import Platform
from deploy.specs.study_cluster import study_cluster
from tests.layout_requests import NAMESPACE, layout_request
from tests.study_clusters import TRIALS
from tuner.app.controller.kube import CONFIG_MAP, LAYOUT_REQUEST, RAY_CLUSTER, KubeError, Object
from tuner.ask.request import ClusterSpec

Api = Any


def config_map(data: Object, name: str = "one", **meta: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}, "data": data}


def ray_cluster() -> Object:
    groups = (ClusterSpec(gpu="h100_sxm", gpus_per_node=8),)
    return study_cluster("one", groups, Platform(), TRIALS, "org/model")


def code_of(call: Any, *words: Any) -> int:
    with pytest.raises(KubeError) as refused:
        call(*words)
    return refused.value.code


class KubeContract:
    def test_what_is_made_is_found_and_listed(self, kube: Api) -> None:
        made = kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
        assert made["metadata"]["generation"] == 1
        assert kube.get(LAYOUT_REQUEST, NAMESPACE, "llama")["metadata"]["uid"] == made["metadata"]["uid"]
        assert kube.get(LAYOUT_REQUEST, NAMESPACE, "another") is None
        listed, _ = kube.list(LAYOUT_REQUEST, NAMESPACE)
        assert [one["metadata"]["name"] for one in listed] == ["llama"]
        assert code_of(kube.create, LAYOUT_REQUEST, NAMESPACE, layout_request()) == 409

    def test_a_watch_tells_what_came_after_the_list(self, kube: Api) -> None:
        _, version = kube.list(LAYOUT_REQUEST, NAMESPACE)
        kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
        kube.merge(LAYOUT_REQUEST, NAMESPACE, "llama", {"metadata": {"labels": {"a": "b"}}})
        kube.delete(LAYOUT_REQUEST, NAMESPACE, "llama")
        told = list(islice(kube.watch(LAYOUT_REQUEST, NAMESPACE, version, 10), 3))
        assert [change.kind for change in told] == ["ADDED", "MODIFIED", "DELETED"]
        assert told[1].object["metadata"]["labels"] == {"a": "b"}

    def test_a_status_is_written_apart(self, kube: Api) -> None:
        made = kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
        status = {"observedGeneration": 1, "phase": "Queued", "conditions": []}
        other = copy.deepcopy(made) | {"status": status}
        other["spec"]["deploy"] = "manual"
        said = kube.replace(LAYOUT_REQUEST, NAMESPACE, "llama", other, "status")
        assert said["status"] == status
        assert said["spec"]["deploy"] == "auto"
        assert said["metadata"]["generation"] == 1
        assert int(said["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
        assert code_of(kube.replace, LAYOUT_REQUEST, NAMESPACE, "llama", other, "status") == 409
        again = kube.replace(LAYOUT_REQUEST, NAMESPACE, "llama", said, "status")
        assert again["metadata"]["resourceVersion"] == said["metadata"]["resourceVersion"]

    def test_a_changed_spec_is_another_generation(self, kube: Api) -> None:
        kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
        edited = kube.edit(LAYOUT_REQUEST, NAMESPACE, "llama", {"spec": {"deploy": "manual"}})
        assert edited["metadata"]["generation"] == 2

    def test_a_finalizer_keeps_it(self, kube: Api) -> None:
        made = kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
        version = made["metadata"]["resourceVersion"]
        patch: Object = {"metadata": {"finalizers": [FINALIZER], "resourceVersion": version}}
        kube.merge(LAYOUT_REQUEST, NAMESPACE, "llama", patch)
        assert code_of(kube.merge, LAYOUT_REQUEST, NAMESPACE, "llama", patch) == 409
        kube.delete(LAYOUT_REQUEST, NAMESPACE, "llama")
        going = kube.get(LAYOUT_REQUEST, NAMESPACE, "llama")
        assert "deletionTimestamp" in going["metadata"]
        kube.merge(LAYOUT_REQUEST, NAMESPACE, "llama", {"metadata": {"finalizers": []}})
        assert kube.get(LAYOUT_REQUEST, NAMESPACE, "llama") is None
        assert code_of(kube.merge, LAYOUT_REQUEST, NAMESPACE, "llama", {"metadata": {}}) == 404

    def test_what_is_removed_is_the_one_that_was_meant(self, kube: Api) -> None:
        made = kube.apply(RAY_CLUSTER, NAMESPACE, "one", ray_cluster())
        assert code_of(kube.remove, RAY_CLUSTER, NAMESPACE, "one", "another's") == 409
        kube.remove(RAY_CLUSTER, NAMESPACE, "one", made["metadata"]["uid"])
        assert kube.get(RAY_CLUSTER, NAMESPACE, "one") is None
        assert code_of(kube.remove, RAY_CLUSTER, NAMESPACE, "one", made["metadata"]["uid"]) == 404

    def test_a_list_of_all_namespaces_has_those_of_each(self, kube: Api) -> None:
        _, version = kube.list(LAYOUT_REQUEST, "")
        kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
        told = next(iter(kube.watch(LAYOUT_REQUEST, "", version, 10)))
        assert told.object["metadata"]["namespace"] == NAMESPACE
        assert [one["metadata"]["name"] for one in kube.list(LAYOUT_REQUEST, "")[0]] == ["llama"]

    def test_what_is_applied_is_made_and_changed(self, kube: Api) -> None:
        made = kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "1"}))
        again = kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "1"}))
        assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        changed = kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "2"}))
        assert changed["data"] == {"a": "2"}

    def test_fields_of_another_manager_are_not_taken(self, kube: Api) -> None:
        kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "1"}))
        kube.edit(CONFIG_MAP, NAMESPACE, "one", {"data": {"a": "theirs", "b": "theirs"}})
        with pytest.raises(KubeError) as refused:
            kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "2"}))
        assert refused.value.code == 409
        assert any("data.a" in cause for cause in refused.value.causes)
        assert kube.get(CONFIG_MAP, NAMESPACE, "one")["data"] == {"a": "theirs", "b": "theirs"}
        kept = kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "theirs"}))  # no other value, no conflict
        assert kept["data"] == {"a": "theirs", "b": "theirs"}

    def test_what_is_applied_no_more_goes(self, kube: Api) -> None:
        kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "1", "b": "2"}))
        kube.edit(CONFIG_MAP, NAMESPACE, "one", {"data": {"c": "theirs"}})
        assert kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map({"a": "1"}))["data"] == {"a": "1", "c": "theirs"}
