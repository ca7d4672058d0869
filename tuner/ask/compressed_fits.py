"""Fitted parameters of kernels that few models need: what attends to a choice of keys, mixes residual streams, or sees
images.

Sections of a hardware profile by precision, as those of ``tuner.ask.profile``. A profile may lack them: the models
then take the defaults here, figures between those of Hopper and of Blackwell. Efficiencies are shares of the
datasheet's peak or memory bandwidth; those of data that kernels find in the L2 cache may be above 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.ask.strict import Strict

OPTIONAL_SECTIONS = (
    "block_sparse",
    "compressed",
    "hyper_connections",
    "encoder_attention",
    "expert_exchange",
)  # of a profile


@dataclass(frozen=True, slots=True)
class BlockSparseFit(Strict):
    """Attention to chosen blocks of keys, one KV-cache precision (``tuner.cost.compute.block_sparse``).

    Over a prompt: ``prefill_floor_us`` of all kernels, ``index_efficiency`` of scoring keys (share of the bf16 peak),
    ``gather_efficiency`` of the chosen keys' bytes, each query's on its own (0: a kernel reads a block once for all
    that chose it, which does not tell), ``compute_efficiency`` of their products, ``query_ns`` per query and KV head
    (choosing blocks). For one new token: ``decode_floor_us``, ``decode_efficiency`` of the chosen keys' bytes,
    ``scan_efficiency`` of the index keys', ``decode_query_ns`` per sequence and KV head, ``cache_gain`` by how much a
    warm L2 cache beats memory.
    """

    prefill_floor_us: float = 20.0
    index_efficiency: float = 0.25
    gather_efficiency: float = 2.0
    compute_efficiency: float = 0.25
    query_ns: float = 10.0
    decode_floor_us: float = 14.0
    decode_efficiency: float = 0.75
    scan_efficiency: float = 0.75
    decode_query_ns: float = 20.0
    cache_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class CompressedFit(Strict):
    """Attention over a window and a compressed cache (``tuner.cost.compute.compressed``), for one kind of step:
    ``prefill``, ``decode``, and two parts of them, ``attention`` and ``index``.

    ``compute_efficiency`` is of the heads as they are padded, ``memory_efficiency`` of queries, outputs and cache,
    ``query_ns`` per query and 64 heads, ``chunk_us`` per four sequences of a prompt; of layers with an indexer
    ``index_efficiency`` (share of the fp8 peak) of its scores, ``sequence_us`` per sequence, ``choose_us`` of choosing
    at all, ``choose_ns`` per query that chooses.
    """

    floor_us: float
    compute_efficiency: float = 1.0
    memory_efficiency: float = 0.75
    query_ns: float = 0.0
    chunk_us: float = 0.0
    index_efficiency: float = 1.0
    sequence_us: float = 0.0
    choose_us: float = 0.0
    choose_ns: float = 0.0


@dataclass(frozen=True, slots=True)
class HyperConnectionFit(Strict):
    """Mixing residual streams before (``pre``) or after (``post``) a block (``tuner.cost.compute.hyper_connections``).

    ``value_ns`` per hidden value of a row, which one program walks; ``cache_gain`` by how much a warm L2 cache beats
    memory; ``compute_efficiency`` (share of the bf16 peak) of the product that gives the mixing weights of ``pre``.
    """

    floor_us: float
    value_ns: float
    memory_efficiency: float
    cache_gain: float = 0.0
    compute_efficiency: float = 1.0


@dataclass(frozen=True, slots=True)
class EncoderFit(Strict):
    """Attention within an image (``tuner.cost.compute.encoder``), by precision.

    ``exp_cost`` is the time of one exponential in units of one FLOP at the bf16 peak, ``wave_us`` per wave of tiles.
    """

    kernel: Literal["flash_attn_2", "flash_attn_3", "flash_attn_4"]
    floor_us: float
    compute_efficiency: float
    memory_efficiency: float
    exp_cost: float = 0.0
    wave_us: float = 0.0


@dataclass(frozen=True, slots=True)
class ExchangeFit(Strict):
    """One phase of a kernel that brings tokens to their experts or back (``tuner.cost.collectives.exchange``), by names
    such as ``deepep_ht_dispatch``: its start-up, and the share of the link (NVLink, or PCIe) at which it copies.
    """

    start_us: float
    efficiency: float
