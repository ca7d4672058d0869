"""One launcher goes from front to front: each answers streams, and leaves nothing to the next."""

from __future__ import annotations

import json
import pickle
import urllib.request
from pathlib import Path

import pytest

from serve.launch.fronts import DIRECT, GRPC, HAPROXY, THROUGHPUT
from serve.launch.ray_api import _building_for
from tests.real.conftest import Bench, request_for
from tuner.trial.launched import RayApplication, VllmServer
from tuner.trial.seams import RunningDeployment

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
TOKENS = 12


def streamed(deployment: RunningDeployment) -> list[str]:
    """The data of every event of a streamed completion."""
    body = {"model": deployment.model_id, "prompt": "Hello", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{deployment.url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
        lines = [line.decode().strip() for line in answer]
    return [line.removeprefix("data: ") for line in lines if line]


@pytest.mark.long
@pytest.mark.parametrize("bench", ["ray-serve"], indirect=True)
@pytest.mark.parametrize("first", ["front=ray_direct", "serve_mode=throughput,stream_interval_ms=20"])
def test_one_launcher_goes_from_front_to_front(bench: Bench, first: str, tiny_model: Path) -> None:
    request = request_for(tiny_model)
    for text in (first, "front=vllm,api_servers=2"):
        deployment = bench.launch(request, text)
        try:
            *events, end = streamed(deployment)
            assert end == "[DONE]"
            assert 1 <= len(events) <= TOKENS + 1
            assert deployment.failure() is None
            payload = deployment.launched.payload
            if "vllm" in text:
                assert isinstance(payload, VllmServer)
                assert payload.arguments[-2:] == ("--api-server-count", "2")
            else:
                assert isinstance(payload, RayApplication)
                names = (HAPROXY, DIRECT) if "direct" in text else (THROUGHPUT,)
                assert payload.environment == dict.fromkeys(names, "1")
        finally:
            deployment.teardown()
        assert not bench.left_running()
    assert not list(bench.state_dir.glob("*.json"))  # of Ray itself nothing is left either


@pytest.mark.parametrize(("variable", "by_grpc"), [(GRPC, True), (THROUGHPUT, True), (HAPROXY, False), (None, False)])
def test_handles_of_an_application_ask_as_its_mode_says(variable: str | None, by_grpc: bool) -> None:
    from ray.serve.handle import DeploymentHandle

    with _building_for({} if variable is None else {variable: "1"}):
        handle = pickle.loads(pickle.dumps(DeploymentHandle("engine", "app")))
    assert handle.handle_options._by_reference is not by_grpc
    assert DeploymentHandle("engine", "app").handle_options._by_reference
