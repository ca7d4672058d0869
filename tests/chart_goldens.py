"""Installations whose rendering is kept word by word: read the difference before it is committed."""

from __future__ import annotations

from pathlib import Path

import yaml

from deploy.specs.writing import emit
from tests.chart_cases import POSTGRES, SERVICE, Values, merged
from tests.spec_cases import Case, make_case

FOLDER = Path(__file__).parent / "golden" / "chart"
_CASES = (
    make_case("llama-8b", "tp=1,pp=1,dp=1", model="meta-llama/Llama-3.1-8B", gpu="h100_sxm", nodes=1, per_node=1),
    make_case("llama-70b", "tp=8,pp=1,dp=1", model="meta-llama/Llama-3.1-70B", gpu="h100_sxm", nodes=1, per_node=8),
    make_case(
        "llama-405b",
        "tp=8,pp=2,dp=1,executor=ray",
        model="meta-llama/Llama-3.1-405B",
        gpu="h100_sxm",
        nodes=2,
        per_node=8,
    ),
    make_case(
        "qwen-moe",
        "tp=2,pp=1,dp=8,ep=true,executor=ray",
        model="Qwen/Qwen3-235B-A22B-FP8",
        gpu="h200_sxm",
        nodes=2,
        per_node=8,
    ),
    make_case(
        "mixed-gpus",
        "tp=4,pp=1,dp=2,gpu=a100_sxm",
        model="meta-llama/Llama-3.1-70B",
        gpu="h100_sxm",
        nodes=1,
        per_node=8,
        groups=({"gpu": "a100_sxm", "nodes": 2, "gpus_per_node": 4, "node_selector": {"pool": "a100"}},),
    ),
)
_TYPES: Values = {
    "h100_sxm": {"nodeSelector": {"gpu": "h100"}, "runtimeClassName": "nvidia"},
    "a100_sxm": {"nodeSelector": {"gpu": "a100"}, "runtimeClassName": "nvidia-a100"},
}


def _emitted(case: Case) -> Values:
    read: Values = yaml.safe_load(emit("helm-values", case.shipment, case.platform))
    return read


def _group(name: str, gpu_type: str, replicas: int) -> Values:
    size = {"gpus": 4, "logicalGpus": 0, "cpu": "20", "memory": "256Gi"}
    return {"name": name, "pool": name, "gpuType": gpu_type, "replicas": replicas, **size}


GOLDENS: dict[str, Values] = {
    **{case.name: _emitted(case) for case in _CASES},
    "mixed-gpus": merged(_emitted(_CASES[-1]), {"serving": {"gpuTypes": _TYPES}}),
    # As an operator writes one: no launcher of ours runs two pools yet.
    "two-pools": {
        "serving": {
            "name": "two-pools",
            "gpuTypes": _TYPES,
            "workerGroups": [_group("prefill", "h100_sxm", 2), _group("decode", "a100_sxm", 1)],
            "serveConfigV2": "applications: []\n",
        }
    },
    "service": SERVICE,
    "service-on-postgres": merged(
        POSTGRES,
        {
            "tuner": {"api": {"replicas": 2}, "worker": {"replicas": 2}, "token": {"secret": "parlay-token"}},
            "monitoring": {"serviceMonitor": {"enabled": True, "token": {"secret": "parlay-reader"}}},
        },
    ),
    "service-with-controller": merged(SERVICE, {"controller": {"enabled": True}}),
}
