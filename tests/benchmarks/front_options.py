"""What each option of the path from client to engine is worth: measured in turns with the same path without it.

    python -m tests.benchmarks.front_options [--data CSV] [--measure [--group NAME]] [--write]

A machine is as fast as it is that minute, so an option is compared with what stood there just before and just after
it, under the very same arrivals: how much processor time the path takes for a token and TTFT under a heavy load, and
the tokens/s that pass from the first request to the last answer where more is offered than is carried. A window of
light load comes first and warms it up. Beside the figures without any option stands how far its turns lay apart: what
an option changes by less is nothing. Loads are shares of what the cores carry by the processor time that a token took
without an option when the measurement began.
Needs the machine for itself: half an hour on two cores; it goes on where it was cut off. Without ``--measure`` the
table is made of what was measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fit.front import CORES
from tests.fit.front_deployed import PORT, path_of
from tests.fit.front_path import HOPS, append, measured
from tests.fit.front_series import (
    DIRECT,
    GRPC,
    HAPROXY,
    THROUGHPUT,
    Series,
    points_of,
    windows,
)

DATA = Path(__file__).parents[1] / "data" / "front" / "options.csv"
RESULTS = Path(__file__).parent / "results" / "front_options.md"
LOADS = {"light": 0.35, "heavy": 0.65, "too much": 1.5}  # of what the cores carry without an option
FIRST_RATE, OUTPUT_TOKENS, SECONDS = 12.0, 64, 6  # requests/s, about what two cores carry
WITHOUT = "without"
DIRECT_INGRESS = {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"}
OWN_PORT = 30000  # where Ray has the first replica with direct ingress listen
BETWEEN = 3  # options from one turn without to the next
COLUMNS = (
    "turn", "group", "option", "load", "rate", "requests", "failed", "ttft_mean_ms", "ttft_p99_ms", "tpot_mean_ms",
    "passed_tok_per_s", "path_cpu_ms_per_token", "others_cores",
)  # fmt: skip
SERVE: Series = {"front": "ray_serve"}


def _deployed(**deploy: Any) -> Series:
    return {"deploys": [{"ingress": 1} | deploy]}


GROUPS: dict[str, dict[str, Series]] = {
    "Ray Serve LLM": {
        WITHOUT: SERVE,
        "stream_interval_ms=50": SERVE | {"interval_ms": 50},
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": SERVE | {"flags": GRPC},
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": SERVE | {"flags": THROUGHPUT},
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": SERVE | {"flags": DIRECT_INGRESS},
        "the same, asked at its own port": SERVE | {"flags": DIRECT_INGRESS, "port": OWN_PORT},
        "RAY_SERVE_ENABLE_HA_PROXY": {"front": "ray_haproxy", "flags": HAPROXY},
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": {"front": "ray_direct", "flags": DIRECT},
        "ingress_replicas=2": SERVE | _deployed(ingress=2),
        "ingress_replicas=4": SERVE | _deployed(ingress=4),
        "max_ongoing_requests=8": SERVE | _deployed(max_ongoing=8),
        "proxy_location=HeadOnly": SERVE | {"proxies": "HeadOnly"},
        "niceness 15": SERVE | {"niceness": 15},
    },
    "two engines": {
        WITHOUT: SERVE | _deployed(engines=2),
        "request_router=round_robin": SERVE | _deployed(engines=2, router="round_robin"),
        "request_router=prefix_aware": SERVE | _deployed(engines=2, router="prefix_aware"),
    },
    "with vLLM's own code": {
        WITHOUT: SERVE | {"engine": "vllm"},
        "front=ray_direct": {"front": "ray_direct", "engine": "vllm", "flags": DIRECT},
        "front=vllm": {"front": "vllm"} | _deployed(api_servers=1),
        "front=vllm,api_servers=2": {"front": "vllm"} | _deployed(api_servers=2),
    },
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What was measured of one option at one time, by load; figures by column."""

    number: int
    group: str
    option: str
    loads: Mapping[str, Mapping[str, float]]


def order_of(group: str) -> list[str]:
    """The options of a group, with a turn without any at the beginning, at the end, and after every three."""
    options = [name for name in GROUPS[group] if name != WITHOUT]
    parts = [options[i : i + BETWEEN] for i in range(0, len(options), BETWEEN)]
    return [WITHOUT, *(name for part in parts for name in (*part, WITHOUT))]


def rates_of(cpu_ms_per_token: float) -> dict[str, float]:
    """Requests/s of each load."""
    most = 1e3 * CORES / cpu_ms_per_token / OUTPUT_TOKENS
    return {load: round(share * most, 1) for load, share in LOADS.items()}


def visit(group: str, option: str, rates: Mapping[str, float], turn: int, out: Path) -> None:
    """Deploy an option, and append a row for each load; in a process of its own, as Ray reads its flags once."""
    series: dict[str, Any] = {"deploys": [{"ingress": 1}]} | GROUPS[group][option]
    shown = [one | {"seconds": SECONDS} for one in windows(series.get("interval_ms", 0), *rates.values())]
    deploy = series["deploys"][0] | {"windows": shown}
    with path_of(series) as (bench, path):
        path.deploy(deploy)
        for number, (load, point) in enumerate(zip(rates, points_of(series, deploy), strict=True)):
            row = measured(bench, point, 1000 + number, series.get("port", PORT))
            hops = sum(row[f"{hop}_cpu_s"] or 0.0 for hop in HOPS if hop not in ("client", "core", "ray"))
            known = sum(row[f"{hop}_cpu_s"] or 0.0 for hop in HOPS)
            tokens = row["sent"] * point.output_tokens
            found = row | {
                "turn": turn, "group": group, "option": option, "load": load,
                "passed_tok_per_s": tokens / row["busy_s"], "path_cpu_ms_per_token": 1e3 * hops / tokens,
                "others_cores": (row["machine_cpu_s"] - known) / row["busy_s"],
            }  # fmt: skip
            append(out, {name: found[name] for name in COLUMNS}, COLUMNS)
            _tell(found)


