"""Which parameter sets are fitted, from which start, with which fields free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.fit.tables import rows_where
from tuner.profile import DecodeAttentionFit, GemmFit, MoeFit, PrefillAttentionFit

SYSTEMS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s")
Fit = GemmFit | PrefillAttentionFit | DecodeAttentionFit | MoeFit


@dataclass(frozen=True, slots=True)
class Job:
    """One parameter set: where it goes, its start, which of its fields are fitted, and the rows it is fitted to."""

    system: str
    section: str
    key: str
    start: Fit
    free: tuple[str, ...]
    dtypes: tuple[str, ...]


def gemm_jobs(system: str) -> list[Job]:
    """Parameter sets of the matrix product by precision."""
    bf16 = GemmFit("cublas", 3.0, 0.8, 0.8, split_k=2000.0, wave_us=0.4,
                   wave_rounding=0.45 if system in ("a100_sxm", "l40s") else 0.04)  # fmt: skip
    free: tuple[str, ...] = ("floor_us", "compute_efficiency", "memory_efficiency", "split_k", "wave_us")
    if system == "l40s":
        bf16, free = replace(bf16, cache_gain=5.0), (*free, "cache_gain")
    jobs = [Job(system, "gemm", "bf16", bf16, free, ("bfloat16",))]
    if system == "a100_sxm":
        return jobs
    family = {"l40s": "cutlass_ada", "b200_sxm": "cutlass_blackwell"}.get(system, "cutlass_hopper")
    fixed = GemmFit(family, 4.0, 0.8, 0.75, quantise_ps=2.2, k_step_ns=0.65, wave_us=1.0, epilogue_ps=0.5,
                    unaligned_penalty=0.0 if system == "l40s" else 0.14)  # fmt: skip
    free = ("floor_us", "compute_efficiency", "memory_efficiency", "wave_us", "epilogue_ps")
    fp8 = replace(fixed, cache_gain=5.7) if system == "l40s" else fixed
    jobs.append(Job(system, "gemm", "fp8", fp8, free, ("fp8",)))
    host = GemmFit("block", 6.0, 0.75, 0.85, quantise_ps=2.2, k_step_ns=0.65, wave_us=1.0, host_us=150.0)
    host_free: tuple[str, ...] = ("compute_efficiency", "memory_efficiency", "wave_us", "host_us")
    if system != "l40s":
        host, host_free = replace(host, host_unaligned_us=10.0), (*host_free, "host_unaligned_us")
    else:
        host, host_free = replace(host, k_step_ns=5.0), (*host_free, "k_step_ns")
    if system in ("h100_sxm", "h200_sxm"):
        host, host_free = replace(host, host_small_us=58.0), (*host_free, "host_small_us")
    jobs.append(Job(system, "gemm", "fp8_block", host, host_free, ("fp8_block",)))
    if system == "b200_sxm":
        nvfp4 = replace(fixed, kernel="block", quantise_ps=0.45, unaligned_penalty=0.0, epilogue_ps=0.0)
        nv_free = ("floor_us", "compute_efficiency", "memory_efficiency", "wave_us", "quantise_ps")
        jobs.append(Job(system, "gemm", "nvfp4", nvfp4, nv_free, ("nvfp4",)))
    return jobs


def attention_jobs(system: str) -> list[Job]:
    """Parameter sets of prefill and decode attention by KV-cache precision."""
    jobs = []
    for key, dtype in (("bf16", "bfloat16"), ("fp8", "fp8")):
        if system == "a100_sxm" and key == "fp8":
            continue
        ada = "flash_attn_2_ada" if key == "bf16" else "flashinfer"
        name = {"a100_sxm": "flash_attn_2", "l40s": ada, "b200_sxm": "trtllm"}.get(system, "flash_attn_3")
        prefill = PrefillAttentionFit(name, 10.0, 0.7, 0.5, 300.0, 2.0, 0.5, 0.5, 0.1)  # type: ignore[arg-type]
        free = ("floor_us", "compute_efficiency", "memory_efficiency", "exp_cost", "wave_us", "cache_write_ns", "tail",
                "wide_head_penalty")  # fmt: skip
        jobs.append(Job(system, "attention_prefill", key, prefill, free, (dtype,)))
        old = key == "bf16" and system in ("a100_sxm", "l40s")
        decode = DecodeAttentionFit("flash_attn_2" if old else "split_keys", 8.0, 0.8, 2.0, 8.0, 2.0, 3.0, 0.0, 0.5)
        free = ("floor_us", "memory_efficiency", "unit_us", "key_ns", "merge_us", "head_ns")
        if old:
            decode, free = replace(decode, copy_us=5.0, window_us=0.0), (*free, "copy_us")
        else:
            free = (*free, "window_us")
        if system in ("l40s", "b200_sxm"):
            decode = replace(decode, cache_gain=2.0)
        jobs.append(Job(system, "attention_decode", key, decode, free, (dtype,)))
    return jobs


def moe_jobs(system: str) -> list[Job]:
    """Parameter sets of the expert products by precision."""
    names = {"bf16": ("bfloat16",), "fp8": ("fp8",), "fp8_block": ("fp8_block",), "nvfp4": ("nvfp4",),
             "mxfp4": ("w4a16_mxfp4", "int4_wo"), "mxfp4_fp8": ("w4a8_mxfp4_mxfp8",)}  # fmt: skip
    start = MoeFit(35.0, 0.5, 0.8, 0.5, 0.5, 0.1)
    free = (
        "floor_us",
        "compute_efficiency",
        "memory_efficiency",
        "rows_efficiency",
        "elsewhere_efficiency",
        "expert_us",
    )
    return [Job(system, "moe", key, start, free, dtypes) for key, dtypes in names.items()]


def all_jobs() -> list[Job]:
    """Every parameter set that is fitted."""
    return [job for name in SYSTEMS for job in (*gemm_jobs(name), *attention_jobs(name), *moe_jobs(name))]


def rows_of(job: Job, table: Mapping[str, Any]) -> dict[str, Any]:
    """The rows that belong to a job."""
    column = {"gemm": "gemm_dtype", "moe": "moe_dtype"}.get(job.section, "kv_cache_dtype")
    return rows_where(table, (table["system"] == job.system) & np.isin(table[column], job.dtypes))
