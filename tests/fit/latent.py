"""Fit what the hardware profiles say of latent and sparse attention, and of quantising, to tables of measured kernels.

    python -m tests.fit.latent --data DIR [--system NAME ...] [--held-out] [--write]

DIR holds the tables of ``TABLES`` as NAME_dev.csv. Without ``--write`` the fits are printed with their error; with it,
the sections of tuner/ask/profiles/*.yaml are replaced. Systems without a profile are left out. ``--held-out`` fits each
set twice more, without either half of the shapes, and prints the errors on the half that it did not see.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fit.compressed import fit, with_fit
from tests.fit.compressed_jobs import FitJob
from tests.fit.latent_jobs import TABLES, latent_jobs
from tests.fit.tables import halves, read_table, rows_where
from tests.fit.write import write_section
from tuner.ask.profile import PROFILE_DIR, HardwareProfile, known_profiles, load_profile
from tuner.validate.operations import predict_rows_with

Tables = Mapping[str, Mapping[str, Any]]
SOURCE = (
    "fitted by tests/fit/latent.py to kernels and modules of vLLM 0.24 measured on this device (tables of the"
    " AIConfigurator project)"
)


def fitted(
    profile: HardwareProfile, jobs: list[FitJob], tables: Tables
) -> tuple[HardwareProfile, list[tuple[str, str]]]:
    """The profile with the parameters of every job that has rows, and (section, key) of those jobs."""
    done = []
    for job in jobs:
        rows = {kind: rows_where(tables[kind], job.chosen(tables[kind])) for kind in job.kinds}
        if len(rows[job.kinds[0]]["latency_ms"]):
            profile = with_fit(profile, job, fit(job, profile, rows))
            done.append((job.section, job.key))
    return profile, done


def errors(profile: HardwareProfile, tables: Tables) -> dict[str, NDArray[np.float64]]:
    """Percent error of every row, by table."""
    return {
        kind: 100 * np.abs(predict_rows_with(profile, kind, table) / table["latency_ms"] - 1)
        for kind, table in tables.items()
    }


def held_out_errors(profile: HardwareProfile, jobs: list[FitJob], tables: Tables) -> dict[str, NDArray[np.float64]]:
    """The same by parameters that saw the other half of the shapes only."""
    half = {kind: halves(table, TABLES[kind]) for kind, table in tables.items()}
    found = {kind: np.zeros(len(table["latency_ms"])) for kind, table in tables.items()}
    for left_out in (0, 1):
        seen = {kind: rows_where(table, half[kind] != left_out) for kind, table in tables.items()}
        unseen = {kind: rows_where(table, half[kind] == left_out) for kind, table in tables.items()}
        for kind, some in errors(fitted(profile, jobs, seen)[0], unseen).items():
            found[kind][half[kind] == left_out] = some
    return found


def main() -> None:
    """Fit everything, print it, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--system", nargs="*", default=known_profiles(), help="all that have a profile by default")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    tables = {kind: _measured(read_table(given.data / f"{kind}_dev.csv")) for kind in TABLES}
    every: dict[str, list[NDArray[np.float64]]] = {}
    for system in given.system:
        rows = {kind: rows_where(table, table["system"] == system) for kind, table in tables.items()}
        if not any(len(table["latency_ms"]) for table in rows.values()):
            continue
        jobs = latent_jobs(system)
        profile, done = fitted(load_profile(system), jobs, rows)
        for section, key in done:
            print(system, section, key, getattr(profile, section)[key])
        unseen = held_out_errors(load_profile(system), jobs, rows) if given.held_out else {}
        for kind, seen in errors(profile, rows).items():
            if not len(seen):
                continue
            told = f"    {system:12} {kind:16} {len(seen):4d} rows, {_percent(seen)}"
            if kind in unseen:
                every.setdefault(kind, []).append(unseen[kind])
                told = f"{told}; held out {_percent(unseen[kind])}"
            print(told, flush=True)
        if given.write:
            for section in dict.fromkeys(section for section, _ in done):
                fits = {key: getattr(profile, section)[key] for name, key in done if name == section}
                write_section(PROFILE_DIR / f"{system}.yaml", section, fits, SOURCE)
    for kind, parts in every.items():
        print(f"{kind}: held out {_percent(np.concatenate(parts))}")


def _percent(error: NDArray[np.float64]) -> str:
    return f"median {np.median(error):4.1f} %, mean {error.mean():4.1f} %"


def _measured(table: Mapping[str, Any]) -> dict[str, Any]:
    """Rows that took any time: a difference of two measurements may not have."""
    return rows_where(table, table["latency_ms"] > 0)


if __name__ == "__main__":
    main()
