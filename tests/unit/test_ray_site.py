"""Plain Ray Serve keeps the contract of a Site; Ray Serve itself is faked here, and HAProxy is real."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from deploy.rollout.application import config_of, measured, planned
from deploy.rollout.front_config import ANSWERED_BY
from deploy.rollout.ray_site import RaySite, named_after
from serve.launch.processes import free_port
from tests.fake_serve import FakeServe
from tests.fakes import make_request
from tests.rollouts import a_live
from tests.site_contract import AskedSiteContract, SiteBench
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput
from tuner.retune.site import Readiness
from tuner.trial.launched import NoEngine

pytestmark = pytest.mark.slow  # a real HAProxy each
REQUEST = make_request(
    {"cluster": {"gpu": "cpu", "gpus_per_node": 2}, "slo": [{"metric": "ttft", "percentile": 99, "ms": 500}]}
)


class Session:
    """In the place of a connection to Ray."""

    def __init__(self, *_):
        pass

    def connect(self):
        pass

    def start(self, cluster, watch):
        return "http://unused"

    def other_front(self, layout):
        return "the cluster has no HAProxy" if layout.front == "ray_haproxy" else None

    def close(self):
        pass


class FakedBench(SiteBench):
    def __init__(self, folder, serve):
        self.folder, self.serve, self.request = folder, serve, REQUEST
        self.site = self.again()

    def again(self):
        return RaySite("auto", self.folder, lambda name: name in ("one", "two", "three"))

    def live(self, name, *, broken=False):
        self.serve.broken |= {name} if broken else set()
        return replace(a_live(name), launched=planned(name, ParallelLayout.parse("tp=1"), REQUEST))

    def eventually(self, holds):
        for _ in range(50):
            if holds():
                return True
            time.sleep(0.02)
        return False

    def kill(self, name):
        self.serve.become(name, "UNHEALTHY")

    def meddle(self, name):
        self.serve.applications[name]["source"] = "declarative"

    def ask(self, path):
        connection = http.client.HTTPConnection(urlsplit(self.site.url).netloc, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer

    def hold(self, name):
        waiting = threading.Thread(target=self.ask, args=("/held",), daemon=True)
        waiting.start()

        def release():
            self.serve.held.set()
            waiting.join()

        return release

    def asked(self, requests):
        answers = [self.ask("/v1/models") for _ in range(requests)]
        assert {answer.status for answer in answers} == {200}
        return Counter(answer.headers[ANSWERED_BY].strip("/") for answer in answers)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.rollout.ray_site.RaySession", Session)
    with FakeServe() as serve:
        serve.install(monkeypatch)
        threading.Thread(target=serve.serve_forever, args=(0.01,), daemon=True).start()
        yield FakedBench(tmp_path, serve)
        serve.held.set()
        serve.shutdown()
        if (pid := tmp_path / "front" / "pid").exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)


class TestRaySite(AskedSiteContract):
    """The shared cases, and what only Ray Serve has."""

    def test_applications_of_others_are_not_seen(self, bench):
        bench.serve.deploy({"name": "parlay-s-1", "route_prefix": "/parlay-s-1"}, {})
        assert bench.site.see().deployments == {}

    def test_a_replica_that_runs_serves_while_another_is_replaced(self, bench):
        self.up(bench, "one")
        deployment = bench.serve.applications["one"]["deployments"]["LLMServer:tiny"]
        deployment["replicas"].append(dict(deployment["replicas"][0], replica_id="one-1", state="STARTING"))
        bench.serve.applications["one"]["status"] = "UNHEALTHY"
        seen = bench.site.see().deployments["one"]
        assert seen.readiness is Readiness.READY
        assert seen.why.startswith("1 of 2 replicas run")

    def test_who_takes_over_knows_that_it_was_up(self, bench):
        self.up(bench, "one")
        deployment = bench.serve.applications["one"]["deployments"]["LLMServer:tiny"]
        deployment["replicas"].append(dict(deployment["replicas"][0], replica_id="one-1", state="STARTING"))
        for status in ("UNHEALTHY", "DEPLOYING"):
            bench.serve.applications["one"]["status"], bench.serve.looks["one"] = status, -10
            assert bench.again().see().deployments["one"].readiness is Readiness.READY

    def test_traffic_follows_a_proxy_that_moved(self, bench):
        self.up(bench, "one")
        bench.site._front.route({"one": 1.0}, f"127.0.0.1:{free_port()}")
        bench.site.see()
        assert bench.asked(3) == {"one": 3}

    def test_half_a_file_of_a_crash_ends_nobody(self, bench):
        self.up(bench, "one")
        (bench.folder / "applications.json").write_text('{"one": ')
        assert bench.again().see().deployments["one"].readiness is Readiness.READY

    def test_a_replica_that_dies_before_it_was_ready_is_a_failed_start(self, bench):
        bench.site.start(bench.live("one"), bench.request)
        bench.site.see()
        bench.serve.applications["one"]["deployments"]["LLMServer:tiny"]["replicas"] = []
        bench.serve.looks["one"] = -10
        assert bench.site.see().deployments["one"].readiness is Readiness.FAILED

    def test_one_that_was_ready_and_starts_again_does_not_serve(self, bench):
        self.up(bench, "one")
        bench.serve.become("one", "DEPLOYING")
        bench.serve.looks["one"] = -10
        assert bench.site.see().deployments["one"].readiness is Readiness.STARTING

    def test_who_takes_over_while_one_ends_ends_what_is_left_of_it(self, bench):
        self.up(bench, "one")
        left = subprocess.Popen(["sleep", "60"], start_new_session=True)
        try:
            bench.serve.applications["one"]["deployments"]["LLMServer:tiny"]["replicas"][0]["pid"] = left.pid
            bench.site.see()
            bench.site.stop("one")
            after = bench.again()  # the process that stopped it is killed
            del bench.serve.applications["one"]
            after.see()
            assert left.wait(5) == -signal.SIGTERM
            assert bench.again()._leaders.known == {}
        finally:
            left.kill()

    def test_another_route_prefix_was_somebody_else(self, bench):
        self.up(bench, "one")
        bench.serve.applications["one"]["route_prefix"] = "/elsewhere"
        assert bench.site.see().foreign == "somebody configured one otherwise on Ray Serve"


def test_what_is_deployed_is_what_was_measured_under_another_name():
    layout = ParallelLayout.parse("tp=1,dp=2")
    trial = planned("parlay-s-0", layout, REQUEST)
    pinned = dict(trial.payload.config, args={**trial.payload.config["args"]})
    found = measured(replace(trial, payload=type(trial.payload)(pinned)), "s-d1")
    assert found == planned("s-d1", layout, REQUEST)
    assert config_of(found, "s-d1") is found.payload.config
    with pytest.raises(BadInput, match="an application called s-d2"):
        config_of(found, "s-d2")
    with pytest.raises(BadInput, match="a trial of the launcher ray-serve"):
        measured(replace(trial, payload=NoEngine("a simulated engine")), "s-d1")


def test_applications_are_known_by_their_names():
    mine = named_after("chat-d1")
    assert mine("chat-d7")
    assert mine("chat-d12")
    assert not mine("chat-d1-d1")
    assert not mine("parlay-chat-0")


def test_a_layout_behind_another_front_than_the_clusters_is_not_started(bench):
    behind = replace(a_live("one"), launched=planned("one", ParallelLayout.parse("front=ray_haproxy"), REQUEST))
    with pytest.raises(BadInput, match="the cluster has no HAProxy"):
        bench.site.start(replace(behind, deployment=ParallelLayout.parse("front=ray_haproxy")), REQUEST)
    assert not bench.serve.applications
