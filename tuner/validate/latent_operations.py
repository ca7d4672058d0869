"""Predictions for tables of latent and of sparse attention, their products per head, and quantising.

``mla_`` and ``dsa_`` rows are whole modules of one rank: projections (priced as matrix products, with the quantising
before them), indexer, attention, output product, no all-reduce. They do not say of which model: latent attention is
DeepSeek-V3's. ``num_heads`` are the rank's, ``step`` the tokens cached before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute import gemm_ms, quantise_ms
from tuner.cost.compute.kinds import precision, sharp_max
from tuner.cost.compute.latent import (
    absorbs,
    apart_ms,
    head_product_ms,
    latent_decode_terms,
    latent_prefill_terms,
    latent_products_ms,
)
from tuner.cost.compute.quantise import quantise_rows_ms
from tuner.cost.compute.sparse import sparse_decode_terms, sparse_launch_ms, sparse_prefill_terms
from tuner.errors import BadInput
from tuner.validate.columns import Array, Columns, Operation, Predict, numbers_of


@dataclass(frozen=True, slots=True)
class _Model:
    """Dimensions of a model's attention: hidden size, ranks, head sizes, heads of the indexer (of 128)."""

    hidden: float
    q_rank: float
    kv_rank: float
    qk_nope: float
    qk_rope: float
    v_head: float
    index_heads: float
    index_dim: float = 128.0


_MODELS = {
    "deepseek-ai/DeepSeek-V3.2": _Model(7168, 1536, 512, 128, 64, 128, 64),
    "zai-org/GLM-5": _Model(6144, 2048, 512, 192, 64, 256, 32),
}
_DEEPSEEK = _MODELS["deepseek-ai/DeepSeek-V3.2"]  # V3 has the same, without the indexer
# (system, release) whose modules of latent attention ran norms and rotary embedding as one kernel: those of the others,
# and all of sparse attention, take some 50 us longer however few heads there are.
_COMPILED = {("b200_sxm", "0.24.0"), ("gb300", "0.27.0"), ("l40s", "0.24.0")}
_QUERY, _OUTPUT = "mla_gen_pre", "mla_gen_post"
_CAST, _SCALE = "scale_matrix", "compute_scale"


def _projected_ms(profile: HardwareProfile, dtype: str, rows: Array, n: ArrayLike, k: ArrayLike) -> Array:
    """One projection and the quantising of its input."""
    product = gemm_ms(profile, dtype, rows, n, k, warm=True)
    return np.asarray(product + quantise_ms(profile, dtype, rows * np.asarray(k)))


def _projections_ms(
    profile: HardwareProfile, dtype: str, model: _Model, tokens: Array, heads: Array, expands: ArrayLike
) -> Array:
    """Projections of latent attention; those of keys and values only where it ``expands`` to full heads."""
    down = model.q_rank + model.kv_rank + model.qk_rope
    ms = _projected_ms(profile, dtype, tokens, down, model.hidden)
    ms = ms + _projected_ms(profile, dtype, tokens, heads * (model.qk_nope + model.qk_rope), model.q_rank)
    ms = ms + _projected_ms(profile, dtype, tokens, model.hidden, heads * model.v_head)
    up = _projected_ms(profile, dtype, tokens, heads * (model.qk_nope + model.v_head), model.kv_rank)
    per_head = latent_products_ms(
        profile, tokens, heads=heads, kv_rank=model.kv_rank, qk_nope=model.qk_nope, v_head=model.v_head, warm=True
    )
    return np.asarray(ms + np.where(expands, up, per_head))


