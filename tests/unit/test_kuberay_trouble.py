"""What a Site on KubeRay does where the API server refuses, is busy, or is away; and behind a Service."""

from __future__ import annotations

from collections import Counter

import pytest

from deploy.rollout.kuberay.placed import object_of
from tests.kube_fake import FakeKube
from tests.kube_sites import NAMESPACE, PLACED, KubeBench, in_memory
from tests.site_contract import SiteContract, shares
from tuner.app.controller.kube import CONFIG_MAP, HTTP_ROUTE, RAY_SERVICE, SERVICE, KubeError
from tuner.app.controller.retried import AGAIN_S, Retried
from tuner.errors import ParlayError
from tuner.retune.site import Readiness


def failing(kube, verb, code, times):
    """That call fails so often, and works from then on."""
    works, left = getattr(kube, verb), [times]

    def call(*words):
        if left[0] > 0:
            left[0] -= 1
            raise KubeError(code, "Refused", f"code {code}")
        return works(*words)

    setattr(kube, verb, call)
    return left


@pytest.mark.parametrize("code", [0, 401, 408, 429, 500, 503])
@pytest.mark.parametrize("verb", ["list", "get", "apply", "remove"])
def test_what_was_busy_is_asked_again(verb, code):
    kube, waited = FakeKube(), []
    made = kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map())
    failing(kube, verb, code, len(AGAIN_S))
    asked = Retried(kube, waited.append)
    calls = {
        "list": lambda: asked.list(CONFIG_MAP, NAMESPACE),
        "get": lambda: asked.get(CONFIG_MAP, NAMESPACE, "one"),
        "apply": lambda: asked.apply(CONFIG_MAP, config_map()),
        "remove": lambda: asked.remove(CONFIG_MAP, made),
    }
    calls[verb]()
    assert waited == list(AGAIN_S)
    failing(kube, verb, code, len(AGAIN_S) + 1)
    with pytest.raises(KubeError):
        calls[verb]()


@pytest.mark.parametrize("code", [403, 409, 422])
def test_a_refusal_is_no_reason_to_ask_again(code):
    kube, waited = FakeKube(), []
    failing(kube, "apply", code, 1)
    with pytest.raises(KubeError):
        Retried(kube, waited.append).apply(CONFIG_MAP, config_map())
    assert waited == []


def test_what_was_removed_before_the_answer_broke_off_is_removed():
    kube = FakeKube()
    made = kube.apply(CONFIG_MAP, NAMESPACE, "one", config_map())
    works = kube.remove

    def breaks_off(*words):
        works(*words)
        kube.remove = works
        raise KubeError(0, "Broken", "the answer broke off")

    kube.remove = breaks_off
    Retried(kube, lambda _: None).remove(CONFIG_MAP, made)
    assert kube.get(CONFIG_MAP, NAMESPACE, "one") is None


def config_map():
    meta = {"name": "one", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "1"}}


def test_a_right_that_is_missing_is_told_with_what_it_is_for():
    bench = in_memory()
    failing(bench.kube, "apply", 403, 10)
    with pytest.raises(ParlayError, match="ConfigMap llama-deployments cannot be applied"):
        bench.site.start(bench.live("one"), bench.request)
    assert bench.site.see().deployments == {}


def test_a_kind_that_is_missing_is_told():
    bench = in_memory()
    bench.site.start(bench.live("one"), bench.request)
    bench.kube.unknown.add(HTTP_ROUTE)
    bench.kube.get = lambda *words: None if words[0] is HTTP_ROUTE else FakeKube.get(bench.kube, *words)  # as a client
    with pytest.raises(ParlayError, match="HTTPRoute llama cannot be applied"):
        bench.site.route({"one": 1.0})


def test_a_server_that_is_away_raises_and_changes_nothing(monkeypatch):
    monkeypatch.setattr("tuner.app.controller.retried.AGAIN_S", (0.0, 0.0))
    bench = in_memory()
    bench.site.start(bench.live("one"), bench.request)
    bench.kube.down = True
    for call in (bench.site.see, lambda: bench.site.stop("one"), lambda: bench.site.route({"one": 1.0})):
        with pytest.raises(ParlayError):
            call()
    bench.kube.down = False
    assert bench.site.see().deployments["one"].readiness is Readiness.STARTING


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(3))
def test_killed_behind_any_write_of_a_start_it_goes_on(writes):
    """The document is kept before it is applied; whoever comes next applies the one that was kept."""
    bench = in_memory()
    works, left = bench.kube.apply, [writes]

    def killed(*words):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return works(*words)

    bench.kube.apply = killed
    live = bench.live("one")
    try:
        bench.site.start(live, bench.request)
        bench.site.route({"one": 1.0})
    except KeyboardInterrupt:
        pass
    bench.kube.apply = works
    after = bench.again()
    assert after.see().foreign is None
    after.start(live, bench.request)
    after.route({"one": 1.0})
    seen = after.see()
    assert (shares(seen), seen.foreign, set(seen.deployments)) == ({"one": 1.0}, None, {"one"})
    assert len(bench.kube.list(RAY_SERVICE, NAMESPACE)[0]) == 1


