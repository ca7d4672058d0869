"""Fit what vLLM adds to the kernels of a step to measured closed-loop runs.

    python -m tests.fit.engine --data DIR [--rounds N]

DIR holds vllm_e2e_dev.csv. 17 constants, shared by all models and layouts (``tuner/ask/profiles/engines/vllm.yaml``;
two are Blackwell's own), are fitted in log space: least squares of log(predicted / measured) over mean TTFT and TPOT of
the runs, each predicted by the simulator, with a soft-L1 loss, so that doubtful rows pull little; ``request_ms`` is
that of one user of an idle engine elsewhere. The slope of every row is found once; ``held_out`` uses that to leave out
a model x GPU pair, solve again and predict the pair. What rows
leave open is drawn to ``ORIGIN``, not to the constants as shipped, so nothing of a pair left out comes back that way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from tuner.ask.profile import HardwareProfile, load_profile
from tuner.validate.points import Points, read_points
from tuner.validate.runs import Run, run_of
from tuner.validate.runs_score import FIGURES, RunPredictor

Floats = NDArray[np.float64]

FILE = "vllm_e2e_dev.csv"
SOFT = np.array([0.15, 0.03])  # residuals of TTFT and TPOT beyond this many log units count linearly
PULL = 0.3  # weight of one constant's log distance from ORIGIN, beside all rows
STEP = 0.05  # log units of a finite difference: well above the simulator's grain
SHARED = (
    "prefill_layer_launch_ms", "expert_layer_launch_ms", "graph_layer_launch_ms", "prompt_token_us", "layer_kernels",
    "expert_layer_ms", "expert_share", "expert_crowding", "collective_wait_us", "exposed_step_ms",
    "exposed_sequence_ms", "lean_launch", "expert_spread", "block_experts", "fp8_cache_kernels",
)  # fmt: skip
BLACKWELL = ("prefill_slowdown", "prompt_wait_us")
NAMES = SHARED + BLACKWELL
# What is expected before any run is seen: ratios of 1; times of a few launches of 5 us, of an HTTP request, of a step.
ORIGIN = {
    "prefill_layer_launch_ms": 0.3, "expert_layer_launch_ms": 1.0, "graph_layer_launch_ms": 0.1, "prompt_token_us": 1.5,
    "layer_kernels": 5.0, "expert_layer_ms": 0.01, "expert_share": 1.0, "expert_crowding": 1.0,
    "collective_wait_us": 3.0, "exposed_step_ms": 2.0, "exposed_sequence_ms": 0.01, "lean_launch": 1.0,
    "expert_spread": 1.0, "block_experts": 1.0, "prompt_wait_us": 10.0,
    "fp8_cache_kernels": 1.0, "prefill_slowdown": 1.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Runs with their measured figures, [row, figure] in ms, and how often each row's measurement is repeated."""

    runs: tuple[Run, ...]
    measured: Floats
    weight: Floats

    @classmethod
    def of(cls, points: Points) -> Table:
        """All rows of a table of runs."""
        runs = tuple(run_of(points, row) for row in range(len(points)))
        measured = np.stack([points.numbers(f"measured_{name}", least=0) for name in FIGURES], axis=1)
        keys = list(zip(runs, map(tuple, measured.tolist()), strict=True))
        return cls(runs, measured, np.array([1 / keys.count(key) for key in keys]))

    def pairs(self) -> list[tuple[str, str]]:
        """(model, GPU) of each row."""
        return [(run.model.name, run.cluster.profile.name) for run in self.runs]


def start() -> Floats:
    """Logs of the constants as shipped."""
    engine = load_profile("b200_sxm").engine
    return np.log([getattr(engine, name) for name in NAMES])


def origin() -> Floats:
    """Logs of what is expected before any run is seen."""
    return np.log([ORIGIN[name] for name in NAMES])


