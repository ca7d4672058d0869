"""The parts below the controller: queue, mirror, election, health port, and what its metrics are called."""

from __future__ import annotations

import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deploy.controller.names import Key
from tests.kube_fake import FakeKube
from tests.layout_requests import NAMESPACE, layout_request
from tests.unit.test_docs import rows, section
from tuner.app.controller.client import KubeClient
from tuner.app.controller.health import HealthPort
from tuner.app.controller.kube import LAYOUT_REQUEST, LEASE, RAY_SERVICE, KubeError
from tuner.app.controller.leader import LEASE_S, Leader
from tuner.app.controller.measures import Measures
from tuner.app.controller.mirror import AGAIN_S, Mirror
from tuner.app.controller.together import Together
from tuner.app.controller.work_queue import WorkQueue
from tuner.errors import BadInput, ParlayError, StoreError

ONE, TWO = Key("ns", "one"), Key("ns", "two")


# The queue


def test_a_key_waits_once():
    queue = WorkQueue()
    for key in (ONE, TWO, ONE):
        queue.add(key)
    assert [queue.take()[0], queue.take()[0]] == [ONE, TWO]
    assert len(queue) == 0


def test_one_that_is_worked_on_comes_again_when_it_is_done():
    queue = WorkQueue()
    queue.add(ONE)
    queue.take()
    queue.add(ONE)
    assert len(queue) == 0  # no other thread gets it meanwhile
    queue.done(ONE, well=True)
    assert queue.take()[0] == ONE


def test_what_people_changed_comes_before_what_studies_did():
    queue = WorkQueue()
    queue.add(ONE, hurry=False)
    queue.add(TWO)
    assert [queue.take()[0], queue.take()[0]] == [TWO, ONE]
    queue.done(ONE, well=True)
    queue.add(ONE, hurry=False)
    queue.add(ONE)
    assert queue.take()[0] == ONE
    assert len(queue) == 0


def test_of_two_times_for_a_later_look_the_sooner_holds():
    queue = WorkQueue()
    for seconds in (0.02, 60.0, 0.01, 60.0):
        queue.add_after(ONE, seconds)
    assert queue.take()[0] == ONE
    queue.done(ONE, well=True)
    assert len(queue) == 0
    queue.add_after(TWO, 0.03)
    assert queue.take()[0] == TWO  # the others of the first have had their time


def test_what_is_asked_for_meanwhile_is_done_at_once():
    began, go, batches = threading.Event(), threading.Event(), list[list[int]]()

    def do(numbers):
        batches.append(list(numbers))
        began.set()
        assert go.wait(5)
        if 13 in numbers:
            raise StoreError("no")
        return [2 * number for number in numbers]

    together = Together(do)
    with ThreadPoolExecutor(5) as threads:
        first = threads.submit(together, 1)
        assert began.wait(5)
        others = [threads.submit(together, number) for number in (2, 3, 4)]
        while len(together._waiting) < 3:
            time.sleep(0.001)
        go.set()
        assert [first.result(5), *(one.result(5) for one in others)] == [2, 4, 6, 8]
    assert sorted(map(len, batches)) == [1, 3]
    with pytest.raises(StoreError):
        together(13)
    assert together(5) == 10


@pytest.mark.slow
def test_what_went_wrong_comes_back_later():
    queue = WorkQueue()
    queue.add(ONE)
    queue.take()
    queue.done(ONE, well=False)
    assert len(queue) == 0
    assert queue.take()[0] == ONE


def test_at_the_end_nobody_waits():
    queue = WorkQueue()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(queue.take()))
    thread.start()
    queue.close()
    thread.join(5)
    assert found == [None]


# The mirror


def mirrored(kube: FakeKube, kind: Any = LAYOUT_REQUEST) -> tuple[Mirror, list[str], threading.Event]:
    told: list[str] = []
    came = threading.Event()

    def changed(document: Any) -> None:
        told.append(document["metadata"]["name"])
        came.set()

    mirror = Mirror(kube, kind, NAMESPACE, changed)
    mirror.start()
    assert mirror.synced.wait(5)
    return mirror, told, came


def test_a_mirror_has_what_was_there_and_what_comes():
    kube = FakeKube()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    mirror, told, came = mirrored(kube)
    assert mirror.get(Key(NAMESPACE, "llama")) is not None
    came.clear()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request("another"))
    assert came.wait(5)
    assert told == ["llama", "another"]
    came.clear()
    kube.delete(LAYOUT_REQUEST, NAMESPACE, "llama")
    assert came.wait(5)
    assert mirror.get(Key(NAMESPACE, "llama")) is None
    assert len(mirror.all()) == 1
    mirror.stop()


def test_what_was_written_is_seen_at_once_and_nothing_older_replaces_it():
    kube = FakeKube()
    made = kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    mirror, _, _ = mirrored(kube)
    mirror.stop()
    later = made | {"metadata": made["metadata"] | {"resourceVersion": "99"}}
    mirror.put(later)
    mirror.put(made)
    assert mirror.get(Key(NAMESPACE, "llama")) == later


def test_what_the_controller_wrote_itself_is_no_news():
    kube, told = FakeKube(), list[str]()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    mirror = Mirror(kube, LAYOUT_REQUEST, NAMESPACE, lambda one: told.append(one["metadata"]["name"]))
    held, watch = threading.Event(), kube.watch

    def late(*words: Any) -> Any:
        for change in watch(*words):
            held.wait(5)
            yield change

    kube.watch = late  # type: ignore[method-assign]
    mirror.start()
    assert mirror.synced.wait(5)
    mirror.put(kube.edit(LAYOUT_REQUEST, NAMESPACE, "llama", {"metadata": {"labels": {"a": "b"}}}))
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request("another"))
    held.set()
    while "another" not in told:
        time.sleep(0.01)
    assert told == ["llama", "another"]
    mirror.stop()


