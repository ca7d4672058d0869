"""Fit the profiles' section ``linear_attention`` to tables of measured kernels.

    python -m tests.fit.linear --data DIR [--held-out] [--write]

DIR holds gdn_dev.csv, kda_dev.csv and mamba2_trtllm_dev.csv. Every device of the tables that has a profile is fitted;
each kernel's parameters are printed with their median error. ``--held-out`` refits without one fifth of the head counts
(all rows of a layout of heads), then without one fifth of the batch sizes, and prints the errors on what was left out.
``--write`` replaces the sections of tuner/ask/profiles/*.yaml. Least squares of log(predicted / measured) as in
tests/fit/compute.py.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from tests.fit.compute import PULL_TO_START, SOFT
from tests.fit.tables import FOLDS, read_table, rows_where
from tests.fit.write import write_section
from tuner.ask.linear_fits import (
    LINEAR,
    ChannelConvolutionFit,
    ChunkFit,
    ConvolutionFit,
    LinearAttentionFits,
    RecurrentFit,
    UpdateFit,
)
from tuner.ask.profile import PROFILE_DIR, HardwareProfile, known_profiles, load_profile
from tuner.validate.operations import predict_rows_with

Table = Mapping[str, Any]
Mask = NDArray[np.bool_]
SOURCE = (
    "fitted by tests/fit/linear.py to gdn (vLLM 0.24) and kda (a nightly build of mid-2026, 0.27) kernels and, the"
    " convolution by channels, to TensorRT-LLM 1.3 measured on this device (tables of the AIConfigurator project); no"
    " scan of Mamba was measured"
)
NO_GAIN = 0.05  # a cache that gains less is left out
UPPER = {"memory_efficiency": 0.95}
LOWER = {"convolution": {"memory_efficiency": 0.6}}  # programs, not bytes, bound it where memory is fast
SPLITS = {"heads": ("num_k_heads", "num_v_heads", "nheads", "d_model", "d_state"), "batches": ("batch_size",)}


@dataclass(frozen=True, slots=True)
class LinearJob:
    """One field of the section: its start, which of its parameters are free, and the rows that it is fitted to."""

    name: str
    start: Any
    free: tuple[str, ...]
    rows: Callable[[str, Table], Mask]
    kinds: tuple[str, ...]


def _sources(*names: str) -> Callable[[str, Table], Mask]:
    return lambda _, table: np.isin(table["kernel_source"], names)


def _with_host(_: str, table: Table) -> Mask:
    """Convolutions that the host laid out anew for every launch."""
    nightly = np.array([str(release).startswith("0.1.") for release in table["vllm"]])
    return np.asarray((table["kernel_source"] == "causal_conv1d_fn_qkv3") & nightly)


def _chunk(kernel: Literal["flashinfer", "flashkda", "triton"]) -> tuple[ChunkFit, tuple[str, ...]]:
    free = ("floor_us", "unit_us", "chunk_us", "memory_efficiency")
    if kernel == "triton":
        return ChunkFit(kernel, fill_us=8.0, chunk_us=1.0, cache_gain=1.0), (*free, "fill_us", "cache_gain")
    start = ChunkFit(kernel, chunk_us=2.5)
    return (start, free) if kernel == "flashinfer" else (replace(start, cache_gain=1.0), (*free, "cache_gain"))


def jobs(gdn: Literal["flashinfer", "triton"], kda: Literal["flashkda", "triton"]) -> list[LinearJob]:
    """Every parameter set of a device whose chunked rules are of these kernels."""
    bytes_too = ("memory_efficiency", "cache_gain")
    updates = _sources("causal_conv1d_update")
    rules = _sources("chunk_gated_delta_rule_flashinfer", "chunk_gated_delta_rule_triton")
    recurrences = _sources(
        "fused_recurrent_gated_delta_rule_packed_decode", "fused_recurrent_kda_packed_decode", "fused_recurrent_kda",
        "fused_kda_decode",
    )  # fmt: skip
    convolutions = _sources("causal_conv1d_fn")
    warm = ConvolutionFit(cache_gain=1.0)
    by_channel = ChannelConvolutionFit(cache_gain=1.0)
    return [
        LinearJob("convolution", warm, ("floor_us", "program_us", *bytes_too), convolutions, ("gdn",)),
        LinearJob("convolution", None, ("host_us",), _with_host, ("kda",)),
        LinearJob(
            "channel_convolution", by_channel, ("floor_us", "block_us", *bytes_too), convolutions, ("mamba2_trtllm",)
        ),
        LinearJob(
            "convolution_update", UpdateFit(cache_gain=0.5), ("floor_us", "alone_us", *bytes_too), updates,
            ("gdn", "kda", "mamba2_trtllm"),
        ),
        LinearJob("gdn_chunk", *_chunk(gdn), rules, ("gdn",)),
        LinearJob("kda_chunk", *_chunk(kda), _sources("flashkda_fwd", "chunk_kda_with_fused_gate"), ("kda",)),
        LinearJob(
            "recurrent", RecurrentFit(cache_gain=0.5),
            ("floor_us", "latency_us", "fused_us", "drafts_us", *bytes_too), recurrences, ("gdn", "kda"),
        ),
    ]  # fmt: skip


def jobs_of(system: str, tables: Mapping[str, Table]) -> list[LinearJob]:
    """The jobs of a device; which kernels run its chunked rules is told by the tables."""
    found = {kind: " ".join(np.unique(t["kernel_source"][t["system"] == system])) for kind, t in tables.items()}
    return jobs(
        "flashinfer" if "flashinfer" in found["gdn"] else "triton",
        "flashkda" if "flashkda" in found["kda"] else "triton",
    )


def with_linear(profile: HardwareProfile, name: str, parameters: Any) -> HardwareProfile:
    """The profile with one parameter set of the section replaced."""
    return replace(profile, linear_attention=replace(profile.linear_attention, **{name: parameters}))


def predicted(profile: HardwareProfile, rows: Mapping[str, Table]) -> NDArray[np.float64]:
    """Milliseconds of the rows of several kinds, one after the other."""
    return np.concatenate([predict_rows_with(profile, kind, table) for kind, table in rows.items()])


def measured(rows: Mapping[str, Table]) -> NDArray[np.float64]:
    """What was measured of them."""
    return np.concatenate([np.asarray(table["latency_ms"], dtype=float) for table in rows.values()])


def fit_job(job: LinearJob, profile: HardwareProfile, rows: Mapping[str, Table]) -> HardwareProfile:
    """The profile with the job's parameters as they fit the rows best."""
    base = job.start if job.start is not None else getattr(profile.linear_attention, job.name)
    start = np.array([getattr(base, name) for name in job.free])
    target = np.log(measured(rows))

    def candidate(step: NDArray[np.float64]) -> HardwareProfile:
        values = dict(zip(job.free, (start * np.exp(step)).tolist(), strict=True))
        return with_linear(profile, job.name, replace(base, **values))

    def residuals(step: NDArray[np.float64]) -> NDArray[np.float64]:
        error = np.log(predicted(candidate(step), rows)) - target
        return np.concatenate([error, np.sqrt(PULL_TO_START * len(target)) * 0.1 * step])

    lower = LOWER.get(job.name, {})
    low = [
        np.log(lower[name] / value) - 1e-9 if name in lower else -6.0
        for name, value in zip(job.free, start, strict=True)
    ]
    high = [np.log(UPPER[name] / value) if name in UPPER else 6.0 for name, value in zip(job.free, start, strict=True)]
    bounds = (np.array(low), np.maximum(np.array(high), 1e-6))
    found = least_squares(residuals, np.zeros(len(start)), bounds=bounds, loss="soft_l1", f_scale=SOFT)
    best = candidate(found.x)
    if "cache_gain" in job.free and getattr(best.linear_attention, job.name).cache_gain < NO_GAIN:
        less = tuple(name for name in job.free if name != "cache_gain")
        return fit_job(replace(job, start=replace(base, cache_gain=0.0), free=less), profile, rows)
    return best