def predict(runs: Sequence[Run], logs: Floats) -> Floats:
    """[run, figure] in ms with these constants."""
    values = dict(zip(NAMES, np.exp(logs).tolist(), strict=True))
    predictor = RunPredictor()
    changed: dict[HardwareProfile, HardwareProfile] = {}

    def with_constants(run: Run) -> Run:
        profile = run.cluster.profile
        if profile not in changed:
            names = NAMES if profile.arch == "blackwell" else SHARED
            engine = replace(profile.engine, **{name: values[name] for name in names})
            changed[profile] = replace(profile, engine=engine)
        return replace(run, cluster=replace(run.cluster, profile=changed[profile]))

    found = [predictor.predict(with_constants(run)) for run in runs]
    return np.array([(figures.ttft_ms, figures.tpot_ms) for figures in found])


@dataclass(frozen=True, slots=True)
class Linear:
    """log(predicted / measured) around ``logs``: [row, figure] values and [row, figure, constant] slopes."""

    logs: Floats
    values: Floats
    slopes: Floats

    @classmethod
    def around(cls, table: Table, logs: Floats) -> Linear:
        """By one prediction per constant."""
        values = np.log(predict(table.runs, logs) / table.measured)
        moved = [np.log(predict(table.runs, logs + STEP * unit) / table.measured) for unit in np.eye(len(logs))]
        return cls(logs, values, np.stack([(other - values) / STEP for other in moved], axis=-1))

    def solve(self, weight: Floats, reach: float = 0.5) -> Floats:
        """Logs that fit the weighted rows best, at most ``reach`` from here; drawn to ``ORIGIN`` a little."""

        def residuals(change: Floats) -> Floats:
            scaled = (self.values + self.slopes @ change) / SOFT
            robust = np.sign(scaled) * np.sqrt(2 * (np.sqrt(1 + scaled**2) - 1)) * np.sqrt(weight)[:, None]
            return np.concatenate([robust.ravel(), PULL * (self.logs + change - origin())])

        found = least_squares(residuals, np.zeros(len(self.logs)), bounds=(-reach, reach))
        return np.asarray(self.logs + found.x)


def fit(table: Table, rounds: int = 4) -> Linear:
    """The constants that fit all rows best, and the slopes there."""
    linear = Linear.around(table, start())
    for _ in range(rounds):
        linear = Linear.around(table, linear.solve(table.weight))
        print(_summary(linear), flush=True)
    return linear


def held_out(table: Table, linear: Linear) -> Floats:
    """[row, figure] in ms: every model x GPU pair predicted with constants that its rows had no part in."""
    pairs = np.array(["|".join(pair) for pair in table.pairs()])
    found = np.full(table.measured.shape, np.nan)
    for pair in np.unique(pairs):
        rows = np.flatnonzero(pairs == pair)
        logs = linear.solve(np.where(pairs == pair, 0.0, table.weight))
        found[rows] = predict([table.runs[row] for row in rows], logs)
    return found


def _summary(linear: Linear) -> str:
    error = 100 * np.abs(np.exp(linear.values) - 1)
    figures = " ".join(
        f"{name} {np.mean(error[:, i]):.1f}/{np.median(error[:, i]):.1f} %" for i, name in enumerate(FIGURES)
    )
    return figures + " " + " ".join(f"{n}={v:.4g}" for n, v in zip(NAMES, np.exp(linear.logs), strict=True))


def main() -> None:
    """Fit and print the constants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    table = Table.of(read_points(given.data / FILE))
    linear = fit(table, given.rounds)
    for name, value in zip(NAMES, np.exp(linear.logs), strict=True):
        print(f"  {name}: {value:.3g}")
    found = held_out(table, linear)
    error = 100 * np.abs(found / table.measured - 1)
    for name, column in zip(FIGURES, error.T, strict=True):
        print(f"pairs held out: {name} mean {np.mean(column):.1f} %, median {np.median(column):.1f} %")


if __name__ == "__main__":
    main()
