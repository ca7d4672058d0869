"""What is deployed on plain Ray Serve: the application of a measured trial, or of a layout that nobody has measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serve.launch.engine import serve_app
from serve.launch.fronts import variables
from serve.launch.ray_nodes import unpinned
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput
from tuner.trial.launched import ENGINES, Launched, RayApplication, installed, model_source


def measured(launched: Launched, name: str) -> Launched:
    """What a trial launched, to be deployed under a name of its own, on whichever nodes have room.

    Raises BadInput for what is no application of Ray Serve.
    """
    payload = launched.payload
    if not isinstance(payload, RayApplication):
        raise BadInput("launched", payload.kind, "an application of Ray Serve: a trial of the launcher ray-serve")
    return replace(launched, payload=replace(payload, config=unpinned(payload.config) | _called(name)))


def planned(name: str, layout: ParallelLayout, request: TuneRequest) -> Launched:
    """What a trial of a layout would launch. Raises BadInput where Ray Serve LLM would not run it as written."""
    source = model_source(request.model)
    config = serve_app(name, layout, request, model_source=source, route_prefix=f"/{name}")
    return Launched("ray-serve", installed(*ENGINES), source, RayApplication(config, environment=variables(layout)))


def config_of(launched: Launched, name: str) -> dict[str, Any]:
    """The application that is deployed, as it is stored; raises BadInput for one of another name."""
    payload = launched.payload
    if not isinstance(payload, RayApplication):
        raise BadInput("launched", payload.kind, "an application of Ray Serve")
    if any(payload.config[key] != value for key, value in _called(name).items()):
        raise BadInput("launched", payload.config["name"], f"an application called {name}, at /{name}")
    return payload.config


def _called(name: str) -> dict[str, str]:
    return {"name": name, "route_prefix": f"/{name}"}
