"""The chart of the first page: what waits before the first token come to on each path, by load, measured and predicted.

    python -m tests.benchmarks.front_chart [--data CSV] [--write docs/front.svg]

Windows are those of ``tests.benchmarks.front``, before an engine that costs nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks.front import fit_of, usual
from tests.fit.front import predicted
from tests.fit.front_rows import DATA, Seen, read_rows
from tests.studies.figures import STYLE

PICTURE = Path(__file__).parents[2] / "docs" / "front.svg"
# Okabe and Ito's palette; what is drawn: a path, its stream interval in ms, its name for people
SERIES = {
    ("ray_serve", 0): ("#D55E00", "Ray Serve LLM, token by token"),
    ("ray_serve", 100): ("#E69F00", "Ray Serve LLM, every 100 ms"),
    ("ray_haproxy", 0): ("#0072B2", "HAProxy before it"),
    ("ray_direct", 0): ("#009E73", "direct streaming"),
}
TOKENS, STEP_MS = 64, 20.0


def shown(rows: Sequence[Seen], path: str, interval_ms: int) -> list[Seen]:
    """Windows of one line in the order of their load: one ingress replica, nothing else on the machine."""
    mine = [
        row
        for row in rows
        if usual(row) and row.alone and row.path == path and row.front.interval_ms == interval_ms
        and row.front.ingress_replicas == 1 and (row.output_tokens, row.step_ms) == (TOKENS, STEP_MS)
        and row.prompt_tokens < 1000
    ]  # fmt: skip
    return sorted(mine, key=lambda row: row.rate)


def draw(rows: Sequence[Seen], figure: Figure) -> None:
    """Points are measured (hollow: the queue grew as long as the window lasted), lines predicted."""
    figure.set_size_inches(7.5, 3.4)
    axes = figure.subplots()
    for (path, interval_ms), (colour, name) in SERIES.items():
        mine = shown(rows, path, interval_ms)
        if not mine:
            continue
        held = [row for row in mine if not row.overloaded]
        rates = [row.rate for row in held]
        model = [predicted(fit_of(row), row).ttft_p99_ms for row in held]
        axes.plot(rates, model, color=colour, linewidth=1.2)
        axes.plot(rates, [row.ttft_p99_ms for row in held], "o", color=colour, markersize=5, label=name)
        over = [row for row in mine if row.overloaded]
        axes.plot(
            [row.rate for row in over], [row.ttft_p99_ms for row in over], "o", color=colour, markersize=5,
            markerfacecolor="white",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(f"requests/s of {TOKENS} tokens")
    axes.set_ylabel("TTFT p99 (ms)")
    axes.set_xlim(left=0)
    axes.grid(color="#e5e5e5")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("The path to the engine, on two cores (the engine costs nothing)", loc="left")


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--write", type=Path, default=PICTURE)
    options = parser.parse_args()
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(layout="constrained")
        draw(read_rows(options.data), figure)
        figure.savefig(options.write, metadata={"Date": None})


if __name__ == "__main__":
    main()
