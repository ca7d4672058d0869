"""A LayoutRequest that asks to be watched: from its decision to what serves, and to what follows of another SLO."""

from __future__ import annotations

import pytest

from deploy.controller.names import Key
from deploy.controller.resource import Status
from deploy.rollout.kuberay.words import DEPLOYMENT
from tests.controller_app import World
from tests.fakes import copy_of_empty_store, document
from tests.kube_sites import Serving, a_node
from tests.layout_requests import NAMESPACE, SMALL, condition
from tests.service_app import work
from tuner.app.answers.watch import StandingAnswer
from tuner.app.controller.kube import HTTP_ROUTE, LAYOUT_REQUEST, NODE, POD, RAY_SERVICE, SERVICE
from tuner.app.controller.kuberay_place import KubeRayPlace, KubeSite
from tuner.app.controller.watching import KubeWatch
from tuner.retune.live import LiveState
from tuner.retune.policy import CanaryPolicy
from tuner.study.live import live_name
from tuner.study.store import Store

pytestmark = pytest.mark.slow  # studies of a simulated cluster
GATEWAY = {"name": "public", "url": "http://models.example", "host": "models.example"}
RETUNE = {"policy": {"consent": "auto"}, "gateway": GATEWAY}


class WatchedWorld(World):
    """With a watcher, which like the controller knows nothing of looks before."""

    def watch(self, leading=True):
        """One look of a watcher that has just been started."""
        watch = KubeWatch(self.kube, self.store, self.platforms.get, lambda _: None, lambda: leading)
        watch.loop.once()
        watch.loop.close()
        return watch

    def settle(self, key):
        """Until nothing changes any more."""
        before = None
        while before != (before := self.kube.list(RAY_SERVICE, NAMESPACE)[1]):
            for _ in range(2):
                self.look_again(key)
                work(self.store, self.folder)
                self.watch()
                Serving(self.kube).look()
        return self.look_again(key)

    def deployments(self):
        return {one["metadata"]["annotations"].get(DEPLOYMENT) for one in self.kube.list(RAY_SERVICE, NAMESPACE)[0]}


@pytest.fixture
def world(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    made = WatchedWorld(store, tmp_path)
    made.kube.create(NODE, "", a_node("n1", 8))
    yield made
    store.close()


def test_the_winner_is_deployed_by_the_watcher_and_watched(world):
    key = world.ask(retune=RETUNE)
    assert world.settle(key) == "RolledOut"
    found = world.request(key)
    (live,) = world.store.live.of(found["status"]["study"])
    assert (live.state, live.site) == (LiveState.SERVING, "kuberay")
    assert world.deployments() == {live.name}  # and none by the controller itself
    assert condition(found, "RolledOut") == ("True", "Serving")
    assert condition(found, "Watching")[0] in ("True", "Unknown")
    assert condition(found, "Held")[0] in ("False", "Unknown")
    assert Status.model_validate(found["status"]).phase == "RolledOut"
    (route,) = world.kube.list(HTTP_ROUTE, NAMESPACE)[0]
    assert route["metadata"]["name"] == "llama"
    assert route["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
    assert [one["name"] for one in route["spec"]["rules"][0]["backendRefs"]] == [f"{live.name}-serve-svc"]


def test_one_that_is_not_asked_for_is_left_to_the_controller(world):
    key = world.ask()
    world.look_again(key)
    work(world.store, world.folder)
    world.look_again(key)
    assert world.store.watched.names() == ()
    assert world.service()["metadata"]["name"] == "llama"
    assert condition(world.request(key), "Watching") == ("False", "NotAsked")
    assert condition(world.request(key), "Held") == ("False", "NotWatched")


def test_another_slo_moves_all_traffic_to_another_study_and_ends_what_was_before(world):
    key = world.ask(retune=RETUNE)
    world.settle(key)
    first = world.request(key)["status"]["study"]
    world.edit(key, {"request": document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}]})})
    assert world.settle(key) == "RolledOut"
    second = world.request(key)["status"]["study"]
    assert second != first
    assert world.store.watched.names() == (second,)
    (live,) = world.store.live.of(second)
    assert world.deployments() == {live.name}
    assert [one.state for one in world.store.live.of(first)] == [LiveState.ENDED]


def test_one_that_does_not_come_up_says_why_and_is_tried_by_the_next_controller(world):
    key = world.ask(retune=RETUNE)
    for _ in range(2):
        world.look_again(key)
        work(world.store, world.folder)
    kuberay = Serving(world.kube)
    kuberay.broken |= {live_name(world.request(key)["status"]["study"], number) for number in (1, 2)}
    for _ in range(6):
        world.watch()
        kuberay.look()
    world.look_again(key)
    found = world.request(key)
    assert condition(found, "RolledOut") == ("False", "RollingOut")
    words = next(one["message"] for one in found["status"]["conditions"] if one["type"] == "RolledOut")
    assert "did not come up" in words
    assert "no such model" in words
    assert len(world.store.live.of(found["status"]["study"])) >= 2


