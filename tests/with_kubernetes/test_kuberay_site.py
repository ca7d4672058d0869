"""KubeRay as a place that serves, on a real API server: the contract, conflicts, rights that are missing, a server that
goes away. KubeRay, the Gateway's controller and pods are stand-ins; the definition of HTTPRoutes is a sketch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from deploy.rollout.kuberay.placed import object_of
from deploy.rollout.kuberay.upgrades import Upgrades
from tests.api_server import ApiServer, wait_for
from tests.fakes import make_request
from tests.kube_bench import RELEASE, RealKube
from tests.kube_sites import NAMESPACE, PLACED, KubeBench, Serving, a_served
from tests.kuberay_operator import Operator
from tests.site_contract import SharingSiteContract, seen_of
from tuner.app.controller.client import KubeClient
from tuner.app.controller.kube import CONFIG_MAP, HTTP_ROUTE, RAY_SERVICE, SERVICE, Kind, Kube, KubeError, Object
from tuner.app.controller.kuberay_site import KubeRaySite
from tuner.app.controller.kuberay_upgrades import KubeRayUpgradeSite
from tuner.errors import ParlayError
from tuner.retune.policy import CanaryPolicy
from tuner.retune.site import Readiness

pytestmark = [pytest.mark.slow, pytest.mark.tools, pytest.mark.timeout(1800)]  # the server may still be built
REQUEST = make_request()
_FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
ROUTES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "httproutes.gateway.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a sketch for tests"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _FREE}}},
            }
        ],
    },
}


class Said:
    """What a stand-in asks: a status is put in its place as a whole, as KubeRay's operator does it."""

    def __init__(self, kube: RealKube) -> None:
        self._kube, self.list, self.get = kube, kube.list, kube.get

    def set_status(self, kind: Kind, namespace: str, name: str, status: Object) -> None:
        found = self._kube.get(kind, namespace, name)
        if found is not None:
            self._kube.replace(kind, namespace, name, found | {"status": status}, "status")


class RealBench(KubeBench):
    """``eventually`` waits by the clock. The Site has a client of its own, as a process of ours has."""

    def __init__(self, server: ApiServer, kube: RealKube) -> None:
        self.client = KubeClient(str(server.kubeconfig))
        super().__init__(kube)
        self.kuberay = Serving(Said(kube))

    def again(self) -> KubeRaySite:
        return self.site_on(self.client)

    def eventually(self, holds: Callable[[], bool]) -> bool:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                self.kuberay.look()
            except KubeError as error:
                if error.code not in (0, 404, 409, 500, 503):  # deleted or changed since its list; a server that starts
                    raise
            if holds():
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def places(kube: RealKube) -> RealKube:
    """``kube``, with the kinds that a front needs, and none of them there."""
    kube.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", ROUTES)
    wait_for(lambda: [kube.list(HTTP_ROUTE, NAMESPACE)])
    for kind in (HTTP_ROUTE, SERVICE):
        for one in kube.list(kind, NAMESPACE)[0]:
            kube.delete(kind, NAMESPACE, one["metadata"]["name"])
    return kube


class TestRealKubeRaySite(SharingSiteContract):
    @pytest.fixture
    def bench(self, server: ApiServer, places: RealKube) -> RealBench:
        return RealBench(server, places)


def there(kube: RealKube, kind: Kind, name: str) -> Object:
    found = kube.get(kind, NAMESPACE, name)
    assert found is not None
    return found


def bench_on(server: ApiServer, kube: RealKube) -> RealBench:
    return RealBench(server, kube)


def limited(server: ApiServer) -> Kube:
    """With the rights of the chart's controller, which has none over HTTPRoutes."""
    return KubeClient(str(server.token_kubeconfig(NAMESPACE, f"{RELEASE}-controller")))


def test_who_changed_what_is_told_by_the_server(server: ApiServer, places: RealKube) -> None:
    bench = bench_on(server, places)
    bench.site.start(bench.live("one"), REQUEST)
    assert bench.site.see().foreign is None
    patch: Object = {"spec": {"rayClusterConfig": {"rayVersion": "2.60.0"}}, "metadata": {"labels": {"theirs": "1"}}}
    places.edit(RAY_SERVICE, NAMESPACE, object_of("one"), patch, "kubectl-edit")  # the same value: it is theirs too
    said = bench.site.see().foreign
    assert said is None or ".spec.rayClusterConfig.rayVersion is kubectl-edit's too" in said
    patch["spec"]["rayClusterConfig"]["rayVersion"] = "2.59.0"
    places.edit(RAY_SERVICE, NAMESPACE, object_of("one"), patch, "kubectl-edit")
    said = bench.site.see().foreign
    assert said is not None
    assert ".spec.rayClusterConfig.rayVersion is kubectl-edit's too" in said
    assert "theirs" not in said


