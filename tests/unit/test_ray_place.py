"""Ray Serve behind a front as a place that is watched: what is told, and by whom."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from serve.measure.live_ingress import Answered
from serve.measure.live_looks import look_between
from serve.measure.live_reader import readings
from tuner.app.watch import ray_place
from tuner.app.watch.ray_place import RayPlace
from tuner.retune.seen import Blindness


class Site:
    """Of two applications, one of which is another study's; its front refuses, as nothing serves."""

    def __init__(self, *_: object, **__: object) -> None:
        self.refused = 2.0

    def answered(self) -> dict[str, Answered]:
        self.refused += 3
        return {"s-d1": Answered(10 + self.refused, self.refused), "other-d1": Answered(1, 0)}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RayPlace:
    for name, answer in (("is_connected", True), ("serve_runs", False), ("ray_nodes_alive", ())):
        monkeypatch.setattr(ray_place, name, lambda answer=answer: answer)
    monkeypatch.setattr(ray_place, "RaySite", Site)
    return RayPlace("s", "auto", 8000, tmp_path)


def test_what_the_front_refuses_has_failed_where_no_engine_tells_anything(place: RayPlace) -> None:
    before, now = (readings(place.told_at(["s-d1"]), at_s) for at_s in (100.0, 110.0))
    assert set(now) == {"s-d1"}
    look = look_between(before["s-d1"], now["s-d1"], ())
    assert (look.arrived, look.failed, look.waiting) == (3.0, 3.0, None)
    assert Blindness.NO_METRICS in look.blind


def test_what_a_start_needs_is_loaded_once_and_beside(place: RayPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    monkeypatch.setattr(ray_place, "import_quietly", lambda: threads.append(threading.current_thread()))
    place.prepare()
    place.prepare()
    assert place._loading is not None
    place._loading.join(5)
    assert threads == [place._loading]