def test_another_policy_is_the_watchers_from_then_on(world):
    key = world.ask(retune=RETUNE)
    world.settle(key)
    changed = {"policy": {"consent": "advise", "cool_down_hours": 48}, "gateway": GATEWAY}
    world.edit(key, {"retune": changed})
    world.settle(key)
    (watched,) = world.store.watched.all()
    assert (watched.policy.consent, watched.policy.cool_down_hours) == ("advise", 48)


def test_another_place_is_told_and_left(world):
    key = world.ask(retune=RETUNE)
    world.settle(key)
    world.edit(key, {"retune": {"policy": {"consent": "approve"}, "gateway": {**GATEWAY, "name": "other"}}})
    world.settle(key)
    assert condition(world.request(key), "Watching") == ("False", "NotWatched")


def test_what_is_deleted_is_watched_no_more_and_goes(world):
    key = world.ask(retune=RETUNE)
    world.settle(key)
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, "llama")
    world.look_again(key)
    assert world.request(key) is None
    assert world.store.watched.names() == ()
    assert world.deployments() == set()
    assert world.kube.list(HTTP_ROUTE, NAMESPACE)[0] == []


def test_what_somebody_changed_by_hand_is_held_and_said(world):
    key = world.ask(retune=RETUNE)
    world.settle(key)
    (name,) = world.deployments()
    world.kube.edit(RAY_SERVICE, NAMESPACE, name, {"spec": {"serveConfigV2": "mine"}}, "somebody")
    world.settle(key)
    assert world.kube.get(RAY_SERVICE, NAMESPACE, name)["spec"]["serveConfigV2"] == "mine"
    place = KubeRayPlace(
        world.kube, KubeSite.model_validate(dict(world.store.watched.all()[0].site)), world.platforms.popitem()[1],
        CanaryPolicy(),
    )  # fmt: skip
    assert ".spec.serveConfigV2" in place.site.see().foreign


def test_who_does_not_lead_does_not_watch(world):
    key = world.ask(retune=RETUNE)
    world.look_again(key)
    work(world.store, world.folder)
    world.look_again(key)
    world.watch(leading=False)
    assert world.deployments() == set()
    assert condition(world.request(key), "Watching") == ("Unknown", "NobodyWatches")


def counted(place, monkeypatch):
    """How often its site is looked at from now on."""
    looks, see = [], place.site.see
    monkeypatch.setattr(place.site, "see", lambda: looks.append(1) or see())
    return looks


def test_nothing_is_looked_at_twice_once_nothing_earlier_is_left(world, monkeypatch):
    key = world.ask(retune=RETUNE)
    world.settle(key)
    (study,) = world.store.watched.names()
    watch = KubeWatch(world.kube, world.store, world.platforms.get, lambda _: None)
    watch.loop.once()
    looks = counted(watch.places[study], monkeypatch)
    watch._tell(study, StandingAnswer(
        at=0.0, state="steady", text="", notices=[], judgement=None, problem=None, acted=[]
    ))  # fmt: skip
    assert looks == []
    watch.loop.close()


def test_what_is_watched_no_more_is_forgotten(world):
    key = world.ask(retune=RETUNE)
    world.settle(key)
    (first,) = world.store.watched.names()
    assert set(world.platforms) == {first}
    watch = KubeWatch(world.kube, world.store, world.platforms.get, lambda _: None)
    watch.loop.once()
    assert set(watch.places) == set(watch._told) == {first}
    world.edit(key, {"request": document({**SMALL, "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}]})})
    world.look_again(key)
    assert first in world.platforms  # until the next one's is watched
    watch.loop.close()
    world.settle(key)
    (second,) = world.store.watched.names()
    assert set(world.platforms) == {second}
    watch.loop.once()
    assert set(watch.places) == set(watch._told) == {second}
    watch.loop.close()
    world.kube.delete(LAYOUT_REQUEST, NAMESPACE, key.name)
    world.look_again(key)
    world.look_again(key)
    watch.loop.once()
    assert (world.platforms, watch.places, watch._told) == ({}, {}, {})


def test_pods_tell_where_the_metrics_are(world):
    key = world.ask(retune={"policy": {"consent": "auto"}})
    world.settle(key)
    (name,) = world.deployments()
    labels = {"ray.io/cluster": f"{name}-x7k2p"}
    for number, more in enumerate([labels, labels, {"ray.io/cluster": "another"}, {}]):
        meta = {"name": f"p{number}", "labels": more}
        world.kube.create(POD, NAMESPACE, {"metadata": meta, "status": {"podIP": ("10.0.0.0", "fd00::1")[number % 2]}})
    (watched,) = world.store.watched.all()
    place = KubeRayPlace(
        world.kube, KubeSite.model_validate(dict(watched.site)), world.platforms[watched.study], CanaryPolicy()
    )
    told = place.told_at([name])
    assert told.direct == {name: ("http://10.0.0.0:8080/metrics", "http://[fd00::1]:8080/metrics")}
    assert place.told_at(["other"]).direct == {}
    seen = place.fingerprint()
    assert [one.gpu for one in seen.nodes] == ["h100_sxm"]
    assert seen.versions == {"ray": "2.60.0"}
    assert world.kube.get(SERVICE, NAMESPACE, "llama")["spec"]["selector"]["parlay.dev/serving"] == name
    assert world.request(Key(NAMESPACE, "llama")) is not None