def rows_of_job(job: LinearJob, system: str, tables: Mapping[str, Table]) -> dict[str, Table]:
    """The rows of one device that belong to a job, by kind; without kinds that have none."""
    found: dict[str, Table] = {}
    for kind in job.kinds:
        table = tables[kind]
        chosen = (table["system"] == system) & job.rows(system, table)
        if chosen.any():
            found[kind] = rows_where(table, chosen)
    return found


def held_out(job: LinearJob, profile: HardwareProfile, rows: Mapping[str, Table], split: str) -> dict[str, list[float]]:
    """Percent errors, by kind and phase, of rows left out of the fit: a fifth of the layouts or batches at a time."""
    folds = {kind: _folds(table, SPLITS[split]) for kind, table in rows.items()}
    errors: dict[str, list[float]] = {}
    for left_out in range(FOLDS):
        seen = {k: rows_where(t, folds[k] != left_out) for k, t in rows.items() if (folds[k] != left_out).any()}
        unseen = {k: rows_where(t, folds[k] == left_out) for k, t in rows.items() if (folds[k] == left_out).any()}
        trained = fit_job(job, profile, seen) if seen else None
        for kind, table in unseen.items() if trained else ():
            found = 100 * np.abs(predict_rows_with(trained, kind, table) / table["latency_ms"] - 1)
            for phase, error in zip(table["phase"], found, strict=True):
                for name in (f"{kind} {phase}", f"{kind} (all)"):
                    errors.setdefault(name, []).append(float(error))
    return errors


