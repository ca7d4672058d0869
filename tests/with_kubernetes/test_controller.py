"""`parlay controller` as a process with its own rights on a real API server, while people, KubeRay's stand-in, other
managers and crashes do what they do."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api_server import ApiServer, wait_for
from tests.fakes import document
from tests.kube_bench import ACCOUNT, ControllerProcess, rendered
from tests.layout_requests import IMPOSSIBLE, NAMESPACE, SMALL, KubeRayStandIn, condition, layout_request, phase
from tests.study_clusters import CREATE, OperatorStandIn
from tuner.app.controller.kube import CONFIG_MAP, EVENT, LAYOUT_REQUEST, LEASE, RAY_CLUSTER, RAY_SERVICE
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import Cause
from tuner.study.lifecycle import StudyState
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

pytestmark = [pytest.mark.slow, pytest.mark.tools, pytest.mark.timeout(1800)]  # the server may still be built
Start = Callable[..., ControllerProcess]
OTHER = document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}]})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


@pytest.fixture
def start(server: ApiServer, kube: Any, store: Store, tmp_path: Path) -> Iterator[Start]:
    """Starts controllers; whatever still runs at the end is ended."""
    started: list[ControllerProcess] = []

    def begin(identity: str = "one", **options: Any) -> ControllerProcess:
        started.append(ControllerProcess(server, store.url, tmp_path, identity, **options).start())
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.fixture
def working(store: Store, tmp_path: Path, kube: Any) -> Iterator[None]:
    """A worker of the store, and KubeRay's stand-in."""
    stop = CancelHandle()
    worker = Worker(store, WorkerSettings(("simulated",), None, tmp_path / "out"), stop)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    with KubeRayStandIn(kube):
        yield
    stop.cancel(Cause.SHUTDOWN)
    thread.join(30)


def until(kube: Any, wanted: str, name: str = "llama", most_s: float = 60) -> Any:
    """The LayoutRequest, once it is in that phase."""

    def look() -> Any:
        found = kube.get(LAYOUT_REQUEST, NAMESPACE, name)
        assert phase(found) == wanted, found and found.get("status")
        return found

    return wait_for(look, most_s)


def gone(kube: Any, name: str = "llama") -> bool:
    return kube.get(LAYOUT_REQUEST, NAMESPACE, name) is None


def test_from_kubectl_apply_to_a_rayservice_and_back(kube: Any, start: Start, working: None) -> None:
    controller = start()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    found = until(kube, "RolledOut")
    service = kube.get(RAY_SERVICE, NAMESPACE, "llama")
    assert service["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
    managers = {one["manager"]: one["operation"] for one in service["metadata"]["managedFields"]}
    assert managers["parlay"] == "Apply"
    assert controller.answer("/readyz") == controller.answer("/healthz") == "ok\n"
    told = {one["reason"] for one in kube.list(EVENT, NAMESPACE)[0]}
    assert {"Winner", "Serving"} <= told
    kube.delete(LAYOUT_REQUEST, NAMESPACE, "llama")
    wait_for(lambda: gone(kube))
    wait_for(lambda: kube.get(RAY_SERVICE, NAMESPACE, "llama") is None)  # the garbage collector's work
    wait_for(lambda: kube.get(CONFIG_MAP, NAMESPACE, "llama-rayservice") is None)
    refused = [call for call, _ in controller.calls().items() if call[2] in ("403", "422")]
    assert refused == []


def test_another_slo_another_round(kube: Any, start: Start, working: None, store: Store) -> None:
    start()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request(deploy="manual"))
    until(kube, "Decided")
    kube.edit(LAYOUT_REQUEST, NAMESPACE, "llama", {"spec": {"request": {"slo": IMPOSSIBLE}}})
    assert until(kube, "Infeasible")["status"]["observedGeneration"] == 2
    kube.edit(LAYOUT_REQUEST, NAMESPACE, "llama", {"spec": {"request": {"slo": document()["slo"]}, "deploy": "auto"}})
    until(kube, "RolledOut")
    assert len(store.study_names()) == 2


def test_what_another_manager_took_is_held_and_said(kube: Any, start: Start, working: None) -> None:
    start()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    until(kube, "RolledOut")
    kube.edit(RAY_SERVICE, NAMESPACE, "llama", {"spec": {"serveConfigV2": "mine"}}, "somebody")
    found = until(kube, "Held")
    assert condition(found, "RolledOut") == ("False", "FieldConflict")
    words = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "RolledOut")
    assert "somebody" in words
    assert ".spec.serveConfigV2" in words
    kube.edit(LAYOUT_REQUEST, NAMESPACE, "llama", {"spec": {"request": OTHER}})
    time.sleep(3)
    assert kube.get(RAY_SERVICE, NAMESPACE, "llama")["spec"]["serveConfigV2"] == "mine"
    kube.delete(RAY_SERVICE, NAMESPACE, "llama")
    until(kube, "RolledOut")


def test_a_server_that_goes_away_and_comes_back(
    kube: Any, start: Start, working: None, server: ApiServer, store: Store
) -> None:
    controller = start()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    wait_for(lambda: store.study_names())
    server.restart(pause_s=2.0)
    until(kube, "RolledOut", most_s=120)
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request("another", simulatedSeed=1))
    until(kube, "RolledOut", "another")
    assert len(store.study_names()) == 2
    assert controller.process is not None
    assert controller.process.poll() is None


def test_deleted_while_nobody_looks_it_is_torn_down_later(kube: Any, start: Start, store: Store) -> None:
    first = start()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    until(kube, "Queued")
    first.kill()
    kube.delete(LAYOUT_REQUEST, NAMESPACE, "llama")
    time.sleep(0.5)
    assert not gone(kube)
    first.start()
    wait_for(lambda: gone(kube), 60)
    assert [store.listing.state(name) for name in store.study_names()] == [StudyState.CANCELLED]


