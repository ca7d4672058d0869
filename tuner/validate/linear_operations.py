"""Predictions for tables of measured linear-attention and Mamba kernels: ``gdn``, ``kda`` and ``mamba2_trtllm``.

A row is one kernel, named by ``kernel_source``, for ``batch_size`` sequences of ``seq_len`` new tokens; it ran in a
loop, so operands may be in the cache. Convolutions of three tensors (``_qkv3``) are three launches. From vLLM 0.27 on
state 0 means padding, and these loops count states from 0: their first sequence is skipped. The nightly build's loop
also has the host lay out every launch, which costs more than the kernel; an engine does that once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tuner.ask.profile import HardwareProfile
from tuner.cost.compute.causal_convolution import (
    channel_convolution_terms,
    convolution_terms,
    convolution_update_terms,
)
from tuner.cost.compute.delta_rule import chunk_rule_terms, recurrent_rule_terms
from tuner.cost.compute.kinds import Terms
from tuner.errors import BadInput
from tuner.validate.columns import Array, Columns, Operation, Predict, numbers_of

Numbers = Mapping[str, Array]

_NIGHTLY = "0.1."  # how builds between releases are numbered


def _qkv_channels(rows: Numbers) -> Array:
    return 2 * rows["num_k_heads"] * rows["head_k_dim"] + rows["num_v_heads"] * rows["head_v_dim"]


def _mamba_channels(rows: Numbers) -> Array:
    return rows["nheads"] * rows["head_dim"] + 2 * rows["n_groups"] * rows["d_state"]


def _convolution(profile: HardwareProfile, rows: Numbers, _: str) -> Terms:
    return convolution_terms(
        profile, new_tokens=rows["seq_len"], sequences=rows["batch_size"], channels=_qkv_channels(rows),
        conv_kernel=rows["d_conv"], warm=True,
    )  # fmt: skip


def _convolutions_apart(profile: HardwareProfile, rows: Numbers, release: str) -> Terms:
    return convolution_terms(
        profile, new_tokens=rows["seq_len"], sequences=rows["batch_size"], channels=_qkv_channels(rows) / 3,
        conv_kernel=rows["d_conv"], calls=3, prepared=not release.startswith(_NIGHTLY), idle_sequences=1, warm=True,
    )  # fmt: skip


def _channel_convolution(profile: HardwareProfile, rows: Numbers, _: str) -> Terms:
    return channel_convolution_terms(
        profile, new_tokens=rows["seq_len"], sequences=rows["batch_size"], channels=_mamba_channels(rows), warm=True
    )


def _update(alone: bool, channels: Callable[[Numbers], Array]) -> Callable[[HardwareProfile, Numbers, str], Terms]:
    def terms(profile: HardwareProfile, rows: Numbers, _: str) -> Terms:
        return convolution_update_terms(
            profile, sequences=rows["batch_size"], channels=channels(rows), conv_kernel=rows["d_conv"],
            new_tokens=rows["seq_len"], warm=True, alone=alone,
        )  # fmt: skip

    return terms


def _chunked(name: str, channel_gate: bool) -> Callable[[HardwareProfile, Numbers, str], Terms]:
    def terms(profile: HardwareProfile, rows: Numbers, _: str) -> Terms:
        return chunk_rule_terms(
            profile, getattr(profile.linear_attention, name), new_tokens=rows["seq_len"], sequences=rows["batch_size"],
            key_heads=rows["num_k_heads"], value_heads=rows["num_v_heads"], key_dim=rows["head_k_dim"],
            value_dim=rows["head_v_dim"], channel_gate=channel_gate, warm=True,
        )  # fmt: skip

    return terms


def _recurrent(profile: HardwareProfile, rows: Numbers, _: str, fused: bool = False) -> Terms:
    return recurrent_rule_terms(
        profile, new_tokens=rows["seq_len"], sequences=rows["batch_size"], key_heads=rows["num_k_heads"],
        value_heads=rows["num_v_heads"], key_dim=rows["head_k_dim"], value_dim=rows["head_v_dim"], fused=fused,
        warm=True,
    )  # fmt: skip


_KERNELS: dict[str, dict[str, Callable[[HardwareProfile, Numbers, str], Terms]]] = {
    "gdn": {
        "causal_conv1d_fn": _convolution,
        "causal_conv1d_update": _update(False, _qkv_channels),
        "chunk_gated_delta_rule_flashinfer": _chunked("gdn_chunk", channel_gate=False),
        "chunk_gated_delta_rule_triton": _chunked("gdn_chunk", channel_gate=False),
        "fused_recurrent_gated_delta_rule_packed_decode": _recurrent,
    },
    "kda": {
        "causal_conv1d_fn_qkv3": _convolutions_apart,
        "causal_conv1d_update": _update(True, _qkv_channels),
        "flashkda_fwd": _chunked("kda_chunk", channel_gate=True),
        "chunk_kda_with_fused_gate": _chunked("kda_chunk", channel_gate=True),
        "fused_kda_decode": partial(_recurrent, fused=True),
        "fused_recurrent_kda_packed_decode": _recurrent,
        "fused_recurrent_kda": _recurrent,
    },
    "mamba2_trtllm": {
        "causal_conv1d_fn": _channel_convolution,
        "causal_conv1d_update": _update(True, _mamba_channels),
    },
}


def _predict(kind: str, sizes: tuple[str, ...]) -> Predict:
    """Milliseconds of rows of one kernel: the group is its ``kernel_source``, and the release of vLLM if any."""

    def predict(profile: HardwareProfile, group: tuple[str, ...], rows: Columns) -> Array:
        source, release = (*group, "")[:2]
        kernels = _KERNELS[kind]
        if source not in kernels:
            raise BadInput("kernel_source", source, ", ".join(sorted(kernels)))
        numbers = dict(zip(sizes, numbers_of(rows, *sizes), strict=True))
        return kernels[source](profile, numbers, release).total_ms

    return predict


_DELTA = ("batch_size", "seq_len", "d_conv", "num_k_heads", "head_k_dim", "num_v_heads", "head_v_dim")
_MAMBA = ("batch_size", "seq_len", "d_conv", "nheads", "head_dim", "n_groups", "d_state")
KINDS: dict[str, tuple[tuple[str, ...], Predict]] = {
    "gdn": (("kernel_source",), _predict("gdn", _DELTA)),
    "kda": (("kernel_source", "vllm"), _predict("kda", _DELTA)),
    "mamba2_trtllm": (("kernel_source",), _predict("mamba2_trtllm", _MAMBA)),
}
OPERATIONS = {
    "gdn": Operation(("system", "kernel_source"), _DELTA, (), "latency_ms"),
    "kda": Operation(("system", "kernel_source", "vllm"), _DELTA, (), "latency_ms"),
    "mamba2_trtllm": Operation(("system", "kernel_source"), _MAMBA, (), "latency_ms"),
}


def kind_of(columns: Mapping[str, Sequence[str]]) -> str | None:
    """Which of these kinds a table is, by its columns and the names of its kernels; None where it is of another."""
    if "d_state" in columns:
        return "mamba2_trtllm"
    if "num_k_heads" not in columns:
        return None
    return "kda" if any("kda" in source for source in columns.get("kernel_source", ())) else "gdn"
