"""How well the compute models predict measured kernels that they were not fitted to.

    python -m tests.benchmarks.accuracy --data DIR

Parameters are refitted five times, each time without one fifth of the shapes (all rows of a weight shape, a head layout
or an expert layout, over all systems), and the rows left out are predicted: ``held out``. ``shipped`` is the error of
the profiles as they are. Errors are |predicted / measured - 1| in percent, median and mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fit.compute import fit, with_fit
from tests.fit.jobs import SYSTEMS, Job, all_jobs, rows_of
from tests.fit.tables import FILES, FOLDS, KINDS, folds, read_table, rows_where
from tuner.ask.profile import load_profile
from tuner.validate.operations import predict_rows, predict_rows_with

Array = NDArray[np.float64]
TARGET_MEDIAN_PERCENT = {"gemm": 8.0, "attention_context": 10.0, "attention_generation": 10.0, "moe": 14.0}


def held_out_errors(kind: str, table: Mapping[str, Any]) -> Array:
    """Percent error of every row, predicted by parameters fitted to other shapes."""
    errors = np.full(len(table["latency_ms"]), np.nan)
    numbered = {**table, "row": np.arange(len(errors)), "fold": folds(kind, table)}
    for job in all_jobs():
        if KINDS[job.section] == kind:
            _hold_out(job, kind, rows_of(job, numbered), errors)
    borrowed = np.isnan(errors)  # precisions without parameters of their own
    if borrowed.any():
        rows = rows_where(table, borrowed)
        errors[borrowed] = _percent(predict_rows(kind, rows), rows["latency_ms"])
    return errors


def _hold_out(job: Job, kind: str, rows: Mapping[str, Any], errors: Array) -> None:
    profile = load_profile(job.system)
    for left_out in range(FOLDS):
        seen, unseen = rows_where(rows, rows["fold"] != left_out), rows_where(rows, rows["fold"] == left_out)
        if len(unseen["row"]):
            best = fit(job, profile, seen) if len(seen["row"]) else job.start
            predicted = predict_rows_with(with_fit(profile, job, best), kind, unseen)
            errors[unseen["row"].astype(int)] = _percent(predicted, unseen["latency_ms"])


def _percent(predicted: Array, measured: Array) -> Array:
    return np.asarray(100 * np.abs(predicted / measured - 1))


def _line(name: str, rows: int, held: Array, shipped: Array) -> str:
    figures = (np.median(held), np.mean(held), np.median(shipped), np.mean(shipped))
    return f"{name:34} {rows:5d} " + " ".join(f"{figure:9.1f}" for figure in figures)


def main() -> None:
    """Print the errors per kind, system and precision, and whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    print(f"{'':34} {'rows':>5} {'held out: median':>9} {'mean':>3} {'shipped: median':>9} {'mean':>3}   (percent)")
    for kind, name in FILES.items():
        table = read_table(given.data / name)
        held = held_out_errors(kind, table)
        shipped = _percent(predict_rows(kind, table), table["latency_ms"])
        column = {"gemm": "gemm_dtype", "moe": "moe_dtype"}.get(kind, "kv_cache_dtype")
        for system in SYSTEMS:
            of_system = table["system"] == system
            print(_line(f"{kind} {system}", int(of_system.sum()), held[of_system], shipped[of_system]))
            for dtype in np.unique(table[column][of_system]):
                some = of_system & (table[column] == dtype)
                print(_line(f"    {dtype}", int(some.sum()), held[some], shipped[some]))
        median, target = np.median(held), TARGET_MEDIAN_PERCENT[kind]
        print(_line(f"{kind} all", len(held), held, shipped))
        print(f"    target {target:.0f} %: {'met' if median <= target else 'missed'}")


if __name__ == "__main__":
    main()
