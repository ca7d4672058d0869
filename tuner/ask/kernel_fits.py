"""What is fitted of the kernels that all models run: a few shares of datasheet peaks per device and precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.ask.strict import Strict


@dataclass(frozen=True, slots=True)
class GemmFit(Strict):
    """One precision's matrix product (``tuner.cost.compute.gemm``); what a kernel does not do is left at 0.

    ``kernel`` names the tile rule. Efficiencies are shares of the datasheet's peak and bandwidth. ``split_k`` is the
    least k of one split, ``wave_rounding`` the exponent with which a partly filled wave counts as full (1: entirely),
    ``wave_us`` the prologue and epilogue of a wave, ``k_step_ns`` the least time per step of k where a kernel is
    slower than its like, ``epilogue_ps`` per output value, ``cache_gain`` by how much a warm L2 cache beats
    memory. ``host_us`` is the launch path without CUDA graphs, ``host_small_us`` the same for m < 32,
    ``host_unaligned_us`` its surcharge where 4 does not divide m.
    """

    kernel: Literal["cublas", "cutlass_hopper", "cutlass_blackwell", "cutlass_ada", "block", "untiled"]
    floor_us: float
    compute_efficiency: float
    memory_efficiency: float
    split_k: float = 0.0
    wave_rounding: float = 1.0
    wave_us: float = 0.0
    k_step_ns: float = 0.0
    epilogue_ps: float = 0.0
    cache_gain: float = 0.0
    host_us: float = 0.0
    host_small_us: float = 0.0
    host_unaligned_us: float = 0.0


@dataclass(frozen=True, slots=True)
class PrefillAttentionFit(Strict):
    """Attention over a prompt for one KV-cache precision (``tuner.cost.compute.attention``).

    ``exp_cost`` is the time of one exponential in units of one FLOP at the bf16 peak, ``wave_us`` per wave of tiles,
    ``cache_write_ns`` per new token and KV head, ``tail`` the share of the longest tile that nothing overlaps,
    ``wide_head_penalty`` the slowdown for heads wider than 128.
    """

    kernel: Literal["flash_attn_2", "flash_attn_2_ada", "flash_attn_3", "trtllm", "flashinfer", "untiled"]
    floor_us: float
    compute_efficiency: float
    memory_efficiency: float
    exp_cost: float = 0.0
    wave_us: float = 0.0
    cache_write_ns: float = 0.0
    tail: float = 0.0
    wide_head_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class DecodeAttentionFit(Strict):
    """Attention for one new token per sequence, one KV-cache precision (``tuner.cost.compute.decode``).

    ``unit_us`` per work unit, ``key_ns`` per key of heads of 128 on one multiprocessor, ``merge_us`` to merge split
    keys, ``window_us`` extra when a window cuts the keys, ``copy_us`` for the output copy of FlashAttention-2's packed
    path, ``head_ns`` per sequence and head of 128, ``cache_gain`` by how much a warm L2 cache beats memory.
    """

    kernel: Literal["flash_attn_2", "split_keys"]
    floor_us: float
    memory_efficiency: float
    unit_us: float
    key_ns: float
    merge_us: float = 0.0
    window_us: float = 0.0
    copy_us: float = 0.0
    head_ns: float = 0.0
    cache_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class MoeFit(Strict):
    """One precision's grouped expert products (``tuner.cost.compute.moe``).

    ``rows_efficiency`` is the share of the bandwidth at which rows enter and leave experts, ``elsewhere_efficiency``
    that for rows routed to other devices (they are still sorted, padded and summed), ``expert_us`` per active
    expert; an expert's rows are padded to tiles of up to ``tile_rows``.
    """

    floor_us: float
    compute_efficiency: float
    memory_efficiency: float
    rows_efficiency: float = 0.3  # where too few rows tell
    elsewhere_efficiency: float = 2.0
    expert_us: float = 0.0
    tile_rows: float = 64.0


@dataclass(frozen=True, slots=True)
class ElementwiseFit(Strict):
    """Norms, rotary embedding, activation, sampling: bound by bytes, above a launch floor."""

    floor_us: float
    memory_efficiency: float
