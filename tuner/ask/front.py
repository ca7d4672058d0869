"""The path from client to engine that a layout asks for, its defaults filled in: which, and how many of each hop."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.device import DeviceKind
from tuner.ask.layout import ParallelLayout

LAUNCHED = "ray_serve"  # the path of a layout that names none: what ``tune`` launches
INGRESS_PER_ENGINE = 2  # what Ray's documentation advises, so that token streaming is not the bottleneck


def front_name(layout: ParallelLayout) -> str:
    """The path of a layout by name: what ``tune`` launches, where it names none."""
    return LAUNCHED if layout.front == "auto" else layout.front


def path_name(layout: ParallelLayout) -> str:
    """The path of a layout as ``tuner.ask.front_fits`` knows it: a mode of Ray Serve is a path of its own, but behind
    HAProxy none was measured apart."""
    name = front_name(layout)
    return name if name != LAUNCHED or layout.serve_mode == "default" else f"{name}_{layout.serve_mode}"


@dataclass(frozen=True, slots=True)
class Front:
    """A path by name, as ``tuner.ask.front_fits`` knows it, and how many of each hop it has.

    Tokens of a sequence are sent on every ``interval_ms`` (0: each as it comes). ``ingress_replicas`` are those of the
    whole deployment, ``api_servers`` those of vLLM's own server, ``engines`` the engines behind the path; ``router``
    deals requests to them.
    """

    name: str
    interval_ms: int
    ingress_replicas: int
    api_servers: int
    engines: int
    router: str

    @classmethod
    def of(cls, layout: ParallelLayout, kind: DeviceKind) -> Front:
        """What a layout means on a kind of device. Where it names no number of ingress replicas: two for each engine,
        but one in all where cores are devices, which it would take from them."""
        usual = INGRESS_PER_ENGINE * layout.dp if kind.own_memory else 1
        return cls(
            name=path_name(layout),
            interval_ms=layout.stream_interval_ms,
            ingress_replicas=layout.ingress_replicas * layout.dp or usual,
            api_servers=layout.api_servers,
            engines=layout.dp,
            router=layout.request_router,
        )

    def servers(self, per: str) -> int:
        """How many of a hop share the load, by ``HopFit.per``."""
        loops = {"node": 1, "ingress": self.ingress_replicas, "engine": self.engines, "api_server": self.api_servers}
        return loops[per]
