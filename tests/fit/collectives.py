"""Fits the ``collectives`` section of the hardware profiles to measured operations and prints it as YAML.

    python -m tests.fit.collectives POINTS.csv [SYSTEM ...]

Least squares of the logarithm of predicted over measured time, with outliers damped, by the very code that predicts.
Parameters are varied in logarithms, so that none changes sign; a light pull towards the start values settles what a
system's rows do not determine. ``--held-out`` prints errors on every other message size of each (source, operation,
ranks), fitted on the rest, both ways round. ``--from-relative`` leaves what the rows do not tell as it is taken over.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import least_squares

from tuner.ask.profile import HardwareProfile, load_profile
from tuner.cost.collectives.choices import predict_rows_with
from tuner.cost.collectives.fits import parse_fits

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
PULL = 0.005
STARTS = 4

START: dict[str, dict[str, float]] = {
    "nccl": {
        "launch_us": 6.0, "step_us": 0.8, "peers_launch_us": 6.0, "peer_us": 0.2, "ll_efficiency": 0.3,
        "ll128_us": 4.0, "ll128_efficiency": 0.5, "simple_us": 12.0, "simple_efficiency": 0.8,
        "local_copy_efficiency": 2.0,
    },
    "one_shot": {"launch_us": 4.3, "peer_us": 0.1, "efficiency": 0.6},
    "two_shot": {"launch_us": 6.0, "peer_us": 0.5, "efficiency": 0.6},
    "eager": {"kernel_us": 20.0, "copy_efficiency": 0.8},
}  # fmt: skip
IN_SWITCH: dict[str, dict[str, float]] = {
    "nccl": {"nvls_us": 40.0, "nvls_efficiency": 1.0},
    "symmetric": {"launch_us": 10.0, "efficiency": 0.5},
    "eager": {"symmetric_us": 36.0},
}


def start_section(profile: HardwareProfile) -> dict[str, dict[str, float]]:
    """Start values of the parts that this GPU has: in-switch reduction from Hopper, contention in place of NVLink."""
    section = {part: dict(values) for part, values in START.items()}
    if profile.nvlink.links == 0:
        del section["two_shot"], section["one_shot"]["peer_us"]
        section["nccl"]["contention"] = 1.5
    elif profile.arch != "ampere":
        for part, values in IN_SWITCH.items():
            section.setdefault(part, {}).update(values)
    return section


def read_columns(path: str) -> Columns:
    """The measured points as columns, sorted so that neighbours of one (source, operation, ranks) differ in size."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = ("system", "library", "kernel_source", "op_name")
    rows.sort(key=lambda row: (*(row[key] for key in keys), int(row["num_gpus"]), float(row["message_bytes"])))
    columns: Columns = {key: np.array([row[key] for row in rows]) for key in keys}
    columns["num_gpus"] = np.array([int(row["num_gpus"]) for row in rows])
    columns["message_bytes"] = np.array([float(row["message_bytes"]) for row in rows])
    columns["latency_us"] = np.array([float(row["latency_us"]) for row in rows])
    return columns


def take(columns: Columns, mask: NDArray[np.bool_]) -> Columns:
    """The rows of a mask."""
    return {name: values[mask] for name, values in columns.items()}


def alternate_sizes(columns: Columns) -> NDArray[np.bool_]:
    """True for every other message size of each (system, library, source, operation, ranks)."""
    seen: dict[tuple[Any, ...], int] = {}
    mask = np.zeros(len(columns["num_gpus"]), dtype=bool)
    names = ("system", "library", "kernel_source", "op_name", "num_gpus")
    for index, key in enumerate(zip(*(columns[name] for name in names), strict=True)):
        seen[key] = seen.get(key, 0) + 1
        mask[index] = seen[key] % 2 == 0
    return mask


def with_section(profile: HardwareProfile, section: Mapping[str, Mapping[str, float]]) -> HardwareProfile:
    """The profile with another ``collectives`` section, checked as one from a file is."""
    parse_fits(section, profile.name)
    return replace(profile, collectives=section)


def fit(profile: HardwareProfile, rows: Columns, from_relative: bool = False) -> dict[str, dict[str, float]]:
    """The section that fits the rows best, from a few starts; what they leave open stays with the common start values,
    or ``from_relative`` with those of the profile's relative."""
    start = {part: dict(values) for part, values in profile.collectives.items()} if from_relative else {}
    start = start or start_section(profile)
    places = [(part, name) for part, values in start.items() for name in values]
    origin = np.log([start[part][name] for part, name in places])

    def unpack(logs: Floats) -> dict[str, dict[str, float]]:
        section: dict[str, dict[str, float]] = {part: {} for part in start}
        for (part, name), value in zip(places, np.exp(logs), strict=True):
            section[part][name] = float(value)
        return section

    def residuals(logs: Floats) -> Floats:
        predicted = predict_rows_with(with_section(profile, unpack(logs)), rows)
        return np.concatenate([np.log(predicted / rows["latency_us"]), PULL * (logs - origin)])

    noise = np.random.default_rng(0)
    best = None
    for attempt in range(STARTS):
        first = origin + (noise.normal(0, 0.25, len(origin)) if attempt else 0)
        found = least_squares(residuals, first, loss="soft_l1", f_scale=0.05, max_nfev=80)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return unpack(best.x)


def held_out_errors(profile: HardwareProfile, rows: Columns, from_relative: bool = False) -> Floats:
    """Absolute relative errors on message sizes that the fit did not see (two folds)."""
    mask = alternate_sizes(rows)
    errors = []
    for fold in (mask, ~mask):
        trained = with_section(profile, fit(profile, take(rows, fold), from_relative))
        unseen = take(rows, ~fold)
        errors.append(np.abs(predict_rows_with(trained, unseen) / unseen["latency_us"] - 1))
    return np.concatenate(errors)


def main() -> None:
    """Print the fitted sections, or with ``--held-out`` their errors on unseen rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points")
    parser.add_argument("systems", nargs="*")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--from-relative", action="store_true")
    given = parser.parse_args()
    columns = read_columns(given.points)
    every: list[Floats] = []
    for system in given.systems or sorted(set(columns["system"])):
        rows, profile = take(columns, columns["system"] == system), load_profile(system)
        if given.held_out:
            errors = held_out_errors(profile, rows, given.from_relative)
            every.append(errors)
            print(f"{system}: median {100 * np.median(errors):.1f} % of {len(errors)} rows, held out", flush=True)
            continue
        section = fit(profile, rows, given.from_relative)
        rounded = {
            part: {name: float(f"{value:.3g}") for name, value in values.items()} for part, values in section.items()
        }
        errors = np.abs(predict_rows_with(with_section(profile, rounded), rows) / rows["latency_us"] - 1)
        print(f"# {system}: median error {100 * np.median(errors):.1f} % of {len(errors)} rows")
        print(yaml.safe_dump({"collectives": rounded}, sort_keys=False, default_flow_style=None, width=118))
    if every:
        print(f"all: median {100 * np.median(np.concatenate(every)):.1f} %")


if __name__ == "__main__":
    main()