def _latent(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    kv_dtype, attention_dtype, dtype, release = group
    batch, new, past, heads = numbers_of(rows, "batch_size", "isl", "step", "num_heads")
    model, on_cache = _DEEPSEEK, absorbs(profile, new, kv_dtype)
    prompt = latent_prefill_terms(
        profile, new_tokens=new, context_tokens=past, batch=batch, heads=heads, qk_nope=model.qk_nope,
        qk_rope=model.qk_rope, v_head=model.v_head, dtype=attention_dtype,
    )  # fmt: skip
    cached = latent_decode_terms(
        profile, batch=batch, context_tokens=past + new, new_tokens=new, heads=heads, kv_rank=model.kv_rank,
        qk_rope=model.qk_rope, kv_dtype=kv_dtype,
    )  # fmt: skip
    around = _projections_ms(profile, dtype, model, batch * new, heads, ~on_cache)
    if (profile.name, release) not in _COMPILED:
        around = around + apart_ms(profile, batch * new, kv_dtype=kv_dtype, prompt=~on_cache)
    return np.asarray(around + np.where(on_cache, cached.total_ms, prompt.total_ms))


def _around_sparse(
    profile: HardwareProfile, group: tuple[str, ...], tokens: Array, heads: Array
) -> tuple[Array, dict[str, Any]]:
    """Milliseconds of a module's projections, the indexer's as well, and what its attention is asked for."""
    kv_dtype, dtype, name = group
    if name not in _MODELS:
        raise BadInput("model", name, ", ".join(_MODELS))
    model = _MODELS[name]
    ms = _projections_ms(profile, dtype, model, tokens, heads, expands=False)
    ms = ms + _projected_ms(profile, dtype, tokens, model.index_heads * model.index_dim, model.q_rank)
    ms = ms + gemm_ms(profile, "bf16", tokens, model.index_dim + model.index_heads, model.hidden, warm=True)
    shape: dict[str, Any] = {
        "heads": heads, "kv_rank": model.kv_rank, "qk_rope": model.qk_rope, "index_heads": model.index_heads,
        "index_dim": model.index_dim, "kv_dtype": kv_dtype,
    }  # fmt: skip
    return np.asarray(ms), shape


def _sparse_prompt(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """Not in CUDA graphs: the host launches the kernels of these, which takes longer than many of them run."""
    batch, new, past, heads = numbers_of(rows, "batch_size", "isl", "step", "num_heads")
    around, shape = _around_sparse(profile, group, batch * new, heads)
    found = sparse_prefill_terms(profile, new_tokens=new, context_tokens=past, batch=batch, **shape)
    launch = sparse_launch_ms(profile, group[0], precision(profile, group[1]).quantised)
    around = around + apart_ms(profile, batch * new, prompt=True)
    return sharp_max(around + found.total_ms, launch)


def _sparse_decode(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    batch, new, past, heads = numbers_of(rows, "batch_size", "isl", "step", "num_heads")
    around, shape = _around_sparse(profile, group, batch, heads)
    around = around + apart_ms(profile, batch, kv_dtype=group[0])
    return np.asarray(around + sparse_decode_terms(profile, batch=batch, context_tokens=past + new, **shape).total_ms)


def _products(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    tokens, heads = numbers_of(rows, "num_tokens", "num_heads")
    sides = {_QUERY: (_DEEPSEEK.qk_nope, _DEEPSEEK.kv_rank), _OUTPUT: (_DEEPSEEK.kv_rank, _DEEPSEEK.v_head)}
    if group[1] not in sides:
        raise BadInput("op_name", group[1], ", ".join(sides))
    if precision(profile, group[0]).kind != "bf16":
        raise BadInput("bmm_dtype", group[0], "bfloat16")
    k, n = sides[group[1]]
    return head_product_ms(profile, tokens, heads, k, n, warm=True)


def _quantise(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    """Casting with given scales, or what finding a scale for each row adds to that."""
    m, k = numbers_of(rows, "m", "k")
    if group[0] not in (_CAST, _SCALE):
        raise BadInput("op_name", group[0], f"{_CAST}, {_SCALE}")
    if precision(profile, group[1]).kind != "fp8":
        raise BadInput("quant_dtype", group[1], "fp8")
    cast = quantise_rows_ms(profile, m, k, find_scales=False, warm=True)
    return cast if group[0] == _CAST else quantise_rows_ms(profile, m, k, warm=True) - cast


_DENSE = ("kv_cache_dtype", "mla_dtype", "gemm_type", "vllm")
_SPARSE = ("kv_cache_dtype", "gemm_type", "model")
KINDS: dict[str, tuple[tuple[str, ...], Predict]] = {
    "mla_context": (_DENSE, _latent),
    "mla_generation": (_DENSE, _latent),
    "mla_bmm": (("bmm_dtype", "op_name"), _products),
    "dsa_context": (_SPARSE, _sparse_prompt),
    "dsa_generation": (_SPARSE, _sparse_decode),
    "quantize": (("op_name", "quant_dtype"), _quantise),
}
_SIZES = {
    "mla_bmm": ("num_tokens", "num_heads"),
    "quantize": ("m", "k"),
}
OPERATIONS = {
    kind: Operation(
        ("system", *names),
        _SIZES.get(kind, ("batch_size", "isl", "num_heads")),
        () if kind in _SIZES else ("step",),
        "latency_ms",
    )
    for kind, (names, _) in KINDS.items()
}


def kind_of(columns: Mapping[str, Sequence[str]]) -> str | None:
    """Which of these kinds a table is, by the name of its operation; None where it is of another."""
    name = columns.get("op_name", ("",))[0].removesuffix("_module")
    if name in KINDS:
        return name
    return {_QUERY: "mla_bmm", _OUTPUT: "mla_bmm", _CAST: "quantize", _SCALE: "quantize"}.get(name)
