"""Whatever people, workers, other managers and crashes do, in whatever order: once they stop, all is as it is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deploy.controller.asking import Order
from deploy.controller.names import Key
from deploy.controller.observed import OPEN, Refused, StudySeen, Verdict, WatchedSeen
from tests.controller_app import RUNS, Killed, KilledAt
from tests.fakes import document
from tests.kube_fake import FakeKube
from tests.layout_requests import NAMESPACE, SMALL, KubeRayStandIn, condition, layout_request
from tests.study_clusters import CREATE
from tests.study_clusters import TRIALS as MORE
from tuner.app.controller.kube import CONFIG_MAP, LAYOUT_REQUEST, RAY_CLUSTER, RAY_SERVICE
from tuner.app.controller.room import Room
from tuner.app.controller.steps import Reconciler, View
from tuner.ask.request_document import parse_request
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish

KEY = Key(NAMESPACE, "llama")
SLOS = [100, 200]
TRIALS = MORE.model_copy(update={"max_gpus": 8})  # one RayCluster at a time


class ScriptedStudies:
    """Studies without a store: a worker's progress is the test's."""

    def __init__(self) -> None:
        self.all: dict[str, StudySeen] = {}
        self.submitted: list[str] = []

    def of(self, prefix: str, owner: str, order: Order | None) -> tuple[StudySeen | None, tuple[StudySeen, ...]]:
        found = {name: one for name, one in self.all.items() if name.startswith(prefix)}
        mine = found.pop(order.asked.study, None) if order else None
        return mine, tuple(one for one in found.values() if one.state in OPEN or one.pinned)

    def watched(self, prefix: str) -> tuple[WatchedSeen, ...]:
        return ()  # none of these asks for that

    def submit(self, order: Order) -> StudySeen | Refused:
        self.submitted.append(order.asked.study)
        self.all[order.asked.study] = StudySeen(order.asked.study, StudyState.QUEUED, cluster=order.terms.cluster)
        return self.all[order.asked.study]

    def resume(self, study: StudySeen, _: str) -> StudySeen | Refused:
        if self.all[study.name].state in OPEN:
            return Refused("NotResumed", "it waits already")
        return self.set(study.name, StudyState.QUEUED)

    def cancel(self, study: StudySeen) -> StudySeen:
        now = self.all[study.name]
        if now.state is StudyState.RUNNING:
            self.all[study.name] = replace(now, wish=Wish.CANCEL)
        elif now.state in OPEN:
            self.set(study.name, StudyState.CANCELLED)
        return self.all[study.name]

    def end_orphan(self, study: StudySeen) -> StudySeen | Refused:
        return self.set(study.name, StudyState.CANCELLED)

    def keep(self, study: StudySeen) -> StudySeen:
        self.all[study.name] = replace(self.all[study.name], pinned=True)
        return self.all[study.name]

    def let(self, study: StudySeen) -> StudySeen:
        self.all[study.name] = replace(self.all[study.name], pinned=False)
        return self.all[study.name]

    def set(self, name: str, state: StudyState, verdict: Verdict | None = None) -> StudySeen:
        self.all[name] = replace(self.all[name], state=state, verdict=verdict, wish=None)
        return self.all[name]

    def progress(self, clusters: set[str]) -> None:
        """A worker's: what was told to end ends, what waits runs, what runs decides; where a study has a RayCluster of
        its own, its worker lives there."""
        for name, one in list(self.all.items()):
            if one.cluster is not None and one.cluster not in clusters:
                continue
            if one.ending:
                self.set(name, StudyState.CANCELLED)
            elif one.state is StudyState.RUNNING:
                self.set(name, StudyState.DECIDED, verdict_of(name))
            elif one.state is StudyState.QUEUED:
                self.set(name, StudyState.RUNNING)


def verdict_of(name: str) -> Verdict:
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {}, "spec": {"serveConfigV2": name}}
    return Verdict("tp=1", 1, None, "it is best", None, manifest)


class Anyhow(RuleBasedStateMachine):
    """``theirs``: somebody has taken a field of the RayService; ``cancelled``: somebody cancelled a study."""

    def __init__(self) -> None:
        super().__init__()
        self.kube, self.studies = FakeKube(), ScriptedStudies()
        self.theirs, self.cancelled = False, set[str]()

    @property
    def request(self) -> Any:
        return self.kube.get(LAYOUT_REQUEST, *_words(KEY))

    @property
    def clusters(self) -> set[str]:
        return {one["metadata"]["name"] for one in self.kube.list(RAY_CLUSTER, NAMESPACE)[0]}

    def look(self, kube: Any = None) -> None:
        view = View(
            lambda one: self.kube.get(LAYOUT_REQUEST, one.namespace, one.name),
            lambda one: self.kube.get(RAY_SERVICE, one.namespace, one.name),
            lambda namespace: self.kube.list(RAY_SERVICE, namespace)[0],
            lambda: True,
            lambda _: None,
            lambda namespace: self.kube.list(RAY_CLUSTER, namespace)[0],
            Room(TRIALS.max_gpus, lambda: self.kube.list(RAY_CLUSTER, NAMESPACE)[0]),
        )
        studies: Any = self.studies
        runs = replace(RUNS, trials=TRIALS)
        Reconciler(kube or self.kube, studies, view, parse_request, runs, lambda: True).reconcile(KEY)

    @precondition(lambda self: self.request is None)
    @rule(auto=st.booleans(), slo=st.sampled_from(SLOS), apart=st.booleans())
    def make(self, auto: bool, slo: int, apart: bool) -> None:
        self.theirs = False
        more: Any = {"launcher": None, "trials": CREATE} if apart else {}
        made = layout_request(changes={"slo.0.ms": slo}, deploy="auto" if auto else "manual", **more)
        self.kube.create(LAYOUT_REQUEST, NAMESPACE, made)

    @precondition(lambda self: self.request is not None)
    @rule(auto=st.booleans(), slo=st.sampled_from(SLOS))
    def change(self, auto: bool, slo: int) -> None:
        spec = {"deploy": "auto" if auto else "manual", "request": document({**SMALL, "slo.0.ms": slo})}
        self.kube.edit(LAYOUT_REQUEST, *_words(KEY), {"spec": spec})

    @precondition(lambda self: self.request is not None)
    @rule(auto=st.booleans(), there=st.booleans())
    def change_and_back(self, auto: bool, there: bool) -> None:
        """With a look between: what is asked again was cancelled for something else."""
        slo = self.request["spec"]["request"]["slo"][0]["ms"]
        self.look()
        if self.request is None:
            return
        self.change(auto, next(one for one in SLOS if one != slo))
        self.look()
        if there:
            self.work()
        self.change(auto, slo)

    @precondition(lambda self: self.request is not None)
    @rule()
    def delete(self) -> None:
        self.kube.delete(LAYOUT_REQUEST, *_words(KEY))

    @precondition(lambda self: self.kube.get(RAY_SERVICE, *_words(KEY)) is not None)
    @rule()
    def take_a_field(self) -> None:
        self.kube.edit(RAY_SERVICE, *_words(KEY), {"spec": {"serveConfigV2": "mine"}})
        self.theirs = True

    @precondition(lambda self: self.kube.get(RAY_SERVICE, *_words(KEY)) is not None)
    @rule()
    def remove_the_service(self) -> None:
        self.kube.delete(RAY_SERVICE, *_words(KEY))
        self.theirs = False

    @precondition(lambda self: self.clusters)
    @rule()
    def remove_the_clusters(self) -> None:
        for name in self.clusters:
            self.kube.delete(RAY_CLUSTER, NAMESPACE, name)

    @rule(looks=st.booleans())
    def work(self, looks: bool = False) -> None:
        self.studies.progress(self.clusters)
        if looks:
            self.look()

    @precondition(lambda self: any(one.state is StudyState.QUEUED for one in self.studies.all.values()))
    @rule()
    def cancel(self) -> None:
        name = next(name for name, one in self.studies.all.items() if one.state is StudyState.QUEUED)
        self.studies.set(name, StudyState.CANCELLED)
        self.cancelled.add(name)

    @rule()
    def look_once(self) -> None:
        self.look()

    @rule(at=st.integers(1, 8), before=st.booleans())
    def look_and_be_killed(self, at: int, before: bool) -> None:
        try:
            self.look(KilledAt(self.kube, at, before))
        except Killed:
            return

    @invariant()
    def nothing_is_begun_twice(self) -> None:
        assert len(self.studies.submitted) == len(set(self.studies.submitted))

    @invariant()
    def clusters_keep_to_the_limit(self) -> None:
        assert 8 * len(self.clusters) <= TRIALS.max_gpus

    @invariant()
    def what_was_taken_is_left(self) -> None:
        service = self.kube.get(RAY_SERVICE, *_words(KEY))
        if self.theirs and service is not None:
            assert service["spec"]["serveConfigV2"] == "mine"

    def teardown(self) -> None:
        """Everybody else stops; the controller and the worker go on."""
        for _ in range(8):
            self.look()
            self.studies.progress(self.clusters)
            KubeRayStandIn(self.kube).look()
        self.look()
        found, service = self.request, self.kube.get(RAY_SERVICE, *_words(KEY))
        assert not [one for one in self.studies.all.values() if one.state in OPEN]
        assert self.clusters == set()
        if found is None:
            assert (service, self.kube.list(CONFIG_MAP, NAMESPACE)[0]) == (None, [])
            return
        study = found["status"]["study"]
        assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
        if self.studies.all[study].state is StudyState.CANCELLED:
            assert study in self.cancelled
            assert condition(found, "Failed") == ("True", "StudyCancelled")
        elif found["spec"]["deploy"] == "manual":
            assert condition(found, "RolledOut") == ("False", "Manual")
        elif self.theirs:
            assert condition(found, "RolledOut") == ("False", "FieldConflict")
        else:
            assert condition(found, "RolledOut") == ("True", "Serving")
            assert service["spec"]["serveConfigV2"] == study


def _words(key: Key) -> tuple[str, str]:
    return key.namespace, key.name


Anyhow.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAnyhow = pytest.mark.slow(Anyhow.TestCase)
