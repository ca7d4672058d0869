"""Which parameter sets of latent and sparse attention, their products and quantising are fitted, and how.

Order counts: modules hold the products per head, and prompts the attention on the cache.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.fit.compressed_jobs import FitJob
from tuner.ask.latent_fits import (
    LatentDecodeFit,
    LatentPrefillFit,
    LatentProductsFit,
    QuantiseFit,
    SparseDecodeFit,
    SparsePrefillFit,
)
from tuner.ask.profile import HardwareProfile, load_profile

_HEADS = ("num_heads", "batch_size", "isl", "step")
TABLES = {  # of a kind: the columns that make a shape
    "mla_bmm": ("op_name", "num_tokens", "num_heads"),
    "mla_generation": _HEADS,
    "mla_context": _HEADS,
    "dsa_generation": _HEADS,
    "dsa_context": _HEADS,
    "quantize": ("op_name", "m", "k"),
}
# Systems with a table of modules that ran compiled. They show the small kernels, the others what these take more
# kernel by kernel, and B200, which has no such table, takes that from B300.
COMPILED = ("b200_sxm", "gb300", "l40s")
_APART_US, _APART_TOKEN_NS = 50.0, 17.0
_DECODE_FLOOR_US, _PREFILL_FLOOR_US, _PREFILL_TOKEN_BYTES = 6.0, 14.0, 25e3
_CACHES = {"bf16": "bfloat16", "fp8": "fp8"}
_SLOTS = {"filler": 1.0, "few_filler": 1.0}
_SHARES = {"compute_efficiency": 0.95, "memory_efficiency": 0.95}


def latent_jobs(system: str) -> list[FitJob]:
    """Every parameter set of a system."""
    profile = load_profile(system)
    return [
        _products_job(), *_decode_jobs(profile), *_prefill_jobs(profile), *_sparse_decode_jobs(),
        *_sparse_prefill_jobs(profile), _quantise_job(),
    ]  # fmt: skip


def _products_job() -> FitJob:
    start: Any = LatentProductsFit(3.5, 0.8, 0.8, cache_gain=1.0)
    return FitJob("latent_products", "bf16", ("mla_bmm",), start, _numbers(start), upper=_SHARES)


def _decode_jobs(profile: HardwareProfile) -> list[FitJob]:
    """Hopper's kernels take short prompts as well: FlashAttention up to 512 tokens, FlashMLA (fp8) up to 128."""
    start = LatentDecodeFit(20.0, 0.8, 2.0, 6.0, merge_us=5.0, token_ns=20.0, head_ns=3.0)
    start, free = _apart(start, profile.name, _DECODE_FLOOR_US)
    kinds = ("mla_generation", "mla_context") if profile.arch == "hopper" else ("mla_generation",)
    shortest = {"bf16": 512.0, "fp8": 128.0} if profile.arch == "hopper" else {}
    if not _datacentre(profile):  # Triton's
        start = replace(start, head_rows=16.0)
    return [
        FitJob("latent_decode", key, kinds, replace(start, absorb_tokens=shortest.get(key, 1.0)),
               free, {"kv_cache_dtype": cache, "mla_dtype": "bfloat16"}, _SHARES)
        for key, cache in _CACHES.items()
    ]  # fmt: skip


def _prefill_jobs(profile: HardwareProfile) -> list[FitJob]:
    kernel: Any = "flash_attn_3" if profile.arch == "hopper" else "trtllm"
    start = LatentPrefillFit(kernel, 15.0, 0.7, 300.0, 3.0, tail=0.5, token_ns=5.0, head_ns=0.5)
    if not _datacentre(profile):
        start = replace(start, kernel="flash_attn_2_ada", pads_values=True)
    upper = {"compute_efficiency": 1.2, "tail": 1.6}
    start, free = _apart(start, profile.name, _PREFILL_FLOOR_US)
    if "token_ns" not in free:
        start = replace(start, token_ns=_PREFILL_TOKEN_BYTES / profile.memory_bytes_per_s * 1e9)
    return [
        FitJob("latent_prefill", key, ("mla_context",), start, free, {"mla_dtype": dtype}, upper)
        for key, dtype in _CACHES.items()
    ]  # fmt: skip


def _apart(start: Any, system: str, floor_us: float) -> tuple[Any, tuple[str, ...]]:
    """The start of a set, and which of its fields are free on this system."""
    fixed = {"head_rows", "absorb_tokens", "pads_values", "kernel"}
    prompt = isinstance(start, LatentPrefillFit)
    if system not in COMPILED:
        fixed |= {"floor_us", "token_ns"} if prompt else {"floor_us"}
        start = replace(start, floor_us=floor_us)
    elif system != "gb300":  # the only one with both
        fixed |= {"apart_us", "apart_token_ns"}
    if system != "l40s":
        start = replace(start, apart_us=_APART_US)
        start = replace(start, apart_token_ns=_APART_TOKEN_NS) if prompt else start
    return start, _numbers(start, without=tuple(fixed))


def _sparse_decode_jobs() -> list[FitJob]:
    start: Any = SparseDecodeFit(
        100.0, 0.8, 1.0, 6.0, 6.0, 0.7, 0.1, filler=0.3, few_filler=0.3, long_us=10.0, token_ns=200.0, head_ns=1.0
    )
    upper = {"memory_efficiency": 0.95, "index_efficiency": 0.95} | _SLOTS
    return [
        FitJob("sparse_decode", key, ("dsa_generation",), start, _numbers(start), {"kv_cache_dtype": cache}, upper)
        for key, cache in _CACHES.items()
    ]  # fmt: skip


def _sparse_prefill_jobs(profile: HardwareProfile) -> list[FitJob]:
    """FlashMLA pads heads to 128 on Blackwell, but the kernel of fp8 caches there does not. The floor is set, near
    those of decode: launching hides it."""
    start: Any = SparsePrefillFit(
        80.0, 0.6, 0.4, 0.3, filler=0.3, few_filler=0.3, token_ns=100.0, head_ns=1.0, host_us=1300.0,
        host_quantised_us=400.0,
    )  # fmt: skip
    free = _numbers(start, without=("floor_us", "head_rows"))
    upper = {"compute_efficiency": 1.5, "few_efficiency": 1.5, "index_efficiency": 0.95} | _SLOTS
    wide = {"bf16": 128.0} if profile.arch == "blackwell" else {}
    return [
        FitJob("sparse_prefill", key, ("dsa_context",), replace(start, head_rows=wide.get(key, 64.0)), free,
               {"kv_cache_dtype": cache}, upper)
        for key, cache in _CACHES.items()
    ]  # fmt: skip


def _quantise_job() -> FitJob:
    start: Any = QuantiseFit(1.8, 0.8, 0.12, 70.0, 1.7, 1.0, 0.5, 0.08, 90.0, 0.3)
    return FitJob("quantise", "fp8", ("quantize",), start, _numbers(start), upper={"memory_efficiency": 0.95})


def _numbers(start: Any, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(name for name in start.__slots__ if name not in without)


def _datacentre(profile: HardwareProfile) -> bool:
    return profile.compute_capability in (9.0, 10.0, 10.3)
