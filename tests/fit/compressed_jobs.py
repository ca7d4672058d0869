"""Which parameter sets ``tests/fit/compressed.py`` fits, to which rows, from which start, with which fields free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.ask.compressed_fits import BlockSparseFit, CompressedFit, EncoderFit, ExchangeFit, HyperConnectionFit
from tuner.ask.profile import load_profile

Fit = BlockSparseFit | CompressedFit | EncoderFit | ExchangeFit | HyperConnectionFit
DATACENTRE_BLACKWELL = 10  # compute capability, whose kernels those of RTX cards do not share
TABLES = {  # of a kind: the columns that make a shape
    "msa_context": ("num_heads", "batch_size", "isl", "step"),
    "msa_generation": ("num_heads", "batch_size", "isl", "step"),
    "dsv4_context": ("model", "num_heads", "batch_size", "isl", "step", "compress_ratio"),
    "dsv4_generation": ("model", "num_heads", "batch_size", "isl", "step", "compress_ratio"),
    "dsv4_parts": ("op_name", "batch_size", "isl", "step"),
    "mhc": ("op_name", "num_tokens", "hidden_size"),
    "encoder_attention": ("batch_size", "isl", "num_heads", "head_dim"),
    "moe_a2a": ("num_tokens", "hidden_size", "topk", "num_experts"),
}


@dataclass(frozen=True, slots=True)
class FitJob:
    """One parameter set: its place, the tables it is fitted to (together), the rows of them by column and value, its
    start, the fields that are free, and what a field can be at most."""

    section: str
    key: str
    kinds: tuple[str, ...]
    start: Fit
    free: tuple[str, ...]
    only: Mapping[str, str] = field(default_factory=dict)
    upper: Mapping[str, float] = field(default_factory=dict)

    def chosen(self, table: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Which rows of a table belong to it."""
        picked = np.ones(len(table["system"]), dtype=bool)
        for column, value in self.only.items():
            picked &= table[column] == value
        return picked


def block_sparse_jobs(system: str) -> list[FitJob]:
    """By precision of the cache."""
    free: tuple[str, ...] = (
        "prefill_floor_us", "index_efficiency", "compute_efficiency", "query_ns",
        "decode_floor_us", "decode_efficiency", "scan_efficiency", "decode_query_ns", "cache_gain",
    )  # fmt: skip
    start = BlockSparseFit(cache_gain=0.5)
    if int(load_profile(system).compute_capability or 0) == DATACENTRE_BLACKWELL:
        start = replace(start, prefill_floor_us=60.0, index_efficiency=0.9, gather_efficiency=0.0)
    else:
        free = (*free, "gather_efficiency")
    upper = {"index_efficiency": 0.95, "compute_efficiency": 0.95, "decode_efficiency": 0.95, "scan_efficiency": 0.95}
    return [
        FitJob("block_sparse", key, ("msa_context", "msa_generation"), start, free, {"kv_cache_dtype": dtype}, upper)
        for key, dtype in {"bf16": "bfloat16", "fp8": "fp8"}.items()
    ]


def compressed_jobs() -> list[FitJob]:
    """By kind of step, and for the two parts that have a table."""
    tops = {"compute_efficiency": 0.95, "memory_efficiency": 0.95, "index_efficiency": 0.95}
    around = ("floor_us", "compute_efficiency", "memory_efficiency", "query_ns")
    indexed = ("index_efficiency", "choose_us", "choose_ns")
    attention = {"op_name": "dsv4_hca_attn_module"}
    scores = {"op_name": "dsv4_paged_mqa_logits_module"}
    prompt = CompressedFit(12.0, 0.6, 0.6, 10.0, 5.0, 0.7, 0.1, 40.0, 140.0)
    decode = CompressedFit(9.0, 0.6, 0.5, 10.0, index_efficiency=0.1, choose_us=2.0, choose_ns=5.0)
    part = CompressedFit(12.0, 0.6, 0.8, 20.0, 5.0)
    index = CompressedFit(5.0, index_efficiency=0.4, query_ns=2.0)
    return [
        FitJob(
            "compressed", "prefill", ("dsv4_context",), prompt, (*around, "chunk_us", "sequence_us", *indexed), {}, tops
        ),
        FitJob("compressed", "decode", ("dsv4_generation",), decode, (*around, *indexed), {}, tops),
        FitJob("compressed", "attention", ("dsv4_parts",), part, (*around, "chunk_us"), attention, tops),
        FitJob(
            "compressed", "index", ("dsv4_parts",), index, ("floor_us", "index_efficiency", "query_ns"), scores, tops
        ),
    ]


def hyper_connection_jobs() -> list[FitJob]:
    """Before a block, and after."""
    free = ("floor_us", "value_ns", "memory_efficiency", "cache_gain")
    start, tops = HyperConnectionFit(2.0, 0.3, 0.8, 2.0, 0.1), {"memory_efficiency": 0.95}
    return [
        FitJob("hyper_connections", "pre", ("mhc",), start, (*free, "compute_efficiency"), {"op_name": "pre"}, tops),
        FitJob(
            "hyper_connections",
            "post",
            ("mhc",),
            replace(start, compute_efficiency=1.0),
            free,
            {"op_name": "post"},
            tops,
        ),
    ]


def encoder_jobs(system: str) -> list[FitJob]:
    """One set; the kernel follows the compute capability, as in vLLM's ``get_flash_attn_version``."""
    kernels: dict[int, Literal["flash_attn_3", "flash_attn_4"]] = {
        9: "flash_attn_3",
        DATACENTRE_BLACKWELL: "flash_attn_4",
    }
    kernel = kernels.get(int(load_profile(system).compute_capability or 0), "flash_attn_2")
    start = EncoderFit(kernel, 5.0, 0.7, 0.6, 250.0, 1.0)
    free = ("floor_us", "compute_efficiency", "memory_efficiency", "exp_cost", "wave_us")
    tops = {"compute_efficiency": 0.95, "memory_efficiency": 0.95}
    return [FitJob("encoder_attention", "bf16", ("encoder_attention",), start, free, {"attn_dtype": "bfloat16"}, tops)]


def exchange_jobs() -> list[FitJob]:
    """By kernel and phase."""
    starts = {"deepep_ht": 150.0, "deepep_ll": 60.0, "deepep_v2_context": 250.0, "deepep_v2_generation": 200.0}
    free, tops = ("start_us", "efficiency"), {"efficiency": 1.0}
    found = []
    for backend, start_us in starts.items():
        for phase in ("dispatch", "combine"):
            only, key = {"comm_backend": backend, "phase": phase}, f"{backend}_{phase}"
            found.append(FitJob("expert_exchange", key, ("moe_a2a",), ExchangeFit(start_us, 0.3), free, only, tops))
    return found


def jobs_of(system: str) -> list[FitJob]:
    """Every parameter set of a system."""
    return [
        *block_sparse_jobs(system), *compressed_jobs(), *hyper_connection_jobs(), *encoder_jobs(system),
        *exchange_jobs(),
    ]  # fmt: skip
