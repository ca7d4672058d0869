"""The controller with its threads, on an API server in memory: nothing that was told is forgotten."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.controller_app import RUNS
from tests.kube_fake import FakeKube
from tests.layout_requests import NAMESPACE, layout_request
from tuner.app.controller.controller import Controller, Place
from tuner.app.controller.kube import LAYOUT_REQUEST, RAY_SERVICE
from tuner.app.controller.measures import Measures
from tuner.ask.request_document import parse_request
from tuner.study.store import Store


@pytest.mark.slow
def test_what_is_told_before_all_is_read_is_looked_at_then(tmp_path):
    kube, go = FakeKube(), threading.Event()
    kube.create(LAYOUT_REQUEST, NAMESPACE, layout_request())
    listed = kube.list

    def late(kind: Any, namespace: str) -> Any:
        assert kind is not RAY_SERVICE or go.wait(10)
        return listed(kind, namespace)

    kube.list = late  # type: ignore[method-assign]
    store = Store(f"sqlite:///{tmp_path / 'parlay.db'}")
    place = Place((NAMESPACE,), NAMESPACE, "one", threads=2)
    controller = Controller(kube, store, place, parse_request, RUNS, Measures())
    controller.start()
    try:
        until = time.monotonic() + 10
        while not controller.leader.leading and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)  # it leads, and was told of the request; what serves is not read yet
        go.set()
        while not store.study_names() and time.monotonic() < until:
            time.sleep(0.02)
        assert len(store.study_names()) == 1
    finally:
        controller.stop()
        store.close()
