"""Predictions for tables of attention that chooses its keys: whole modules of one rank, replayed in CUDA graphs.

A module's projections are priced as matrix products with the quantising before them; norms, caches, indexer and
attention by the models of ``tuner.cost.compute``. ``num_heads`` are the rank's, ``step`` the tokens cached before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tuner.ask.profile import HardwareProfile
from tuner.cost.collectives.exchange import exchange_us
from tuner.cost.collectives.topology import CommGroup, load_fabric, place
from tuner.cost.compute import gemm_ms, quantise_ms
from tuner.cost.compute.block_sparse import block_sparse_decode_terms, block_sparse_prefill_terms
from tuner.cost.compute.compressed import (
    compressed_decode_terms,
    compressed_prefill_terms,
    gathered_attention_terms,
    index_scores_terms,
)
from tuner.cost.compute.compressed_projections import compressed_projections_ms
from tuner.cost.compute.encoder import encoder_attention_terms
from tuner.cost.compute.hyper_connections import Side, hyper_connection_terms
from tuner.cost.compute.kinds import precision
from tuner.cost.volume import expected_destinations
from tuner.errors import BadInput
from tuner.validate.columns import Array, Columns, Operation, Predict, numbers_of


@dataclass(frozen=True, slots=True)
class _Compressed:
    """Sizes of a whole model; ``chosen`` vectors per query."""

    hidden: int
    query_rank: int
    groups: int
    chosen: int


_DEEPSEEK_V4 = {"V4-Flash": _Compressed(4096, 1024, 8, 512), "V4-Pro": _Compressed(7168, 1536, 16, 1024)}
_ONCE_PER_RANK = ("deepep_ht", "deepep_v2_context")  # others send a token once per expert
_HIDDEN, _GROUP, _HEAD = 6144, 16, 128  # of MiniMax-M3: hidden size, heads that share a KV head, head size


def _projected_ms(profile: HardwareProfile, dtype: str, rows: Array, n: Array, k: Array) -> Array:
    """One projection and the quantising of its input."""
    return gemm_ms(profile, dtype, rows, n, k, warm=True) + quantise_ms(profile, dtype, rows * k)


def _block_sparse(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """A layer of MiniMax-M3; the shards of its index queries are those of its KV heads, its index key is on all ranks.

    A prompt of one token is decoded.
    """
    kv_dtype, dtype = group
    batch, new, past, heads = numbers_of(rows, "batch_size", "isl", "step", "num_heads")
    kv_heads = np.maximum(1.0, heads // _GROUP)
    tokens, hidden = batch * new, np.asarray(float(_HIDDEN))
    found = _projected_ms(profile, dtype, tokens, _HEAD * (heads + 3 * kv_heads + 1), hidden)
    found = found + _projected_ms(profile, dtype, tokens, hidden, _HEAD * heads)
    shape: dict[str, Any] = {
        "batch": batch,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": _HEAD,
        "kv_dtype": kv_dtype,
    }
    prompt = block_sparse_prefill_terms(profile, new_tokens=new, context_tokens=past, **shape)
    decode = block_sparse_decode_terms(profile, context_tokens=past + 1, warm=True, **shape)
    return np.asarray(found + np.where(new > 1, prompt.total_ms, decode.total_ms))


def _compressed(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """A layer of DeepSeek-V4; a prompt of one token is decoded."""
    model, dtype, ratio = group
    sizes, ratio_tokens = _compressed_sizes(model), int(float(ratio))
    batch, new, past, heads, ranks = numbers_of(rows, "batch_size", "isl", "step", "num_heads", "tp_size")
    found = compressed_projections_ms(
        profile, dtype, batch * new, hidden=sizes.hidden, heads=heads, ratio=ratio_tokens, query_rank=sizes.query_rank,
        output_groups=sizes.groups / ranks, warm=True,
    )  # fmt: skip
    shape: dict[str, Any] = {"batch": batch, "heads": heads, "ratio": ratio_tokens, "chosen": sizes.chosen}
    prompt = compressed_prefill_terms(profile, new_tokens=new, context_tokens=past, **shape)
    decode = compressed_decode_terms(profile, context_tokens=past + 1, **shape)
    return np.asarray(found + np.where(new > 1, prompt.total_ms, decode.total_ms))


def _compressed_part(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """Attention over vectors of 128 tokens each, or an indexer's scores of all rows as one sequence."""
    batch, new, past, heads = numbers_of(rows, "batch_size", "isl", "step", "num_heads")
    if "logits" in group[0]:
        return index_scores_terms(profile, rows=batch * new, context_tokens=past).total_ms
    return gathered_attention_terms(profile, new_tokens=new, context_tokens=past, batch=batch, heads=heads).total_ms


