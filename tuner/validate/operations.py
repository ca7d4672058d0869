"""Predictions for tables of measured kernels, so that anyone can score the compute models against a measurement.

Columns are those of the published kernel benchmarks (one array per column, numbers or text): ``system`` names the
profile, shapes are per device, the kernel ran eagerly in a loop, so launches count and small operands are in cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuner.ask.profile import HardwareProfile, load_profile
from tuner.cost.compute import (
    Routing,
    decode_attention_ms,
    gemm_ms,
    moe_ms,
    prefill_attention_ms,
)
from tuner.errors import BadInput
from tuner.validate import compressed_operations, latent_operations, linear_operations
from tuner.validate.columns import Columns, Predict, column_of, numbers_of

Array = NDArray[np.float64]

_GATHERED_BEFORE = (0, 15)  # vLLM releases whose expert benchmark put few routed tokens on one device
_ROUTINGS = {"balanced": 0.0, "uniform": None}


def predict_rows(kind: str, rows: Columns) -> Array:
    """Milliseconds for every row of one kind of operation, a key of ``_KINDS``.

    Raises ``BadInput`` for an unknown kind, a missing column, a system without profile or a precision without price.
    """
    systems = np.asarray(column_of(rows, "system"), dtype=str)
    found = np.full(len(systems), np.nan)
    for name in np.unique(systems):
        chosen = systems == name
        picked = {key: np.asarray(column)[chosen] for key, column in rows.items()}
        found[chosen] = predict_rows_with(load_profile(str(name)), kind, picked)
    return found


def predict_rows_with(profile: HardwareProfile, kind: str, rows: Columns) -> Array:
    """The same for rows of one device, by a given profile."""
    if kind not in _KINDS:
        raise BadInput("kind", kind, ", ".join(sorted(_KINDS)))
    keys, predict = _KINDS[kind]
    groups = list(zip(*(np.asarray(column_of(rows, key), dtype=str) for key in keys), strict=True))
    found = np.full(len(groups), np.nan)
    for group in sorted(set(groups)):
        chosen = np.array([candidate == group for candidate in groups])
        picked = {key: np.asarray(column)[chosen] for key, column in rows.items()}
        found[chosen] = predict(profile, group, picked)
    return found


def _gemm(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    m, n, k = numbers_of(rows, "m", "n", "k")
    return gemm_ms(profile, group[0], m, n, k, eager=True, warm=True)


def _prefill(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    names = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim", "window_size")
    b, new, past, heads, kv_heads, dim, window = numbers_of(rows, *names)
    return prefill_attention_ms(
        profile, new_tokens=new, context_tokens=past, batch=b, heads=heads, kv_heads=kv_heads, head_dim=dim,
        window=window, kv_dtype=group[0],
    )  # fmt: skip


def _decode(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    names = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim", "window_size")
    b, new, past, heads, kv_heads, dim, window = numbers_of(rows, *names)
    return decode_attention_ms(
        profile, batch=b, context_tokens=past + new, heads=heads, kv_heads=kv_heads, head_dim=dim, window=window,
        kv_dtype=group[0], warm=True,
    )  # fmt: skip


def _moe(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
    dtype, distribution, version = group
    names = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    tokens, hidden, inter, topk, experts, tp, ep = numbers_of(rows, *names)
    routing = _routing(distribution, version)
    shape = (tokens, hidden, inter, topk, experts, tp, ep)
    marlin = np.array(["marlin" in str(source) for source in rows.get("kernel_source", [""] * len(tokens))])
    found = moe_ms(profile, dtype, *shape, routing)
    if marlin.any():  # these kernels take 4-bit integers and 4-bit floats at the same rate
        found = np.where(marlin, moe_ms(profile, "int4", *shape, routing), found)
    return found


def _routing(distribution: str, version: str) -> Routing:
    if distribution in _ROUTINGS:
        return Routing(_ROUTINGS[distribution])
    try:
        exponent = float(distribution.removeprefix("power_law_"))
        release = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        allowed = "balanced, uniform or power_law_<exponent>, and a release like 0.24.0"
        raise BadInput("distribution, vllm", f"{distribution}, {version}", allowed) from None
    return Routing(exponent, gathered=release < _GATHERED_BEFORE)


_KINDS: dict[str, tuple[tuple[str, ...], Predict]] = {
    "gemm": (("gemm_dtype",), _gemm),
    "attention_context": (("kv_cache_dtype",), _prefill),
    "attention_generation": (("kv_cache_dtype",), _decode),
    "moe": (("moe_dtype", "distribution", "vllm"), _moe),
    **compressed_operations.KINDS,
    **latent_operations.KINDS,
    **linear_operations.KINDS,
}
