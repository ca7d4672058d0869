"""What Ray Serve changes in front of an engine that runs: how often tokens are sent, and how many take requests in.

By a config file either would be another version of the application, whose replicas start anew. So the number of ingress
replicas is changed as an external scaler does, and the interval where each replica of the engine reads it for every
request: ``LLMServer._get_batch_interval_ms`` of Ray Serve LLM 2.60 looks it up in the configuration that it was given.
What runs then is what a launch of the other configuration would run.
"""

from __future__ import annotations

import copy
from typing import Any

from serve.launch.engine import serve_app
from serve.launch.ray_api import change_interval, change_replicas
from serve.launch.replicas import holds_engine, status_of
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput

IN_PLACE = frozenset({"stream_interval_ms", "ingress_replicas"})
_SETTINGS = "experimental_configs"
_INGRESS = "ingress_deployment_config"


def changed(
    config: dict[str, Any], before: ParallelLayout, layout: ParallelLayout, request: TuneRequest, model_source: str
) -> dict[str, Any]:
    """The configuration of ``layout``, of the one with which ``before`` was launched; where it lies stays as it was.

    Raises BadInput where the layouts differ in more than ``IN_PLACE``.
    """
    if layout.without(IN_PLACE) != before.without(IN_PLACE):
        raise BadInput("layout", str(layout), f"{before}, with another {' or '.join(sorted(IN_PLACE))}")
    fresh = serve_app(config["name"], layout, request, model_source=model_source, route_prefix=config["route_prefix"])
    found = copy.deepcopy(config)
    for model, asked in zip(_models(found), _models(fresh), strict=True):
        model[_SETTINGS] = asked[_SETTINGS]
    found["args"][_INGRESS]["num_replicas"] = fresh["args"][_INGRESS]["num_replicas"]
    return found


def apply(config: dict[str, Any], application: dict[str, Any]) -> None:
    """Have an application that runs serve as ``config`` says; its replicas then come and go (``settled``)."""
    app, (model, *_) = config["name"], _models(config)
    engines = [
        replica["actor_name"]
        for name, deployment in application["deployments"].items()
        for replica in deployment["replicas"]
        if holds_engine(name)
    ]
    change_interval(engines, int(model[_SETTINGS]["stream_batching_interval_ms"]))
    change_replicas(app, _ingress(application)[0], int(config["args"][_INGRESS]["num_replicas"]))


def settled(config: dict[str, Any], application: dict[str, Any]) -> bool:
    """True once it has the ingress replicas that ``config`` says, and no others."""
    states = [str(replica["state"]).rpartition(".")[2] for replica in _ingress(application)[1]["replicas"]]
    return states == ["RUNNING"] * config["args"][_INGRESS]["num_replicas"] and status_of(application) == "RUNNING"


def _models(config: dict[str, Any]) -> list[dict[str, Any]]:
    arguments = config["args"]
    return [arguments["llm_config"]] if "llm_config" in arguments else arguments["llm_configs"]


def _ingress(application: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The deployment that takes requests in, by name."""
    ((name, deployment),) = [item for item in application["deployments"].items() if not holds_engine(item[0])]
    return name, deployment