def _hyper_connections(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """All sites of a row, one call after the other."""
    side, sites = group[0], int(float(group[1]))
    tokens, hidden, streams = numbers_of(rows, "num_tokens", "hidden_size", "hc_mult")
    if side not in ("pre", "post"):
        raise BadInput("op_name", side, "pre or post")
    found = hyper_connection_terms(profile, cast(Side, side), tokens, hidden, streams, turns=sites)
    return np.asarray(sites * found.total_ms)


def _encoder(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """One layer's attention within images, in bf16."""
    if precision(profile, group[0]).kind != "bf16":
        raise BadInput("attn_dtype", group[0], "a precision of 16 bits")
    images, patches, heads, dim = numbers_of(rows, "batch_size", "isl", "num_heads", "head_dim")
    return encoder_attention_terms(profile, patches=patches, images=images, heads=heads, head_dim=dim).total_ms


def _exchange(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """Microseconds (as the table has them) of tokens that travel to experts, in bf16, or back."""
    backend, phase = group[:2]
    ranks, nodes, experts, topk = (int(float(field)) for field in group[2:])
    tokens, hidden = numbers_of(rows, "num_tokens", "hidden_size")
    once = backend in _ONCE_PER_RANK
    copies = expected_destinations(experts, topk, ranks) if once else topk
    top = place(CommGroup(ranks, nodes), profile, load_fabric(profile.fabric))
    return exchange_us(profile, backend, phase, 2 * tokens * hidden * copies, top)


def _compressed_sizes(model: str) -> _Compressed:
    for name, sizes in _DEEPSEEK_V4.items():
        if name in model:
            return sizes
    raise BadInput("model", model, f"a name with {' or '.join(_DEEPSEEK_V4)}")


KINDS: dict[str, tuple[tuple[str, ...], Predict]] = {
    "msa_context": (("kv_cache_dtype", "gemm_type"), _block_sparse),
    "msa_generation": (("kv_cache_dtype", "gemm_type"), _block_sparse),
    "dsv4_context": (("model", "gemm_type", "compress_ratio"), _compressed),
    "dsv4_generation": (("model", "gemm_type", "compress_ratio"), _compressed),
    "dsv4_parts": (("op_name",), _compressed_part),
    "mhc": (("op_name", "num_sites"), _hyper_connections),
    "encoder_attention": (("attn_dtype",), _encoder),
    "moe_a2a": (("comm_backend", "phase", "ep_size", "node_num", "num_experts", "topk"), _exchange),
}
_MODULE = Operation(
    ("system", "kv_cache_dtype", "gemm_type"), ("batch_size", "isl", "num_heads"), ("step",), "latency_ms"
)
_COMPRESSED = Operation(
    ("system", "model", "gemm_type", "compress_ratio"), ("batch_size", "isl", "num_heads", "tp_size"), ("step",),
    "latency_ms",
)  # fmt: skip
OPERATIONS = {
    "msa_context": _MODULE,
    "msa_generation": _MODULE,
    "dsv4_context": _COMPRESSED,
    "dsv4_generation": _COMPRESSED,
    "dsv4_parts": Operation(("system", "op_name"), ("batch_size", "isl", "num_heads"), ("step",), "latency_ms"),
    "encoder_attention": Operation(
        ("system", "attn_dtype"), ("batch_size", "isl", "num_heads", "head_dim"), (), "latency_ms"
    ),
    "moe_a2a": Operation(
        ("system", "comm_backend", "phase", "ep_size", "node_num", "num_experts", "topk"),
        ("hidden_size", "num_tokens"),
        (),
        "latency_us",
    ),
    "mhc": Operation(("system", "op_name", "num_sites"), ("num_tokens", "hidden_size", "hc_mult"), (), "latency_ms"),
}
_PARTS = ("dsv4_hca_attn", "dsv4_paged_mqa_logits")


def kind_of(columns: Mapping[str, Sequence[str]]) -> str | None:
    """Which of these kinds a table is, by the name of its operations; None where it is of another."""
    name = columns.get("op_name", ("",))[0].removesuffix("_module")
    if "comm_backend" in columns:
        return "moe_a2a"
    if "hc_mult" in columns:
        return "mhc"
    if "attn_dtype" in columns and "step" not in columns:  # nothing is cached
        return "encoder_attention"
    if name in _PARTS:
        return "dsv4_parts"
    name = name.replace("_csa_", "_").replace("_hca_", "_")
    return name if name in KINDS else None
