"""Predictions for tables of attention that chooses its keys: whole modules of one rank, replayed in CUDA graphs.

A module's projections are priced as matrix products with the quantising before them; norms, caches, indexer and
attention by the models of ``tuner.cost.compute``. ``num_heads`` are the rank's, ``step`` the tokens cached before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute import gemm_ms, quantise_ms
from tuner.cost.compute.block_sparse import block_sparse_decode_terms, block_sparse_prefill_terms
from tuner.validate.columns import Array, Columns, Operation, Predict, numbers_of

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


KINDS: dict[str, tuple[tuple[str, ...], Predict]] = {
    "msa_context": (("kv_cache_dtype", "gemm_type"), _block_sparse),
    "msa_generation": (("kv_cache_dtype", "gemm_type"), _block_sparse),
}
_MODULE = Operation(
    ("system", "kv_cache_dtype", "gemm_type"), ("batch_size", "isl", "num_heads"), ("step",), "latency_ms"
)
OPERATIONS = {"msa_context": _MODULE, "msa_generation": _MODULE}


def kind_of(columns: Mapping[str, Sequence[str]]) -> str | None:
    """Which of these kinds a table is, by the name of its operation; None where it is of another."""
    name = columns.get("op_name", ("",))[0].removesuffix("_module")
    return name if name in KINDS else None