def test_a_kind_that_the_cluster_does_not_know_is_missing():
    kube = FakeKube()
    kube.unknown.add(RAY_SERVICE)
    mirror, _, _ = mirrored(kube, RAY_SERVICE)
    assert mirror.missing
    mirror.stop()


def test_a_server_that_calls_everything_too_old_is_not_asked_all_the_time():
    kube = FakeKube()

    def too_old(*_: Any) -> Any:
        raise KubeError(410, "Expired", "too old")

    kube.watch = too_old  # type: ignore[method-assign]
    mirror, _, _ = mirrored(kube)
    time.sleep(0.1)
    mirror.stop()
    assert len(kube.calls) <= 2


@pytest.mark.parametrize("fault", ["ended", "too old"])
def test_a_server_that_ends_every_watch_at_once_is_asked_ever_more_rarely(fault):
    kube, waits = FakeKube(), list[float]()

    def ended(*_: Any) -> Any:
        if fault == "too old":
            raise KubeError(410, "Expired", "too old")
        return iter(())

    kube.watch = ended  # type: ignore[method-assign]
    mirror = Mirror(kube, LAYOUT_REQUEST, NAMESPACE, lambda _: None)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 6:
            mirror.stop()
        return False

    mirror._stopped.wait = wait  # type: ignore[assignment,method-assign]
    mirror._run()
    assert waits[1:] == [*AGAIN_S[1:], AGAIN_S[-1]]


# The election


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def standing():
    kube, clock = FakeKube(), Clock()
    return kube, clock, [Leader(kube, NAMESPACE, "lease", name, clock=clock) for name in ("a", "b")]


def test_the_first_leads_as_long_as_it_renews(standing):
    _, clock, (a, b) = standing
    for _ in range(10):
        a.try_once()
        b.try_once()
        assert (a.leading, b.leading) == (True, False)
        clock.now += LEASE_S - 1


def test_another_takes_over_once_the_lease_was_seen_unchanged_for_its_time(standing):
    kube, clock, (a, b) = standing
    a.try_once()
    b.try_once()
    clock.now += LEASE_S - 1
    b.try_once()
    assert not b.leading
    clock.now += 2
    assert not a.leading  # it gave no sign of life: its time is over, whether it knows or not
    b.try_once()
    assert b.leading
    assert kube.get(LEASE, NAMESPACE, "lease")["spec"]["leaseTransitions"] == 1
    a.try_once()
    assert not a.leading


def test_a_server_that_is_away_ends_it_when_the_time_is_over(standing):
    kube, clock, (a, _) = standing
    a.try_once()
    kube.down = True
    clock.now += LEASE_S - 1
    a.try_once()
    assert a.leading
    clock.now += 2
    a.try_once()
    assert not a.leading


def test_who_renews_too_late_begins_anew(standing):
    kube, clock, _ = standing
    told: list[bool] = []
    slow = Leader(kube, NAMESPACE, "lease", "slow", told.append, clock)
    slow.try_once()
    clock.now += LEASE_S - 1
    get = kube.get

    def late(*words: Any) -> Any:
        clock.now += 3
        return get(*words)

    kube.get = late
    slow.try_once()  # meanwhile nothing was looked at: who is told has to look at all of it
    assert slow.leading
    assert told == [True, False, True]


def test_who_ends_gives_it_back(standing):
    _, _, (a, b) = standing
    a.start()
    while not a.leading:
        pass
    a.stop()
    b.try_once()
    assert b.leading


def test_of_two_that_are_as_fast_one_leads(standing):
    _, _, leaders = standing
    started = threading.Barrier(2)

    def stand(one: Leader) -> None:
        started.wait()
        one.try_once()

    threads = [threading.Thread(target=stand, args=(one,)) for one in leaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.leading for one in leaders) == 1


# The client


def test_without_its_library_it_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with pytest.raises(ParlayError, match=r"parlay\[kubernetes\]"):
        KubeClient()


@pytest.mark.slow
def test_without_a_cluster_it_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for kubeconfig in (None, str(tmp_path / "nothing")):
        with pytest.raises(BadInput) as refused:
            KubeClient(kubeconfig)
        assert refused.value.where == "--kubeconfig"


# What others see


@pytest.mark.slow
def test_the_port_says_how_it_is():
    measures, well = Measures(), [True]
    measures.called("list", "layoutrequests", 200)
    measures.phase(ONE, "Studying")
    port = HealthPort("127.0.0.1", 0, {"/healthz": lambda: well[0]}, measures.text)
    port.start()

    def ask(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port.port}{path}", timeout=5) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    assert ask("/healthz") == (200, "ok\n")
    well[0] = False
    assert ask("/healthz")[0] == 503
    assert ask("/another")[0] == 404
    assert 'parlay_controller_layoutrequests{phase="Studying"} 1.0' in ask("/metrics")[1]
    with pytest.raises(BadInput):
        HealthPort("127.0.0.1", port.port, {}, measures.text)
    port.stop()


def test_every_metric_is_told():
    told = rows(section("Metrics of the controller"))
    found = {metric.name: metric for metric in Measures().registry.collect()}
    assert set(told) == set(found)
    for name, metric in found.items():
        assert metric.type in told[name]