def test_a_front_that_another_took_is_left_to_him(server: ApiServer, places: RealKube) -> None:
    bench = bench_on(server, places)
    for name in ("one", "two"):
        bench.site.start(bench.live(name), REQUEST)
    bench.site.route({"one": 1.0})
    rules = there(places, HTTP_ROUTE, "llama")["spec"]["rules"]
    rules[0]["backendRefs"][0]["weight"] = 1
    places.edit(HTTP_ROUTE, NAMESPACE, "llama", {"spec": {"rules": rules}}, "somebody")
    assert "spec.rules is somebody's too" in str(bench.site.see().foreign)
    with pytest.raises(ParlayError, match=r"another manager has fields of it.*somebody"):
        bench.site.route({"two": 1.0})
    assert there(places, HTTP_ROUTE, "llama")["spec"]["rules"] == rules


def test_rights_that_are_missing_are_told(server: ApiServer, places: RealKube) -> None:
    bench = bench_on(server, places)
    bench.site.start(bench.live("one"), REQUEST)
    site = bench.site_on(limited(server))
    with pytest.raises(ParlayError, match=r"cannot (get|list|patch) resource"):
        site.see()


def test_a_server_that_is_away_is_asked_again(server: ApiServer, places: RealKube) -> None:
    bench = bench_on(server, places)
    bench.site.start(bench.live("one"), REQUEST)
    server.restart(pause_s=1.0)

    def ready() -> bool:
        with suppress(ParlayError):  # it serves our kinds some seconds later than its own
            return seen_of(bench.site, "one").readiness is Readiness.READY
        return False

    assert bench.eventually(ready)
    assert bench.site.see().foreign is None


def test_one_rayservice_moves_over_and_back(server: ApiServer, places: RealKube) -> None:
    """By server-side apply with the controller's own rights: what a step leaves out goes."""
    operator = Operator(Said(places), "llama", start_s=4)
    upgrades = Upgrades("istio", "http://gateway.example")
    site = KubeRayUpgradeSite(
        limited(server), PLACED, lambda *_: True, upgrades, CanaryPolicy(), clock=lambda: operator.now_s
    )
    site.start(a_served("old", "tp=2", REQUEST), REQUEST)
    operator.run(10)
    site.start(a_served("new", "tp=4", REQUEST), REQUEST)
    operator.run(10)
    assert site.see().shares == {"old": 1.0}
    site.route({"old": 0.9, "new": 0.1})
    operator.run(4)
    seen = site.see()
    assert (seen.shares, seen.foreign) == ({"old": 0.9, "new": 0.1}, None)
    options = there(places, RAY_SERVICE, "llama")["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
    assert options["stepSizePercent"] == 0
    site.route({"old": 1.0})
    operator.run(10)
    seen = site.see()
    assert (seen.shares, seen.foreign, set(seen.deployments)) == ({"old": 1.0}, None, {"old"})
    site.start(a_served("new", "tp=4", REQUEST), REQUEST)
    found = there(places, RAY_SERVICE, "llama")["metadata"]["annotations"]
    assert "parlay.dev/returning" not in found
    operator.run(10)
    site.route({"new": 1.0})
    operator.run(40)
    assert site.see().shares == {"new": 1.0}
    with pytest.raises(KubeError):
        limited(server).remove(CONFIG_MAP, NAMESPACE, "llama-deployments", "u")  # it has no such right


def test_a_rayservice_changed_by_hand_is_held(server: ApiServer, places: RealKube) -> None:
    operator = Operator(Said(places), "llama", start_s=4)
    site: Any = KubeRayUpgradeSite(places, PLACED, lambda *_: True, Upgrades(), CanaryPolicy())
    site.start(a_served("old", "tp=2", REQUEST), REQUEST)
    operator.run(10)
    places.edit(RAY_SERVICE, NAMESPACE, "llama", {"spec": {"serveConfigV2": "mine"}}, "somebody")
    assert ".spec.serveConfigV2 is somebody's too" in str(site.see().foreign)
    with pytest.raises(ParlayError, match="somebody"):
        site.start(a_served("new", "tp=4", REQUEST), REQUEST)
    assert there(places, RAY_SERVICE, "llama")["spec"]["serveConfigV2"] == "mine"