def _folds(table: Table, names: tuple[str, ...]) -> NDArray[np.int64]:
    columns = [table[name] for name in names if name in table]
    return np.array([zlib.crc32(repr([float(x) for x in row]).encode()) % FOLDS for row in zip(*columns, strict=True)])


def fitted(system: str, tables: Mapping[str, Table], left_out: dict[str, dict[str, list[float]]]) -> HardwareProfile:
    """The device's profile with its section fitted, printing each kernel's error; where ``left_out`` has splits, those
    of rows left out of the fit too, which are added to it."""
    profile = replace(load_profile(system), linear_attention=LinearAttentionFits())
    for job in jobs_of(system, tables):
        rows = rows_of_job(job, system, tables)
        if not rows:
            continue
        held = []
        for split, all_errors in left_out.items():
            errors = held_out(job, profile, rows, split)
            held.append(f"{np.median(np.concatenate(list(errors.values()))):5.1f}" if errors else "    -")
            for name, found in errors.items():
                all_errors.setdefault(name, []).extend(found)
        profile = fit_job(job, profile, rows)
        error = 100 * np.abs(predicted(profile, rows) / measured(rows) - 1)
        print(
            f"{system:12} {job.name:28} {len(error):4d} {np.median(error):5.1f} {np.percentile(error, 90):5.1f}", *held
        )
    return profile


def changed(found: LinearAttentionFits) -> dict[str, Any]:
    """The parameter sets that differ from the assumed ones, by name."""
    assumed = LinearAttentionFits()
    sets = {item.name: getattr(found, item.name) for item in fields(found)}
    return {name: value for name, value in sets.items() if asdict(value) != asdict(getattr(assumed, name))}


def main() -> None:
    """Fit every device, print the errors, and write the sections where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    tables = {kind: read_table(given.data / f"{kind}_dev.csv") for kind in ("gdn", "kda", "mamba2_trtllm")}
    left_out: dict[str, dict[str, list[float]]] = {split: {} for split in SPLITS} if given.held_out else {}
    print("device       kernel                       rows  med   p90", *(f"without {split}" for split in left_out))
    for system in np.unique(np.concatenate([table["system"] for table in tables.values()])):
        if str(system) not in known_profiles():
            print(f"{system}: no profile")
            continue
        found = changed(fitted(str(system), tables, left_out).linear_attention)
        if given.write:
            write_section(PROFILE_DIR / f"{system}.yaml", LINEAR, found, SOURCE)
    for split, errors in left_out.items():
        for name, values in sorted(errors.items()):
            figures = f"median {np.median(values):.1f}, mean {np.mean(values):.1f} %"
            print(f"{name:28} {len(values):5d} rows, without {split}: {figures}")


if __name__ == "__main__":
    main()
