"""Error of predicted collectives on measured points: ``python tests/benchmarks/collectives_accuracy.py POINTS.csv``.

The first table scores the shipped profiles on all points, the second fits on every other message size of each
(library, source, operation, ranks) and scores the sizes left out, both ways round.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "fit"))

from collectives import Columns, Floats, held_out_errors, read_columns, take

from tuner.ask.profile import load_profile
from tuner.cost.collectives import predict_collective_rows


def line(name: str, errors: Floats) -> str:
    """One row: median and mean error in percent, and the share of points within 10 %."""
    within = np.mean(errors <= 0.1)
    return (
        f"{name:32s} {100 * np.median(errors):7.1f} {100 * np.mean(errors):7.1f} {100 * within:7.0f} {len(errors):6d}"
    )


def shipped(columns: Columns) -> None:
    """Errors of the profiles as they stand."""
    started = time.perf_counter()
    errors = np.abs(predict_collective_rows(columns) / columns["latency_us"] - 1)
    seconds = time.perf_counter() - started
    print(f"{'shipped profiles':32s} {'median':>7s} {'mean':>7s} {'<= 10 %':>7s} {'rows':>6s}")
    for key in ("system", "kernel_source", "op_name"):
        for name in sorted(set(columns[key])):
            print(line(f"  {name}", errors[columns[key] == name]))
    print(line("all", errors), f"  ({1e3 * seconds:.0f} ms)")


def held_out(columns: Columns) -> None:
    """Errors on message sizes that the fit did not see."""
    print("fitted on every other message size, scored on the rest")
    found = []
    for system in sorted(set(columns["system"])):
        found.append(held_out_errors(load_profile(system), take(columns, columns["system"] == system)))
        print(line(f"  {system}", found[-1]), flush=True)
    print(line("all, held out", np.concatenate(found)))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", help="CSV of measured collectives")
    columns = read_columns(parser.parse_args().points)
    shipped(columns)
    held_out(columns)


if __name__ == "__main__":
    main()
