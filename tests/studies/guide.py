"""The guide "Scaling the Giants": what limits each kind of parallelism; no layout suits all links and prompts."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.studies.ordering import Finding, Ordering, falling, rising, shown
from tests.studies.pricing import setting
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Objective
from tuner.ask.space import load_space
from tuner.cost.latency import StepCosts
from tuner.cost.memory import estimate_memory
from tuner.cost.step_batch import StepShape, total
from tuner.plan.prune import Candidate, plan

STUDY = "Scaling the Giants (guide)"
CHAT, LONG = (1024, 256), (16_384, 16)


@cache
def best(
    gpu: str = "h100_sxm",
    nodes: int = 4,
    gpus_per_node: int = 4,
    fabric: str = "infiniband_ndr",
    lengths: tuple[int, int] = CHAT,
    objective: Objective = Objective.MIN_LATENCY,
) -> Candidate:
    """The first of the ranking of 16 GPUs."""
    study = setting("guide", None, *lengths)
    spec = ClusterSpec(gpu=gpu, nodes=nodes, gpus_per_node=gpus_per_node, fabric=fabric)
    request = study.request.model_copy(update={"cluster": spec, "objective": objective})
    return plan(request, study.model, Cluster.from_spec(spec), load_space(request.space), keep=1).ranked[0]


def _said(found: dict[str, Candidate]) -> str:
    return "; ".join(
        f"{name}: tp={c.layout.tp}, pp={c.layout.pp}, dp={c.layout.dp} ({c.prediction.idle_ttft_ms:.0f} + "
        f"{c.prediction.idle_tpot_ms:.1f} ms)"
        for name, c in found.items()
    )


def _network_decides() -> Finding:
    found = {name: best(fabric=name) for name in ("infiniband_ndr", "ethernet_10")}
    ok = found["infiniband_ndr"].layout.tp > 4 >= found["ethernet_10"].layout.tp
    return Finding(ok, _said(found))


def _link_decides() -> Finding:
    found = {
        "8 H100 per node, NVLink": best(nodes=2, gpus_per_node=8, lengths=LONG),
        "8 L40S per node, PCIe": best("l40s", nodes=2, gpus_per_node=8, fabric="roce_200", lengths=LONG),
    }
    nvlink, pcie = (candidate.layout.tp for candidate in found.values())
    return Finding(pcie < nvlink, _said(found))


def _prompts_decide() -> Finding:
    found = {"1024 + 256 tokens": best(), "16384 + 16 tokens": best(lengths=LONG)}
    chat, long = (candidate.layout.pp for candidate in found.values())
    return Finding(chat == 1 < long, _said(found))


def _objective_decides() -> Finding:
    found = {objective.value: best(objective=objective) for objective in (Objective.MIN_LATENCY, Objective.MAX_GOODPUT)}
    latency, goodput = (candidate.layout for candidate in found.values())
    return Finding(goodput.tp < latency.tp and goodput.dp > latency.dp, _said(found))


def _tensor_limit() -> Finding:
    study = setting("guide")
    shares = {}
    for tp in (2, 4, 8, 16):
        parts = study.alone(tp, 1).tpot_parts_ms
        shares[f"tp={tp}"] = 100 * parts["communication"] / sum(parts.values())
    return Finding(rising(list(shares.values())), shown(shares, "% of TPOT is communication", 0))


def _pipeline_limit() -> Finding:
    study = setting("guide")
    alone = {f"pp={pp}": study.alone(4, pp).tpot_ms for pp in (1, 2, 4)}
    together = {f"pp={pp}": 1e3 * 64 / sum(study.batch(4, pp, 64).prefill_parts_ms.values()) for pp in (1, 2, 4)}
    ok = rising(list(alone.values())) and rising(list(together.values()))
    return Finding(ok, f"TPOT {shown(alone, 'ms alone')}; 64 prompts at once {shown(together, 'prompts/s', 1)}")


def _context_limit() -> Finding:
    """Decode context parallelism of DeepSeek-V3 on 16 H200: a latent cache that TP only replicates."""
    model = load_model("deepseek-ai/DeepSeek-V3")
    cluster = Cluster.from_spec(ClusterSpec(gpu="h200_sxm", nodes=2, gpus_per_node=8))
    costs, request, one = StepCosts(model, cluster), setting("guide").request, np.ones(1)
    held: dict[str, float] = {}
    short_ms: dict[str, float] = {}
    long_ms: dict[str, float] = {}
    for dcp in (1, 2, 4, 8):
        layout = ParallelLayout(tp=8, pp=2, dcp=dcp, executor="ray")
        memory = estimate_memory(model, layout, cluster, request.engine, 8192 * one, 64 * one)
        held[f"dcp={dcp}"] = float(memory.kv_tokens[0]) / 1e6
        for tokens, into in ((1024, short_ms), (131_072, long_ms)):
            stages = costs.stages(layout, StepShape("decode", one, tokens * one, 16 * one))
            into[f"dcp={dcp}"] = sum(float(total(terms)[0]) for terms in stages)
    ok = rising(list(held.values())) and rising(list(short_ms.values())) and falling(list(long_ms.values())[:2])
    text = f"holds {shown(held, 'million tokens')}; step of 16 sequences at 1024 tokens {shown(short_ms, 'ms', 1)}"
    return Finding(ok, f"{text}, at 131072 {shown(long_ms, 'ms', 1)}")


def _expert_limit() -> Finding:
    model, one = load_model("deepseek-ai/DeepSeek-V3"), np.ones(1)
    shares = {}
    for name, nodes, per_node in (("one node of 16", 1, 16), ("2 nodes", 2, 8), ("4 nodes", 4, 4)):
        cluster = Cluster.from_spec(ClusterSpec(gpu="h200_sxm", nodes=nodes, gpus_per_node=per_node))
        layout = ParallelLayout(dp=16, ep=True, executor="ray")
        (terms,) = StepCosts(model, cluster).stages(layout, StepShape("decode", one, 2048 * one, 64 * one))
        exchanged = sum(float(ms[0]) for name, ms in terms.items() if " expert " in name)
        shares[name] = 100 * exchanged / float(total(terms)[0])
    one_node, two, _ = shares.values()
    return Finding(one_node < two, shown(shares, "% of a decode step is expert dispatch and combine", 0))


ORDERINGS = (
    Ordering(STUDY, "TP crosses nodes on InfiniBand, and stays inside them on Ethernet", _network_decides),
    Ordering(STUDY, "For long prompts the best TP degree is lower over PCIe than over NVLink", _link_decides),
    Ordering(STUDY, "Short prompts want TP alone, long prompts a hybrid with PP", _prompts_decide),
    Ordering(STUDY, "Latency wants TP, goodput more replicas of less TP", _objective_decides),
    Ordering(STUDY, "TP is limited by its all-reduces, ever more with its degree", _tensor_limit),
    Ordering(STUDY, "PP serves more prompts at once but no single request sooner", _pipeline_limit),
    Ordering(STUDY, "CP holds more context and speeds long ones up, at a price for short ones", _context_limit),
    Ordering(STUDY, "EP is limited by its exchange, more so across nodes", _expert_limit),
)
