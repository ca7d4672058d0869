"""Models, clusters and requests on which the tests of the techniques agree."""

from itertools import pairwise

import numpy as np

from tests.fakes import make_request
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.cost.latency import StepCosts
from tuner.cost.steady import Shapes, load_curve
from tuner.cost.techniques import parse_techniques

NAMES = {
    "8B": "meta-llama/Llama-3.1-8B",
    "70B": "meta-llama/Llama-3.1-70B",
    "405B": "meta-llama/Llama-3.1-405B",
    "deepseek": "deepseek-ai/DeepSeek-V3",
    "qwen-moe": "Qwen/Qwen3-235B-A22B-FP8",
    "gpt-oss": "openai/gpt-oss-120b",
}
MODELS = {short: load_model(name) for short, name in NAMES.items()}
EXPERTS_32 = "tp=1,pp=1,dp=32,ep=true,executor=ray,all2all=deepep_low_latency"


def cluster(nodes=4, gpus_per_node=8, gpu="h100_sxm", fabric=None):
    return Cluster.from_spec(ClusterSpec(gpu=gpu, nodes=nodes, gpus_per_node=gpus_per_node, fabric=fabric))


def parsed(layout):
    return ParallelLayout.parse(layout) if isinstance(layout, str) else layout


def costs(short, *given, on=None):
    return StepCosts(MODELS[short], on or cluster(), techniques=parse_techniques(given))


REQUEST = make_request({"workload.prompt_tokens": 4096, "workload.output_tokens": 128})


def idle(short, layout, *given, request=REQUEST, on=None):
    """(TTFT, TPOT) of one request alone, in ms."""
    layout, priced = parsed(layout), costs(short, *given, on=on)
    limit = np.array([float(layout.max_num_batched_tokens)])
    shapes = Shapes.of(request, limit, layout.pp, priced.techniques.slices(layout.pp))
    curve = load_curve(priced, layout, shapes)
    return float(curve.idle_ttft_ms[0]), curve.idle_tpot_ms


def falls(values):
    return all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(values))
