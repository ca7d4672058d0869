"""What leaves the tuner: one measured layout, from the record of its launch, under its production name.

A trial has a name, a route and maybe a node of its own; nothing else of what was launched is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve.launch.engine import server_args
from serve.launch.ray_nodes import llm_config, unpinned
from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput
from tuner.trial.launched import Launched, RayApplication, VllmServer, versions_shown

FORMATS = ("ray-serve", "rayservice", "kustomize", "helm-values", "vllm")
_LISTENS = {"--host": "0.0.0.0", "--port": "8000"}


@dataclass(frozen=True, slots=True)
class Shipment:
    """A layout as it was launched; ``name`` is that of the service.

    ``recomputed``: the study kept no record of its launches, and ``launched`` is what this Parlay would launch.
    """

    name: str
    deployment: Deployment
    request: TuneRequest
    launched: Launched
    recomputed: bool = False

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)

    @property
    def formats(self) -> tuple[str, ...]:
        """In which it can be written: all where Ray Serve ran it, a command line where a vLLM server did."""
        payload = self.launched.payload
        if isinstance(payload, RayApplication):
            return FORMATS
        return ("vllm",) if isinstance(payload, VllmServer) else ()

    def require(self, spec_format: str) -> None:
        """Raise BadInput for an unknown format, or one in which the layout never ran."""
        if spec_format not in FORMATS:
            raise BadInput("--format", spec_format, ", ".join(FORMATS))
        if spec_format not in self.formats:
            never = f"{self.layout} was launched by {self.launched.launcher}: no other configuration of it ever ran"
            raise BadInput("--format", spec_format, f"{', '.join(self.formats) or 'none'}; {never}")

    @property
    def application(self) -> dict[str, Any]:
        """The Ray Serve application that was launched, on any node and at the root of the service."""
        payload = self.launched.payload
        if not isinstance(payload, RayApplication):
            raise BadInput("--format", "ray-serve", ", ".join(self.formats) or "none")
        return unpinned(payload.config) | {"name": self.name, "route_prefix": "/"}

    @property
    def server(self) -> VllmServer:
        """vLLM's own server, listening to all: the one that was launched, or one of the application's engine."""
        payload = self.launched.payload
        if isinstance(payload, VllmServer):
            words = list(payload.arguments)
            for flag, value in _LISTENS.items():
                words[words.index(flag) + 1] = value
            return VllmServer(tuple(words), payload.environment)
        config = llm_config(self.application)
        kwargs, replicas = config["engine_kwargs"], config["deployment_config"].get("num_replicas", 1)
        host, port = _LISTENS["--host"], int(_LISTENS["--port"])
        model_id = config["model_loading_config"]["model_id"]
        arguments = server_args(self.launched.model_source, model_id, kwargs, replicas, host=host, port=port)
        return VllmServer(tuple(arguments), config["runtime_env"]["env_vars"])

    @property
    def origin(self) -> str:
        """Where the configuration comes from, and which versions it was measured on."""
        versions = versions_shown(self.launched.versions) or "unknown versions"
        if self.recomputed:
            return f"Recomputed for a study that kept no record of its launches; begun on {versions}"
        return f"Measured with {self.launched.launcher}: {versions}"

    @property
    def ray_version(self) -> str | None:
        """Of the Ray that it was measured on, where it is known."""
        return self.launched.versions.get("ray")