def test_somebody_elses_objects_of_these_names_stay_as_they_are():
    bench = in_memory()
    theirs = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": object_of("one")}, "spec": {"a": 1}}
    bench.kube.create(RAY_SERVICE, NAMESPACE, theirs)
    with pytest.raises(ParlayError, match="one in serving was not made for"):
        bench.site.start(bench.live("one"), bench.request)
    bench.site.stop("one")
    assert bench.kube.get(RAY_SERVICE, NAMESPACE, "one")["spec"] == {"a": 1}
    route = {"apiVersion": "v1", "kind": "HTTPRoute", "metadata": {"name": "llama"}, "spec": {}}
    bench.kube.create(HTTP_ROUTE, NAMESPACE, route)
    assert "llama in serving was not made for" in bench.site.see().foreign
    assert bench.site.see().shares == {}
    with pytest.raises(ParlayError, match="not made for"):
        bench.site.route({})


def test_somebody_elses_config_map_is_not_written_into():
    """With an owner it would go with the LayoutRequest."""
    bench = in_memory()
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "llama-deployments"}, "data": {"a": "b"}}
    made = bench.kube.create(CONFIG_MAP, NAMESPACE, theirs)
    with pytest.raises(ParlayError, match="llama-deployments in serving was not made for"):
        bench.site.start(bench.live("one"), bench.request)
    assert bench.kube.get(CONFIG_MAP, NAMESPACE, "llama-deployments") == made
    assert bench.kube.list(RAY_SERVICE, NAMESPACE)[0] == []


def test_what_somebody_suspended_is_not_warm():
    bench = in_memory()
    bench.site.start(bench.live("one"), bench.request)
    bench.kube.edit(RAY_SERVICE, NAMESPACE, "one", {"spec": {"suspend": True}})
    assert bench.site.warm("one") is False


def test_no_traffic_goes_where_nothing_is():
    bench = in_memory()
    with pytest.raises(ParlayError, match="no traffic can go to one"):
        bench.site.route({"one": 1.0})


def test_one_that_is_started_again_is_the_one_that_was_kept():
    bench = in_memory()
    bench.site.start(bench.live("one"), bench.request)
    first = bench.kube.get(RAY_SERVICE, NAMESPACE, "one")["spec"]
    bench.site.stop("one")
    other = KubeBench(bench.kube, PLACED, bench.gateway)
    other.request = bench.request
    changed = bench.live("one")
    changed.launched.payload.config["args"] = {}  # another release writes it otherwise
    other.site.start(changed, bench.request)
    assert bench.kube.get(RAY_SERVICE, NAMESPACE, "one")["spec"] == first


class TestBehindAService(SiteContract):
    """Without a Gateway: all traffic or none, and no canary."""

    @pytest.fixture
    def bench(self):
        return in_memory(gateway=None)

    @pytest.mark.slow
    def test_a_share_is_refused_and_traffic_stays_where_it_is(self, bench):
        self.up(bench, "one", "two")
        self.routed(bench, {"one": 1.0})
        with pytest.raises(ParlayError, match="no canary"):
            bench.site.route({"one": 0.9, "two": 0.1})
        assert shares(bench.again().see()) == {"one": 1.0}

    def test_whether_there_is_room_is_told_beforehand(self, bench):
        assert bench.site.no_room_for(bench.live("one"), bench.request) is None
        self.up(bench, "one")
        assert "no canary" in bench.site.no_room_for(bench.live("two"), bench.request)

    @pytest.mark.slow
    def test_all_of_it_goes_to_one_and_then_to_another(self, bench):
        self.up(bench, "one", "two")
        for name in ("one", "two", "one"):
            self.routed(bench, {name: 1.0})
        self.routed(bench, {})
        assert bench.site.url == "http://llama.serving.svc:8000"
        assert Counter(verb for verb, kind in bench.kube.calls if kind == SERVICE.plural)["apply"] == 4
