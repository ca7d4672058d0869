"""How well the predictor foretells measured runs of vLLM, as shipped, with pairs held out, and with three probes.

    python -m tests.benchmarks.accuracy_e2e --data DIR

DIR holds vllm_e2e_dev.csv. ``held out``: every model x GPU pair is predicted by constants that its rows had no part in
(see tests/fit/engine.py). ``with probes``: three measured runs of each layout, drawn at random, correct its others.
``ordered``: of two layouts of one model, GPU, precision, lengths and users whose measured figures differ by more than
10 %, the share that the prediction puts in the right order. Errors are |predicted / measured - 1| in percent.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.fit.engine import FILE, Linear, Table, held_out, predict, start
from tuner.validate.correct import LAYOUT, correct
from tuner.validate.points import Points, read_points
from tuner.validate.runs import Run
from tuner.validate.runs_score import FIGURES

Floats = NDArray[np.float64]
Key = Callable[[int], object]

PROBES = 3
DRAWS = 5
TARGETS = "targets: held out 20/12 and 10/5 %, with probes 15/10 and 6/4 %, ordered 95 and 98 %"
_LOADS = (8, 32, 128)


def with_probes(points: Points, predicted: Floats, measured: Floats) -> tuple[Floats, int]:
    """(Percent errors [row, figure] of the rows whose layout has probes and that are none, over several draws; rows of
    one draw)."""
    layouts = defaultdict(list)
    for row, key in enumerate(zip(*(points.columns[name] for name in LAYOUT if name in points.columns), strict=True)):
        layouts[key].append(row)
    errors: list[Floats] = []
    for draw in range(DRAWS):
        random = np.random.default_rng(draw)
        probes = [int(r) for of in layouts.values() if len(of) > PROBES for r in random.permutation(of)[:PROBES]]
        rest = [row for of in layouts.values() if len(of) > PROBES for row in of if row not in set(probes)]
        found = correct(
            taken(points, rest), predicted[rest], taken(points, probes), predicted[probes], measured[probes]
        )
        errors.append(100 * np.abs(found / measured[rest] - 1))
    return np.concatenate(errors), len(errors[0])


def taken(points: Points, rows: Iterable[int]) -> Points:
    """Some rows of a table."""
    chosen = list(rows)
    columns = {name: tuple(column[row] for row in chosen) for name, column in points.columns.items()}
    return Points(points.path, columns, tuple(points.lines[row] for row in chosen))


def ordered_percent(table: Table, predicted: Floats, figure: int) -> tuple[float, int]:
    """(Percent of pairs of layouts in the right order, pairs)."""
    groups: dict[object, dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, run in enumerate(table.runs):
        groups[_alike(run)][run.layout.shape].append(row)
    right = pairs = 0
    for layouts in groups.values():
        for first, second in combinations(layouts.values(), 2):
            a, b = np.mean(table.measured[first, figure]), np.mean(table.measured[second, figure])
            if max(a, b) > 1.1 * min(a, b):
                pairs += 1
                right += (a < b) == (np.mean(predicted[first, figure]) < np.mean(predicted[second, figure]))
    return 100 * right / max(pairs, 1), pairs


def _alike(run: Run) -> object:
    return (run.model, run.cluster.profile, run.prompt_tokens, run.output_tokens, run.users)


def _report(name: str, errors: Floats, rows: int) -> None:
    figures = "  ".join(f"{np.mean(errors[:, i]):6.1f} {np.median(errors[:, i]):6.1f}" for i in range(len(FIGURES)))
    print(f"{name:44} {rows:5d}  {figures}")


def _groups(title: str, errors: Floats, key: Key) -> None:
    print(f"\nby {title}")
    rows: dict[str, list[int]] = defaultdict(list)
    for row in range(len(errors)):
        rows[str(key(row))].append(row)
    for name in sorted(rows):
        _report(name, errors[rows[name]], len(rows[name]))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    points = read_points(given.data / FILE)
    table = Table.of(points)
    linear = Linear.around(table, start())
    shipped = predict(table.runs, start())
    held = held_out(table, linear)
    print(TARGETS)
    print(f"{'':44}  rows  TTFT mean, median  TPOT mean, median (%)")
    errors = {
        name: 100 * np.abs(found / table.measured - 1) for name, found in (("as shipped", shipped), ("held out", held))
    }
    for name, found in errors.items():
        _report(name, found, len(found))
    for name, found in (("as shipped", shipped), ("held out", held)):
        probed, rows = with_probes(points, found, table.measured)
        _report(f"{name}, with {PROBES} probes per layout", probed, rows)
    for figure, name in enumerate(FIGURES):
        share, pairs = ordered_percent(table, held, figure)
        print(f"ordered rightly, held out: {name} {share:.1f} % of {pairs} pairs")
    runs = table.runs
    for title, key in (
        ("model and GPU", lambda row: f"{runs[row].model.name} {runs[row].cluster.profile.name}"),
        ("GPU", lambda row: runs[row].cluster.profile.name),
        ("precision of experts or layers", lambda row: _precision(runs[row])),
        ("release", lambda row: runs[row].vllm_version),
        ("users", lambda row: f"up to {next((n for n in _LOADS if runs[row].users <= n), 'more')}"),
        ("prompt tokens", lambda row: f"{runs[row].prompt_tokens:5d}"),
        ("devices", lambda row: runs[row].layout.devices),
    ):
        _groups(title, errors["held out"], key)


def _precision(run: Run) -> str:
    return run.model.expert_dtype if run.model.experts else run.model.linear_dtype


if __name__ == "__main__":
    main()
