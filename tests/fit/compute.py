"""Fit the kernel parameters of the hardware profiles to tables of measured kernels.

    python -m tests.fit.compute --data DIR [--write]

DIR holds gemm_dev.csv, attention_context_dev.csv, attention_generation_dev.csv and moe_dev.csv. Without ``--write``
the fits are printed with their error; with it, the sections of tuner/ask/profiles/*.yaml are replaced. Parameters are
fitted in log space, least squares of log(predicted / measured) with a soft-L1 loss (outliers count linearly).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from tests.fit.jobs import Fit, Job, all_jobs, rows_of
from tests.fit.tables import FILES, KINDS, read_table
from tests.fit.write import write_section
from tuner.ask.profile import PROFILE_DIR, HardwareProfile, load_profile
from tuner.validate.operations import predict_rows_with

PULL_TO_START = 0.002  # weight of (log parameter - log start)^2 per row: decides what the data leave open
SOFT = 0.08  # residuals beyond this many log units count linearly
SOURCE = (
    "fitted by tests/fit/compute.py to {kind} kernels of vLLM {release} measured on this device (tables of the"
    " AIConfigurator project)"
)
UPPER = {
    "compute_efficiency": 1.2,  # attention over an fp8 cache may beat the bf16 peak that it is counted against
    "memory_efficiency": 0.95,
    "tail": 1.6,
    "wide_head_penalty": 0.6,
    "rows_efficiency": 1.0,
    "elsewhere_efficiency": 4.0,
}


def fit(job: Job, profile: HardwareProfile, rows: Mapping[str, Any]) -> Fit:
    """The job's parameters that fit the rows best."""
    measured = np.log(rows["latency_ms"])
    start = np.array([getattr(job.start, name) for name in job.free])
    kind = KINDS[job.section]

    def residuals(step: NDArray[np.float64]) -> NDArray[np.float64]:
        candidate = with_fit(profile, job, parameters(step))
        error = np.log(predict_rows_with(candidate, kind, rows)) - measured
        return np.concatenate([error, np.sqrt(PULL_TO_START * len(measured)) * 0.1 * step])

    def parameters(step: NDArray[np.float64]) -> Fit:
        return replace(job.start, **dict(zip(job.free, (start * np.exp(step)).tolist(), strict=True)))

    limits = UPPER if job.section.startswith("attention") else UPPER | {"compute_efficiency": 0.95}
    upper = np.array(
        [np.log(limits[name] / value) if name in limits else 6.0 for name, value in zip(job.free, start, strict=True)]
    )
    found = least_squares(
        residuals, np.zeros(len(start)), bounds=(-6.0, np.maximum(upper, 1e-6)), loss="soft_l1", f_scale=SOFT
    )
    return parameters(found.x)


def with_fit(profile: HardwareProfile, job: Job, parameters: Fit) -> HardwareProfile:
    """The profile with one parameter set replaced."""
    section = {**getattr(profile, job.section), job.key: parameters}
    return replace(profile, **{job.section: section})


def main() -> None:
    """Fit everything, print it, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    tables = {kind: read_table(given.data / name) for kind, name in FILES.items()}
    found: dict[tuple[str, str], dict[str, Fit]] = {}
    for job in all_jobs():
        rows = rows_of(job, tables[KINDS[job.section]])
        if not len(rows["latency_ms"]):
            continue
        profile = load_profile(job.system)
        best = fit(job, profile, rows)
        found.setdefault((job.system, job.section), {})[job.key] = best
        error = predict_rows_with(with_fit(profile, job, best), KINDS[job.section], rows) / rows["latency_ms"] - 1
        median = 100 * np.median(np.abs(error))
        print(f"{job.system} {job.section} {job.key} {len(error)} rows, median {median:.1f} % {best}")
    if given.write:
        for (system, section), fits in found.items():
            source = SOURCE.format(kind=KINDS[section], release="0.14" if system == "a100_sxm" else "0.24")
            write_section(PROFILE_DIR / f"{system}.yaml", section, fits, source)


if __name__ == "__main__":
    main()
