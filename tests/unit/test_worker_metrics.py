"""The metrics of the main job, of the workers that a service keeps."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import pytest

from serve.launch.processes import free_port
from tests.curl_lines import serving
from tests.fakes import document
from tuner.app.client.client import ServiceClient
from tuner.study.lifecycle import StudyState


@pytest.mark.slow
def test_each_worker_under_a_service_shows_its_measurements_at_a_port_of_its_own(tmp_path: Path) -> None:
    first = free_port()
    words = ("--launchers", "simulated", "--metrics-port", str(first), "--metrics-host", "127.0.0.2")
    with serving(tmp_path, *words) as (url, token), ServiceClient(url, token) as client:
        client.queue(document({"space": {"tp": [1, 2]}, "budget.launches": 2}), name="s")
        until = time.monotonic() + 60
        while client.study("s").state != StudyState.DECIDED.value and time.monotonic() < until:
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.2:{first}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert 'parlay_predicted_to_measured_ratio{layout="tp=1,pp=1,dp=1",metric="tpot",study="s"}' in text
