"""What is changed of a Ray Serve application while its engine runs."""

from __future__ import annotations

import pytest

from serve.launch.engine import serve_app
from serve.launch.in_place import changed, settled
from tests.fakes import make_request
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput

REQUEST = make_request({"model": "Qwen/Qwen3-30B-A3B"})
SOURCE = "Qwen/Qwen3-30B-A3B"


def config_of(text):
    layout = ParallelLayout.parse(text)
    return layout, serve_app("app", layout, REQUEST, model_source=SOURCE, route_prefix="/app")


@pytest.mark.parametrize("engine", ["tp=2", "tp=1,dp=2", "tp=1,dp=2,ep=true,executor=ray", "tp=2,front=ray_haproxy"])
@pytest.mark.parametrize(
    "path", ["stream_interval_ms=50", "ingress_replicas=3", "stream_interval_ms=5,ingress_replicas=1"]
)
def test_it_becomes_what_a_launch_of_the_other_path_is_given(engine, path):
    (before, config), (layout, asked) = config_of(engine), config_of(f"{engine},{path}")
    assert changed(config, before, layout, REQUEST, SOURCE) == asked
    assert changed(asked, layout, before, REQUEST, SOURCE) == config


def test_where_it_lies_stays_as_it_was():
    (before, config), (layout, _) = config_of("tp=2"), config_of("tp=2,stream_interval_ms=50")
    config["args"]["llm_configs"][0]["placement_group_config"]["bundles"][0]["node:1.2.3.4"] = 0.001
    found = changed(config, before, layout, REQUEST, SOURCE)["args"]["llm_configs"][0]
    assert found["placement_group_config"]["bundles"][0]["node:1.2.3.4"] == 0.001
    assert found["experimental_configs"] == {"stream_batching_interval_ms": 50}
    assert config["args"]["llm_configs"][0]["experimental_configs"] == {"stream_batching_interval_ms": 0}


def test_an_engine_stays_what_it_is():
    (before, config), (layout, _) = config_of("tp=2"), config_of("tp=1,stream_interval_ms=50")
    with pytest.raises(BadInput, match="tp=2,pp=1,dp=1, with another ingress_replicas or stream_interval_ms"):
        changed(config, before, layout, REQUEST, SOURCE)


@pytest.mark.parametrize(
    ("states", "status", "is_settled"),
    [
        (["RUNNING", "RUNNING"], "RUNNING", True),
        (["RUNNING", "STARTING"], "RUNNING", False),
        (["RUNNING"], "RUNNING", False),
        (["RUNNING", "RUNNING", "STOPPING"], "RUNNING", False),
        (["RUNNING", "RUNNING"], "DEPLOYING", False),
    ],
)
def test_a_change_is_over_once_as_many_take_requests_as_were_asked(states, status, is_settled):
    _, config = config_of("tp=1,ingress_replicas=2")
    ingress = {"replicas": [{"state": state} for state in states]}
    engine = {"replicas": [{"state": "RUNNING"}]}
    application = {"status": status, "deployments": {"LLMServer:m": engine, "OpenAiIngress": ingress}}
    assert settled(config, application) == is_settled
