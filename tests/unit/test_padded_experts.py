"""Experts that the engine pads where many ranks cut them: bytes and time of what a rank has then."""

from dataclasses import replace

import numpy as np

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.cost.latency import StepCosts, StepShape
from tuner.cost.profiling_run import profiled_bytes, release_memory
from tuner.cost.stored import weight_bytes

KIMI, EXPANDED = load_model("moonshotai/Kimi-Linear-48B-A3B-Instruct"), load_model("openbmb/MiniCPM3-4B")
H100 = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=8))


def experts_ms(model, layout):
    step = StepShape("prefill", np.full(1, 4096.0), np.zeros(1), np.ones(1))
    return float(StepCosts(model, H100).stages(layout, step)[0]["experts"][0])


def test_a_rank_holds_and_multiplies_padded_parts():
    least = KIMI.experts.least
    wider = replace(KIMI.experts, inter=8 * least)
    wide = replace(KIMI, kinds=tuple(b if b.experts is None else replace(b, experts=wider) for b in KIMI.kinds))
    assert KIMI.experts.inter < 8 * least
    cut, whole = ParallelLayout(tp=8), ParallelLayout(tp=8, ep=True)
    assert weight_bytes(KIMI, cut, 0) == weight_bytes(wide, cut, 0)
    assert weight_bytes(KIMI, whole, 0) < weight_bytes(wide, whole, 0)
    assert experts_ms(KIMI, cut) == experts_ms(wide, cut)
    assert weight_bytes(KIMI, cut, 0) == 2 * KIMI.held_elements(8)


def test_keys_and_values_that_are_cached_expanded_need_no_room_to_expand_them():
    found = profiled_bytes(EXPANDED, ParallelLayout(), np.full(1, 1.0), np.ones(1), release_memory(None))
    assert found[0] < 2**20 * 8
