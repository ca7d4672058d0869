"""Which parameter sets are fitted, from which start, with which fields free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.fit.tables import rows_where
from tuner.ask.kernel_fits import DecodeAttentionFit, GemmFit, MoeFit, PrefillAttentionFit

SYSTEMS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s")
Fit = GemmFit | PrefillAttentionFit | DecodeAttentionFit | MoeFit


@dataclass(frozen=True, slots=True)
class Job:
    """One parameter set: where it goes, its start, which of its fields are fitted, and the rows it is fitted to: those
    of ``dtypes``, and of Marlin's kernels alone, or of all others, where ``marlin`` says so."""

    system: str
    section: str
    key: str
    start: Fit
    free: tuple[str, ...]
    dtypes: tuple[str, ...]
    marlin: bool | None = None


def gemm_jobs(system: str) -> list[Job]:
    """Parameter sets of the matrix product by precision."""
    old = system in ("a100_sxm", "l40s")  # no thread-block clusters: partly filled waves cost more
    bf16 = GemmFit("cublas", 3.0, 0.8, 0.8, split_k=2000.0, wave_us=0.4, wave_rounding=0.45 if old else 0.04)
    free: tuple[str, ...] = ("floor_us", "compute_efficiency", "memory_efficiency", "split_k", "wave_us")
    if system == "l40s":
        bf16, free = replace(bf16, cache_gain=5.0), (*free, "cache_gain")
    jobs = [Job(system, "gemm", "bf16", bf16, free, ("bfloat16",))]
    if system != "a100_sxm":
        jobs += [_fp8_job(system), _fp8_block_job(system)]
    if system == "b200_sxm":
        nvfp4 = GemmFit("block", 4.0, 0.8, 0.75, wave_us=1.0)
        free = ("floor_us", "compute_efficiency", "memory_efficiency", "wave_us")
        jobs.append(Job(system, "gemm", "nvfp4", nvfp4, free, ("nvfp4",)))
    return jobs


def _fp8_job(system: str) -> Job:
    start = GemmFit("cutlass_hopper", 4.0, 0.8, 0.75, wave_us=1.0, epilogue_ps=0.5)
    if system == "b200_sxm":
        start = replace(start, kernel="cutlass_blackwell")
    if system == "l40s":
        start = replace(start, kernel="cutlass_ada", cache_gain=5.7)
    free = ("floor_us", "compute_efficiency", "memory_efficiency", "wave_us", "epilogue_ps")
    return Job(system, "gemm", "fp8", start, free, ("fp8",))


def _fp8_block_job(system: str) -> Job:
    """The launch path hides the product's own floor: that one is set, not fitted."""
    start = GemmFit("block", 6.0, 0.75, 0.85, wave_us=1.0, host_us=150.0)
    free: tuple[str, ...] = ("compute_efficiency", "memory_efficiency", "wave_us", "host_us")
    if system == "l40s":
        start, free = replace(start, k_step_ns=5.0), (*free, "k_step_ns")
    else:
        start, free = replace(start, host_unaligned_us=10.0), (*free, "host_unaligned_us")
    if system in ("h100_sxm", "h200_sxm"):
        start, free = replace(start, host_small_us=58.0), (*free, "host_small_us")
    return Job(system, "gemm", "fp8_block", start, free, ("fp8_block",))


def attention_jobs(system: str) -> list[Job]:
    """Parameter sets of prefill and decode attention by KV-cache precision."""
    caches = {"bf16": "bfloat16"} if system == "a100_sxm" else {"bf16": "bfloat16", "fp8": "fp8"}
    return [
        job(system, key, dtype)
        for job in (_prefill_job, _decode_job)
        for key, dtype in caches.items()
    ]  # fmt: skip


