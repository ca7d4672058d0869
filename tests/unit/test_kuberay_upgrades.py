"""One RayService that KubeRay moves over: whole rollouts, step by step, with a stand-in for KubeRay's operator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.rollout.kuberay.courses import percent_of
from deploy.rollout.kuberay.placed import manifest
from deploy.rollout.kuberay.upgrades import Strategy, Upgrades, strategy
from deploy.rollout.kuberay.upgrading import base
from tests.fakes import make_request
from tests.kube_fake import FakeKube
from tests.kube_sites import NAMESPACE, PLACED, a_node, a_served
from tests.kuberay_operator import Operator
from tests.rollouts import a_rollout
from tuner.app.controller.kube import CONFIG_MAP, RAY_SERVICE
from tuner.app.controller.kuberay_upgrades import KubeRayUpgradeSite
from tuner.errors import BadInput, ParlayError
from tuner.retune.moves import Answer, CanaryAnswer, Facts, Route, Start, Stop, Wait, Warm, Write
from tuner.retune.next_step import next_step
from tuner.retune.policy import CanaryPolicy
from tuner.retune.rollout import ENDS, Step, Way
from tuner.retune.site import Readiness

pytestmark = pytest.mark.slow  # whole rollouts
GATEWAY = Upgrades("istio", "http://gateway.example")
REQUEST = make_request()
LIVES = {name: a_served(name, layout, REQUEST) for name, layout in {"old": "tp=2", "new": "tp=4"}.items()}


class Town:
    """A Site, the stand-in, and what is done by whom in which order."""

    def __init__(self, upgrades=GATEWAY, share=0.1, **operator):
        self.share = share
        self.kube, self.asked, self.upgrades = FakeKube(), [], upgrades
        self.operator = Operator(self.kube, "llama", **operator)
        self.nodes = lambda: None
        self.site, self.shares = self.again(), []

    def again(self):
        return KubeRayUpgradeSite(
            self.kube, PLACED, self._answers, self.upgrades, CanaryPolicy(share=self.share), lambda: self.nodes(),
            clock=lambda: self.operator.now_s,
        )  # fmt: skip

    def _answers(self, url, name):
        self.asked.append((url, name))
        return True

    def service(self):
        return self.kube.get(RAY_SERVICE, NAMESPACE, "llama")

    def options(self):
        found = self.service()["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
        return found["maxSurgePercent"], found["stepSizePercent"], found["intervalSeconds"]

    def serving(self, name="old"):
        self.site.start(LIVES[name], REQUEST)
        self.operator.run(70)
        assert self.site.see().shares == {name: 1.0}
        return self

    def readiness(self, name):
        found = self.site.see().deployments.get(name)
        return Readiness.ABSENT if found is None else found.readiness

    def rollout(self, canary=Answer.PROMOTE, way=Way.BESIDE, until=ENDS, patient_s=1500.0):
        """Run it with a new Site for every single move, as if each were the last of a watcher."""
        rollout, warmed, began_s = a_rollout(way), False, self.operator.now_s
        while rollout.step not in until and self.operator.now_s - began_s < patient_s:
            site = self.again()
            seen = site.see()
            self.shares.append((rollout.step, dict(seen.shares)))
            facts = Facts(
                seen,
                self.operator.now_s - began_s,
                CanaryAnswer(canary, "said"),
                warmed,
                policy=CanaryPolicy(share=self.share),
            )
            move = next_step(rollout, facts)
            match move:
                case Write(rollout=after):
                    rollout = after
                case Start(name=name):
                    site.start(LIVES[name], REQUEST)
                case Warm(name=name):
                    warmed = site.warm(name)
                case Route(shares=shares):
                    site.route(shares)
                case Stop(name=name):
                    site.stop(name)
                case Wait():
                    self.operator.run(10)
            self.operator.run(2)
        return rollout


def test_the_first_deployment_is_made_and_gets_all_traffic():
    town = Town().serving()
    assert town.readiness("old") is Readiness.READY
    assert town.site.url == "http://gateway.example"
    assert town.site.see().foreign is None


def test_a_canary_that_does_well_is_promoted():
    town = Town().serving()
    rollout = town.rollout()
    assert rollout.step is Step.DONE
    assert town.site.see().shares == {"new": 1.0}
    assert (town.readiness("old"), town.readiness("new")) == (Readiness.ABSENT, Readiness.READY)
    canary = [shares for step, shares in town.shares if step is Step.CANARY]
    assert {"old": 0.9, "new": 0.1} in canary
    assert max(shares.get("new", 0.0) for shares in canary) == pytest.approx(0.1)
    assert all(shares for _, shares in town.shares)  # there was never nothing that serves
    assert town.operator.made == 2


@pytest.mark.parametrize(("share", "percent"), [(0.01, 1), (0.014, 1), (0.125, 12)])
def test_a_canary_of_parts_of_a_percent_has_some_traffic(share, percent):
    town = Town(share=share).serving()
    rollout = town.rollout(Answer.HOLD, patient_s=400)
    assert (rollout.step, rollout.share) == (Step.CANARY, share)
    assert town.operator.pending.traffic == percent
    routed = town.site.see().shares
    assert routed == {"old": 1 - percent / 100, "new": percent / 100}
    facts = Facts(town.site.see(), 0.0, CanaryAnswer(Answer.PROMOTE, "said"), True)
    assert not isinstance(next_step(rollout, facts), Route)  # that is the share that was asked for


@pytest.mark.parametrize(("share", "percent"), [(0.0, 0), (1e-6, 1), (0.5, 50), (0.999, 99), (1.0, 100)])
def test_a_share_in_whole_percent(share, percent):
    assert percent_of(share) == percent


def test_no_traffic_before_the_canary():
    town = Town().serving()
    rollout = town.rollout(until={*ENDS, Step.WARMING})
    assert rollout.step is Step.WARMING
    town.operator.run(900)  # a watcher that is away does no harm
    assert town.site.see().shares == {"old": 1.0}
    assert town.site.warm("new")
    assert town.asked[-1] == ("http://llama-c2-serve-svc.serving.svc:8000", "new")
    assert town.options() == (10, 0, 1)


def test_a_share_is_held_while_nobody_decides():
    town = Town().serving()
    rollout = town.rollout(Answer.HOLD, patient_s=400)
    assert rollout.step is Step.CANARY
    assert town.options()[1] == 0
    town.operator.run(900)
    assert town.site.see().shares == {"old": 0.9, "new": 0.1}


def test_a_watcher_that_dies_behind_its_order_leaves_kuberay_little():
    """The next step comes only after as long as the new cluster had been there."""
    town = Town().serving()
    town.rollout(Answer.HOLD, until={*ENDS, Step.CANARY})
    there_s = town.operator.now_s - town.operator.pending.moved_s
    town.site.route({"old": 0.9, "new": 0.1})
    town.operator.run(there_s - 10)
    assert town.operator.pending.traffic == 10
    assert town.site.see().shares == {"old": 0.9, "new": 0.1}  # and a look holds it
    town.operator.run(900)
    assert town.operator.pending.traffic == 10


@pytest.mark.parametrize("rolls_back", [True, False], ids=["1.7", "1.5"])
def test_a_canary_that_does_badly_goes_back(rolls_back):
    town = Town(rolls_back=rolls_back).serving()
    rollout = town.rollout(Answer.ROLL_BACK)
    assert rollout.step is Step.ROLLED_BACK
    assert max(shares.get("new", 0.0) for _, shares in town.shares) == pytest.approx(0.1)
    town.operator.run(600)
    assert town.site.see().shares == {"old": 1.0}
    assert town.readiness("new") is Readiness.ABSENT
    assert all(shares for _, shares in town.shares)
    assert town.operator.made == (2 if rolls_back else 3)


@pytest.mark.parametrize("rolls_back", [True, False], ids=["1.7", "1.5"])
def test_one_that_does_not_come_up_never_gets_traffic(rolls_back):
    town = Town(rolls_back=rolls_back).serving()
    town.operator.broken.add("new")
    rollout = town.rollout()
    assert rollout.step is Step.ROLLED_BACK
    assert "did not come up" in rollout.outcome
    assert all("new" not in shares for _, shares in town.shares)


def test_what_is_gone_back_from_may_be_tried_again():
    town = Town().serving()
    assert town.rollout(Answer.ROLL_BACK).step is Step.ROLLED_BACK
    assert town.rollout(Answer.PROMOTE).step is Step.DONE
    assert town.site.see().shares == {"new": 1.0}


# Without incremental upgrades


def test_without_incremental_upgrades_there_is_no_room_for_a_canary():
    town = Town(Upgrades()).serving()
    why = town.site.no_room_for(LIVES["new"], REQUEST)
    assert "no canary" in why
    with pytest.raises(ParlayError, match="no traffic can go to new"):
        town.site.route({"old": 0.9, "new": 0.1})
    assert town.site.url == "http://llama-serve-svc.serving.svc:8000"


def test_in_place_the_old_one_ends_first_and_the_new_one_serves():
    town = Town(Upgrades()).serving()
    rollout = town.rollout(way=Way.IN_PLACE)
    assert rollout.step is Step.DONE
    assert town.site.see().shares == {"new": 1.0}
    assert not town.service()["spec"].get("suspend")


def test_in_place_what_does_not_come_up_is_taken_back_for_the_old_one():
    town = Town(Upgrades()).serving()
    town.operator.broken.add("new")
    assert town.rollout(way=Way.IN_PLACE).step is Step.ROLLED_BACK
    assert town.site.see().shares == {"old": 1.0}


def test_a_definition_without_the_options_is_told():
    """The API server leaves out what it does not know."""
    town = Town()
    applied = town.kube.apply

    def pruned(kind, namespace, name, document):
        if kind is RAY_SERVICE:
            document = {**document, "spec": {**document["spec"], "upgradeStrategy": {"type": "x"}}}
        return applied(kind, namespace, name, document)

    town.kube.apply = pruned
    with pytest.raises(ParlayError, match="no incremental upgrades"):
        town.site.start(LIVES["old"], REQUEST)


# What others do


def test_what_was_changed_by_hand_is_told_and_left():
    town = Town().serving()
    town.kube.edit(RAY_SERVICE, NAMESPACE, "llama", {"spec": {"serveConfigV2": "mine"}}, "somebody")
    assert ".spec.serveConfigV2" in town.site.see().foreign
    assert town.rollout(patient_s=60).step is Step.PLANNED or town.service()["spec"]["serveConfigV2"] == "mine"
    with pytest.raises(ParlayError, match="somebody"):
        town.site.start(LIVES["new"], REQUEST)


def test_somebody_elses_rayservice_stays_as_it_is():
    town = Town()
    theirs = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "llama"}, "spec": {"a": 1}}
    town.kube.create(RAY_SERVICE, NAMESPACE, theirs)
    assert "not made for" in town.site.see().foreign
    with pytest.raises(ParlayError, match="not made for"):
        town.site.start(LIVES["old"], REQUEST)
    town.site.stop("old")
    assert town.service()["spec"] == {"a": 1}


def test_a_document_that_is_kept_no_more_is_told():
    town = Town().serving()
    town.kube.delete(CONFIG_MAP, NAMESPACE, "llama-deployments")
    assert "not kept" in town.site.see().foreign


def test_devices_are_asked_for_as_capacity_moves():
    town = Town(replace(GATEWAY, surge_percent=50)).serving()
    town.nodes = lambda: [a_node("n1", 4)]
    assert "needs 4 GPUs, and 2 of 4" in town.site.no_room_for(LIVES["new"], REQUEST)
    wide = a_served("new", "tp=1,dp=4", REQUEST)
    assert town.site.no_room_for(wide, REQUEST) is None


# What follows of a document


def test_what_kuberay_does_with_another_document():
    old, new = (base(PLACED, live, REQUEST, Upgrades()) for live in LIVES.values())
    assert strategy(None, new, Upgrades()) is Strategy.FIRST
    assert strategy(old, new, Upgrades()) is Strategy.NEW_CLUSTER
    assert strategy(old, new, GATEWAY) is Strategy.INCREMENTAL
    again = manifest(PLACED, a_served("again", "tp=2", REQUEST), REQUEST, "llama")
    assert strategy(old, again, Upgrades()) is Strategy.SERVE_CONFIG
    more = manifest(PLACED, a_served("more", "tp=2,dp=2", REQUEST), REQUEST, "llama")
    assert strategy(old, more, Upgrades()) is Strategy.SERVE_CONFIG  # only more pods of the same kind


def test_the_same_pods_are_others_under_an_incremental_upgrade():
    old = base(PLACED, LIVES["old"], REQUEST, GATEWAY)
    again = base(PLACED, a_served("again", "tp=2", REQUEST), REQUEST, GATEWAY)
    assert strategy(old, again, GATEWAY) is Strategy.INCREMENTAL


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"gateway_class": "istio"}, "--gateway-url"),
        ({"surge_percent": 0}, "--surge-percent"),
        ({"interval_s": 0}, "--upgrade-interval"),
    ],
)
def test_upgrades_that_cannot_be(given, named):
    with pytest.raises(BadInput, match=named):
        Upgrades(**given)
