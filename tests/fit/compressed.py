"""Fit the sections of the hardware profiles for kernels that few models need to tables of measured kernels.

    python -m tests.fit.compressed --data DIR [--kind SECTION ...] [--held-out] [--write]

DIR holds the tables of ``TABLES`` as NAME_dev.csv. Without ``--write`` the fits are printed with their error; with it,
the sections of tuner/ask/profiles/*.yaml are replaced. Systems without a profile are left out. ``--held-out`` also fits
each set twice, without either half of the shapes, and prints the error on the half that it did not see. A shape is all
rows of one tuple of sizes, over all systems. Least squares of log(predicted / measured), outliers count linearly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from tests.fit.compressed_jobs import TABLES, Fit, FitJob, jobs_of
from tests.fit.tables import halves, read_table, rows_where
from tests.fit.write import write_section
from tuner.ask.profile import PROFILE_DIR, HardwareProfile, known_profiles, load_profile
from tuner.validate.operations import predict_rows_with

Array = NDArray[np.float64]


def measured(table: Mapping[str, Any]) -> Array:
    """The measured column, in the unit in which its kind is predicted."""
    return np.asarray(table["latency_ms"] if "latency_ms" in table else table["latency_us"])


Predict = Callable[[HardwareProfile], Array]
PULL_TO_START = 0.002  # weight of (log parameter - log start)^2 per row: decides what the data leave open
SOFT = 0.08  # residuals beyond this many log units count linearly
SOURCE = (
    "fitted by tests/fit/compressed.py to kernels of vLLM 0.24 measured on this device (tables of the"
    " AIConfigurator project)"
)


def with_fit(profile: HardwareProfile, job: FitJob, found: Fit) -> HardwareProfile:
    """The profile with one parameter set replaced."""
    section: dict[str, Any] = {job.section: {**getattr(profile, job.section), job.key: found}}
    return replace(profile, **section)


def predictor(job: FitJob, rows: Mapping[str, Mapping[str, Any]]) -> Predict:
    """Milliseconds of all rows of all tables of a job."""
    return lambda profile: np.concatenate([predict_rows_with(profile, kind, table) for kind, table in rows.items()])


def fit(job: FitJob, profile: HardwareProfile, rows: Mapping[str, Mapping[str, Any]]) -> Fit:
    """The job's parameters that fit the rows of its tables best."""
    target = np.log(np.concatenate([measured(table) for table in rows.values()]))
    start = np.array([getattr(job.start, name) for name in job.free])
    predict = predictor(job, rows)

    def parameters(step: Array) -> Fit:
        return replace(job.start, **dict(zip(job.free, (start * np.exp(step)).tolist(), strict=True)))

    def residuals(step: Array) -> Array:
        error = np.log(predict(with_fit(profile, job, parameters(step)))) - target
        return np.concatenate([error, np.sqrt(PULL_TO_START * len(target)) * 0.1 * step])

    upper = np.array([np.log(job.upper[name] / value) if name in job.upper else 6.0
                      for name, value in zip(job.free, start, strict=True)])  # fmt: skip
    bounds = (-6.0, np.maximum(upper, 1e-6))
    return parameters(least_squares(residuals, np.zeros(len(start)), bounds=bounds, loss="soft_l1", f_scale=SOFT).x)


def errors(
    job: FitJob, profile: HardwareProfile, found: Fit, rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, Array]:
    """Percent error of every row, by table."""
    fitted = with_fit(profile, job, found)
    return {
        kind: 100 * np.abs(predict_rows_with(fitted, kind, table) / measured(table) - 1) for kind, table in rows.items()
    }


def held_out_errors(job: FitJob, profile: HardwareProfile, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    """The same by parameters that saw the other half of the shapes only."""
    half = {kind: halves(table, TABLES[kind]) for kind, table in rows.items()}
    found: dict[str, Array] = {kind: np.zeros(0) for kind in rows}
    for left_out in (0, 1):
        seen = {kind: rows_where(table, half[kind] != left_out) for kind, table in rows.items()}
        unseen = {kind: rows_where(table, half[kind] == left_out) for kind, table in rows.items()}
        for kind, some in errors(job, profile, fit(job, profile, seen), unseen).items():
            found[kind] = np.concatenate([found[kind], some])
    return found


def report(given: argparse.Namespace, tables: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Fit]]:
    """Fit every job that has rows, print its errors, and return the parameters by system and section."""
    found: dict[tuple[str, str], dict[str, Fit]] = {}
    every: dict[str, list[Array]] = {}
    for system in sorted(set(known_profiles()).intersection(*[np.concatenate([t["system"] for t in tables.values()])])):
        profile = load_profile(system)
        for job in jobs_of(system):
            rows = {
                k: rows_where(tables[k], job.chosen(tables[k]) & (tables[k]["system"] == system))
                for k in job.kinds
                if k in tables
            }
            rows = {kind: table for kind, table in rows.items() if len(measured(table))}
            if not rows:
                continue
            best = fit(job, profile, rows)
            found.setdefault((system, job.section), {})[job.key] = best
            print(system, job.section, job.key, best)
            unseen = held_out_errors(job, profile, rows) if given.held_out else {}
            for kind, seen in errors(job, profile, best, rows).items():
                print(
                    f"    {kind:18} {len(seen):5d} rows, median {np.median(seen):5.1f} %, mean {seen.mean():5.1f} %",
                    end="",
                )
                if kind in unseen:
                    every.setdefault(kind, []).append(unseen[kind])
                    print(f"; held out {np.median(unseen[kind]):5.1f} %, mean {unseen[kind].mean():5.1f} %", end="")
                print(flush=True)
    for kind, parts in every.items():
        whole = np.concatenate(parts)
        print(f"{kind}: held out median {np.median(whole):.1f} %, mean {whole.mean():.1f} % of {len(whole)} rows")
    return found


def main() -> None:
    """Fit everything, print it, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", nargs="*", default=list(TABLES), choices=list(TABLES), help="tables, all by default")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    tables = {kind: read_table(given.data / f"{kind}_dev.csv") for kind in given.kind}
    found = report(given, tables)
    if given.write:
        for (system, section), fits in found.items():
            write_section(PROFILE_DIR / f"{system}.yaml", section, fits, SOURCE)


if __name__ == "__main__":
    main()