def _prefill_job(system: str, key: str, dtype: str) -> Job:
    start = PrefillAttentionFit("flash_attn_3", 10.0, 0.7, 0.5, 300.0, 2.0, 0.5, 0.5)
    if system == "a100_sxm":
        start = replace(start, kernel="flash_attn_2")
    if system == "b200_sxm":
        start = replace(start, kernel="trtllm")
    if system == "l40s":
        start = replace(start, kernel="flash_attn_2_ada" if key == "bf16" else "flashinfer")
    free: tuple[str, ...] = (
        "floor_us", "compute_efficiency", "memory_efficiency", "exp_cost", "wave_us", "cache_write_ns", "tail",
    )  # fmt: skip
    if key == "fp8":
        start, free = replace(start, wide_head_penalty=0.2), (*free, "wide_head_penalty")
    return Job(system, "attention_prefill", key, start, free, (dtype,))


def _decode_job(system: str, key: str, dtype: str) -> Job:
    start = DecodeAttentionFit("split_keys", 8.0, 0.8, 2.0, 8.0, merge_us=2.0, head_ns=0.5)
    free: tuple[str, ...] = ("floor_us", "memory_efficiency", "unit_us", "key_ns", "merge_us", "head_ns")
    if key == "bf16" and system in ("a100_sxm", "l40s"):
        start, free = replace(start, kernel="flash_attn_2", copy_us=5.0), (*free, "copy_us")
    elif system != "b200_sxm":
        start, free = replace(start, window_us=3.0), (*free, "window_us")
    if system == "l40s":
        start = replace(start, cache_gain=2.0)
    return Job(system, "attention_decode", key, start, free, (dtype,))


def moe_jobs(system: str) -> list[Job]:
    """Parameter sets of the expert products by precision; 4-bit integers run on Marlin's kernels, mxfp4 may, and on
    Ada does."""
    names = {"bf16": ("bfloat16",), "fp8": ("fp8",), "fp8_block": ("fp8_block",), "nvfp4": ("nvfp4",)}
    four_bits = ("w4a16_mxfp4", "int4_wo")
    jobs = [_moe_job(system, key, dtypes) for key, dtypes in names.items()]
    if system == "l40s":
        return [*jobs, _moe_job(system, "mxfp4", four_bits)]
    return [*jobs, replace(_moe_job(system, "mxfp4", four_bits), marlin=False), _marlin_job(system, four_bits)]


def _marlin_job(system: str, dtypes: tuple[str, ...]) -> Job:
    """Few rows: only what they all show is fitted."""
    start = MoeFit(35.0, 0.4, 0.8, elsewhere_efficiency=0.3)
    free = ("floor_us", "compute_efficiency", "memory_efficiency", "elsewhere_efficiency")
    return Job(system, "moe", "int4", start, free, dtypes, marlin=True)


def _moe_job(system: str, key: str, dtypes: tuple[str, ...]) -> Job:
    """Triton's kernels also sort, pad and sum rows routed elsewhere; CUTLASS's and TensorRT-LLM's skip them."""
    start = MoeFit(35.0, 0.5, 0.8, 0.5, expert_us=0.1)
    free: tuple[str, ...] = ("floor_us", "compute_efficiency", "memory_efficiency", "rows_efficiency", "expert_us")
    skips = {
        "b200_sxm": ("bf16", "fp8", "nvfp4", "mxfp4"),
        "h100_sxm": ("fp8", "fp8_block"),
        "h200_sxm": ("fp8", "fp8_block"),
    }
    if key not in skips.get(system, ()):
        start, free = replace(start, elsewhere_efficiency=0.5), (*free, "elsewhere_efficiency")
    return Job(system, "moe", key, start, free, dtypes)


def all_jobs() -> list[Job]:
    """Every parameter set that is fitted."""
    return [job for name in SYSTEMS for job in (*gemm_jobs(name), *attention_jobs(name), *moe_jobs(name))]


def rows_of(job: Job, table: Mapping[str, Any]) -> dict[str, Any]:
    """The rows that belong to a job."""
    column = {"gemm": "gemm_dtype", "moe": "moe_dtype"}.get(job.section, "kv_cache_dtype")
    chosen = (table["system"] == job.system) & np.isin(table[column], job.dtypes)
    if job.marlin is not None:
        chosen &= np.array(["marlin" in source for source in table["kernel_source"]]) == job.marlin
    return rows_where(table, chosen)