def _tell(row: Mapping[str, Any]) -> None:
    ttft, p99, carried = (row[name] for name in ("ttft_mean_ms", "ttft_p99_ms", "passed_tok_per_s"))
    cost = f"{row['path_cpu_ms_per_token']:.2f} ms a token, others {row['others_cores']:.2f} cores"
    told = f"{row['group']} | {row['option']} | {row['load']}: TTFT {ttft:.1f}/{p99:.1f} ms, {carried:.0f} tokens/s"
    print(f"{told}, {cost}", flush=True)


def turns(data: Path) -> list[Turn]:
    """What was measured, in its order; a turn that was cut off is none."""
    rows: dict[int, list[dict[str, str]]] = {}
    with data.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(int(row["turn"]), []).append(row)
    names = ("rate", "ttft_mean_ms", "ttft_p99_ms", "passed_tok_per_s", "path_cpu_ms_per_token", "failed")
    return [
        Turn(number, of[0]["group"], of[0]["option"], {one["load"]: {n: float(one[n]) for n in names} for one in of})
        for number, of in sorted(rows.items())
    ]


def measure(groups: Sequence[str], data: Path) -> None:
    """Take every turn that the table lacks."""
    for group in groups:
        done = [one for one in turns(data) if one.group == group] if data.exists() else []
        rates = {load: figures["rate"] for load, figures in done[0].loads.items()} if done else None
        for option in order_of(group)[len(done) :]:
            if rates is None:
                rates = rates_of(_ask(group, WITHOUT, {"too much": FIRST_RATE}, 0, None))
            number = 1 + max((one.number for one in turns(data)), default=0) if data.exists() else 1
            _ask(group, option, rates, number, data)


def _ask(group: str, option: str, rates: Mapping[str, float], turn: int, data: Path | None) -> float:
    """Processor time in ms that a token takes; the option's rows go to ``data`` once it has all of them."""
    words = [
        sys.executable,
        "-m",
        "tests.benchmarks.front_options",
        "--visit",
        json.dumps([group, option, rates, turn]),
    ]
    scratch = Path(f"{data or DATA}.part")
    scratch.unlink(missing_ok=True)
    try:
        subprocess.run([*words, "--data", str(scratch)], check=True)
        (seen,) = turns(scratch)
        if data is not None:
            lines = scratch.read_text(encoding="utf-8").splitlines(keepends=True)
            with data.open("a", encoding="utf-8") as file:
                file.writelines(lines if file.tell() == 0 else lines[1:])
        return seen.loads["too much"]["path_cpu_ms_per_token"]
    finally:
        scratch.unlink(missing_ok=True)


FIGURES = (
    ("processor time a token", "heavy", "path_cpu_ms_per_token"),
    ("TTFT mean", "heavy", "ttft_mean_ms"), ("TTFT p99", "heavy", "ttft_p99_ms"),
    ("tokens/s carried", "too much", "passed_tok_per_s"),
)  # fmt: skip


def compared(seen: Sequence[Turn]) -> Iterator[tuple[str, list[float]]]:
    """Each option of a group with its figures as multiples of those without it, just before and just after."""
    for index, turn in enumerate(seen):
        if turn.option == WITHOUT:
            continue
        before = next(one for one in reversed(seen[:index]) if one.option == WITHOUT)
        after = next((one for one in seen[index:] if one.option == WITHOUT), before)
        yield (
            turn.option,
            [
                turn.loads[load][name] / math.sqrt(before.loads[load][name] * after.loads[load][name])
                for _, load, name in FIGURES
            ],
        )


def table(seen: Sequence[Turn]) -> list[str]:
    """Lines of the table."""
    lines = ["| option | " + " | ".join(name for name, _, _ in FIGURES) + " |", "|---" * (1 + len(FIGURES)) + "|"]
    for group in dict.fromkeys(one.group for one in seen):
        mine = [one for one in seen if one.group == group]
        without = [one for one in mine if one.option == WITHOUT]
        cells = []
        for _, load, name in FIGURES:
            found = sorted(one.loads[load][name] for one in without)
            middle = found[len(found) // 2]
            unit = "" if "tok_per_s" in name else " ms"
            cells.append(f"{middle:.3g}{unit} ({found[0] / middle:.2f} to {found[-1] / middle:.2f})")
        rate = without[0].loads["heavy"]["rate"]
        lines.append(f"| **{group}**, no option, {rate:g} requests/s | " + " | ".join(cells) + " |")
        lines += [f"| {name} | " + " | ".join(f"{one:.2f} ×" for one in found) + " |" for name, found in compared(mine)]
    return lines


def main() -> None:
    """Measure where it is asked, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--group", action="append", choices=list(GROUPS))
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} beside the other results")
    parser.add_argument("--visit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.visit is not None:
        group, option, rates, turn = json.loads(given.visit)
        visit(group, option, rates, turn, given.data)
        return
    if given.measure:
        measure(given.group or list(GROUPS), given.data)
    lines = table(turns(given.data))
    print("\n".join(lines))
    if given.write:
        head = [
            "# What options of the path are worth", "",
            "`python -m tests.benchmarks.front_options` on two cores of an AMD EPYC without AVX-512, Ray 2.60.0,",
            "before an engine, or a model in vLLM, that costs nothing; multiples of what stood there",
            "just before and just after. In brackets: how far the turns without an option lay apart.", "",
        ]  # fmt: skip
        RESULTS.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