def test_of_two_one_works_and_the_other_takes_over(kube: Any, start: Start, working: None, store: Store) -> None:
    both = [start("one"), start("two")]
    wait_for(lambda: kube.get(LEASE, NAMESPACE, ACCOUNT))
    wait_for(lambda: all(one.answer("/readyz") == "ok\n" for one in both))
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    until(kube, "RolledOut")
    leads = kube.get(LEASE, NAMESPACE, ACCOUNT)["spec"]["holderIdentity"]
    leader, other = both if leads == "one" else both[::-1]
    assert not [call for call in other.calls() if call[0] in ("apply", "patch") and call[1] != "leases"]
    leader.kill()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request("another", simulatedSeed=1))
    until(kube, "RolledOut", "another")
    assert other.stop() == 0
    spec = kube.get(LEASE, NAMESPACE, ACCOUNT)["spec"]
    assert spec["holderIdentity"] in ("", None) or "holderIdentity" not in spec
    assert spec["leaseTransitions"] >= 1
    assert len(store.study_names()) == 2


def test_killed_at_random_instants_it_comes_to_the_same(kube: Any, start: Start, working: None, store: Store) -> None:
    chance, controller = random.Random(7), start()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    for number in range(4):
        time.sleep(chance.uniform(0.5, 3.0))
        controller.kill()
        if number == 1:
            kube.edit(LAYOUT_REQUEST, NAMESPACE, "llama", {"spec": {"request": OTHER}})
        controller.start()
    found = until(kube, "RolledOut", most_s=120)
    assert found["status"]["observedGeneration"] == 2
    assert len(kube.list(RAY_SERVICE, NAMESPACE)[0]) == 1
    states = [store.listing.state(name) for name in store.study_names()]
    assert states.count(StudyState.DECIDED) >= 1
    assert StudyState.RUNNING not in states
    assert StudyState.QUEUED not in states


def test_a_raycluster_for_the_study_comes_and_goes(
    kube: Any, start: Start, working: None, store: Store, tmp_path: Path
) -> None:
    """Its own worker alone runs the study; none is left, also where the controller is killed on the way."""
    controller = start()
    chance, alone = random.Random(3), {"trials": CREATE, "launcher": None}
    with OperatorStandIn(kube, store, tmp_path):
        kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request(**alone))
        made = wait_for(lambda: kube.list(RAY_CLUSTER, NAMESPACE)[0])
        for _ in range(2):
            time.sleep(chance.uniform(0.5, 2.0))
            controller.kill()
            controller.start()
        found = until(kube, "RolledOut", most_s=120)
        assert made[0]["metadata"]["annotations"]["parlay.dev/study"] == found["status"]["study"]
        managers = {one["manager"]: one["operation"] for one in made[0]["metadata"]["managedFields"]}
        assert managers["parlay"] == "Apply"
        wait_for(lambda: kube.list(RAY_CLUSTER, NAMESPACE)[0] == [])
        told = {one["reason"] for one in kube.list(EVENT, NAMESPACE)[0]}
        assert "RayClusterStarting" in told


def test_one_controller_for_all_namespaces(kube: Any, start: Start, working: None) -> None:
    root = "/apis/rbac.authorization.k8s.io/v1"
    documents = [one for one in rendered("controller.namespaces=all") if one["kind"].startswith("ClusterRole")]
    for one in documents:
        kube.post(f"{root}/{one['kind'].lower()}s", one)
    try:
        controller = start(everywhere=True)
        kube.create(LAYOUT_REQUEST, "default", {**layout_request(), "metadata": {"name": "llama"}})
        kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
        until(kube, "RolledOut")
        wait_for(lambda: phase(kube.get(LAYOUT_REQUEST, "default", "llama")) in ("RolledOut", "RollingOut"))
        assert kube.get(RAY_SERVICE, "default", "llama") is not None
        assert not [call for call in controller.calls() if call[2] == "403"]
        for namespace in ("default", NAMESPACE):
            kube.delete(LAYOUT_REQUEST, namespace, "llama")
        wait_for(lambda: kube.list(LAYOUT_REQUEST, "")[0] == [])
    finally:
        for one in documents:
            kube.ask("DELETE", f"{root}/{one['kind'].lower()}s/{one['metadata']['name']}")


def test_it_uses_each_right_that_it_has(kube: Any, start: Start, working: None) -> None:
    """Beside the contract of its Role: nothing that it is allowed to do is left unused."""
    controller = start()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    until(kube, "RolledOut")
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request("apart", trials=CREATE, launcher=None))
    wait_for(lambda: kube.list(RAY_CLUSTER, NAMESPACE)[0])
    kube.delete(LAYOUT_REQUEST, NAMESPACE, "apart")
    rights = {
        ("list", "layoutrequests"), ("watch", "layoutrequests"), ("patch", "layoutrequests"),
        ("update", "layoutrequests"), ("list", "rayservices"), ("watch", "rayservices"), ("apply", "rayservices"),
        ("list", "rayclusters"), ("watch", "rayclusters"), ("apply", "rayclusters"), ("delete", "rayclusters"),
        ("get", "configmaps"), ("apply", "configmaps"), ("create", "events"), ("get", "leases"), ("create", "leases"),
        ("update", "leases"),
    }  # fmt: skip
    wait_for(lambda: rights <= {(verb, kind) for verb, kind, _ in controller.calls()})
    assert {(verb, kind) for verb, kind, _ in controller.calls()} == rights
