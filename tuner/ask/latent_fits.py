"""What was fitted of kernels around compressed caches: latent attention, sparse attention over it, and quantising.

Optional sections of a hardware profile, few numbers each: shares of a datasheet's peak or bandwidth, and times of what
no datasheet gives. A profile without them is priced by the kernels of ordinary attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.ask.strict import Strict

LATENT_SECTIONS = (  # of a profile, all optional
    "latent_products", "latent_prefill", "latent_decode", "sparse_prefill", "sparse_decode", "quantise",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LatentProductsFit(Strict):
    """Products per head with an up-projection, batched over the heads (``tuner.cost.compute.latent``).

    ``cache_gain`` is by how much a warm L2 cache beats memory.
    """

    floor_us: float
    compute_efficiency: float
    memory_efficiency: float
    cache_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class LatentPrefillFit(Strict):
    """Latent attention over a prompt, keys and values expanded to full heads, by the precision of the attention.

    As ``tuner.ask.kernel_fits.PrefillAttentionFit``, and ``token_ns`` per new token (norms, rotary embedding, writing
    the cache), ``head_ns`` per new token and head (keys put together of two parts, values split off). ``pads_values``:
    the kernel takes values no narrower than keys. ``apart_us`` and ``apart_token_ns`` come on top where norms and
    rotary embedding run as many small kernels.
    """

    kernel: Literal["flash_attn_2_ada", "flash_attn_3", "trtllm"]
    floor_us: float
    compute_efficiency: float
    exp_cost: float
    wave_us: float
    tail: float = 0.0
    token_ns: float = 0.0
    head_ns: float = 0.0
    apart_us: float = 0.0
    apart_token_ns: float = 0.0
    pads_values: bool = False


@dataclass(frozen=True, slots=True)
class LatentDecodeFit(Strict):
    """Latent attention on the compressed cache itself, by the precision of that cache.

    Prompts of at most ``absorb_tokens`` new tokens run these kernels, too. A work unit is up to ``head_rows`` queries
    of one sequence: ``unit_us``, and ``key_ns`` per key on one multiprocessor; ``merge_us`` where keys are split,
    ``token_ns`` per token (norms, rotary embedding, cache write), ``head_ns`` per token and head (putting queries
    together, quantising them, outputs). ``apart_us`` as in ``LatentPrefillFit``.
    """

    floor_us: float
    memory_efficiency: float
    unit_us: float
    key_ns: float
    merge_us: float = 0.0
    token_ns: float = 0.0
    head_ns: float = 0.0
    apart_us: float = 0.0
    head_rows: float = 64.0
    absorb_tokens: float = 1.0


@dataclass(frozen=True, slots=True)
class SparsePrefillFit(Strict):
    """Sparse attention over a prompt, by the precision of the cache (``tuner.cost.compute.sparse``).

    Heads are padded to ``head_rows``. Below 32 heads another kernel runs, of ``few_efficiency`` and ``few_filler``.
    ``filler`` is the share of empty slots among the chosen keys that costs time all the same, ``index_efficiency`` the
    indexer's share of its peak; ``token_ns`` per new token (choosing, quantising, norms), ``head_ns`` per new token and
    head. ``host_us`` is the launch path without CUDA graphs, ``host_quantised_us`` its surcharge where projections
    quantise.
    """

    floor_us: float
    compute_efficiency: float
    few_efficiency: float
    index_efficiency: float
    filler: float = 0.0
    few_filler: float = 0.0
    token_ns: float = 0.0
    head_ns: float = 0.0
    head_rows: float = 64.0
    host_us: float = 0.0
    host_quantised_us: float = 0.0


@dataclass(frozen=True, slots=True)
class SparseDecodeFit(Strict):
    """Sparse attention for one new token per sequence, by the precision of the cache.

    ``unit_us``, ``key_ns``, ``token_ns`` and ``head_ns`` as in ``LatentDecodeFit``, ``filler`` as in
    ``SparsePrefillFit``; ``few_key_ns`` and ``few_filler`` below 32 heads. ``index_efficiency`` is the share of the
    bandwidth at which the indexer reads its keys, ``choose_ns`` per key to choose from on one multiprocessor,
    ``long_us`` where there are more keys than are chosen.
    """

    floor_us: float
    memory_efficiency: float
    unit_us: float
    key_ns: float
    few_key_ns: float
    index_efficiency: float
    choose_ns: float
    filler: float = 0.0
    few_filler: float = 0.0
    long_us: float = 0.0
    token_ns: float = 0.0
    head_ns: float = 0.0


@dataclass(frozen=True, slots=True)
class QuantiseFit(Strict):
    """Activations to fp8 by a kernel of its own (``tuner.cost.compute.quantise``).

    Of a row on one of the ``slots`` per multiprocessor: ``row_us``, and ``value_ps`` per value. To find a scale for
    each row takes ``scale_us``, ``scale_row_us`` and ``scale_value_ps`` more, and ``scale_traffic`` of the bytes again.
    """

    floor_us: float
    memory_efficiency: float
    row_us: float
    value_ps: float
    slots: float
    cache_gain: float
    scale_us: float
    scale_row_us: float
    scale_value_ps: float
    scale_traffic: float
