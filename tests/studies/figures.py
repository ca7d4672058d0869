"""The studies' figures as SVG: latency by layout, strong scaling by kind of work, all-reduce by size and nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from tests.studies import nvrar, xu, yalis
from tests.studies.pricing import KIB, KINDS, Setting

# Okabe and Ito's palette, which stays apart for colour-blind readers.
COLOURS = dict(zip(KINDS, ("#0072B2", "#56B4E9", "#009E73", "#D55E00", "#999999"), strict=True))
Line = Literal["-", ":", "--"]
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "parlay", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.titlesize": 10,
}  # fmt: skip
XU_LAYOUTS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (1, 8), (2, 4), (4, 2))


def draw_all(folder: Path) -> tuple[Path, ...]:
    """Write every figure into the folder; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        for name, draw in FIGURES.items():
            path = folder / f"{name}.svg"
            figure = Figure(layout="constrained")
            draw(figure)
            figure.savefig(path, metadata={"Date": None})
            made.append(path)
    return tuple(made)


def latency_by_layout(figure: Figure) -> None:
    """Xu et al.: TTFT, TPOT and E2E of one request over TP, PP and hybrids, for three models."""
    figure.set_size_inches(9, 7)
    panels = (
        ("TTFT (ms), prompt of 2048 tokens", "long", "ttft_ms"),
        ("TPOT (ms), 128 + 128 tokens", "short", "tpot_ms"),
        ("E2E (ms), 128 + 128 tokens", "short", "e2e_ms"),
    )
    names = [xu.name_of(degrees) for degrees in XU_LAYOUTS]
    for axes, (title, lengths, value) in zip(figure.subplots(3, 1), panels, strict=True):
        for i, model in enumerate(xu.MODELS):
            study = xu.run(model, lengths)
            heights = [getattr(study.alone(*degrees), value) for degrees in XU_LAYOUTS]
            axes.bar(np.arange(len(names)) + 0.27 * (i - 1), heights, 0.25, label=model, color=SERIES[i])
        axes.set_title(title, loc="left")
        axes.set_xticks(np.arange(len(names)), names)
        axes.axvline(3.5, color="#bbbbbb", linewidth=0.8)
        axes.axvline(6.5, color="#bbbbbb", linewidth=0.8)
        axes.grid(axis="y", color="#e5e5e5")
    _legend_below(figure)
    figure.suptitle("Two nodes of 4 H100, NDR400; NCCL for every all-reduce; one request alone", fontsize=11)


def strong_scaling(figure: Figure) -> None:
    """YALIS poster: time to solution of a batch by kind of work, TP over all GPUs and PP across nodes."""
    figure.set_size_inches(9, 6)
    grid = figure.subplots(2, 2, sharey="row")
    for row, name in zip(grid, yalis.MACHINES, strict=True):
        for axes, scheme in zip(row, ("TP", "PP"), strict=True):
            bars = {str(gpus): yalis.solved(name, scheme, gpus).parts_s() for gpus in yalis.GPUS}
            _stacked(axes, bars)
            across = "TP over all GPUs" if scheme == "TP" else "TP in the node, PP across"
            axes.set_title(f"{name}: {across}", loc="left")
            axes.set_xlabel("GPUs")
        row[0].set_ylabel("time to solution (s)")
    _legend_below(figure)
    figure.suptitle("Llama-3.1-70B, 16 sequences at once, 2480 + 2048 tokens", fontsize=11)


def scaling_by_phase(figure: Figure) -> None:
    """arXiv 2511.09557: prefill, and all of a decode-heavy batch, of the 405B model: TP, TP with NVRAR, and PP."""
    figure.set_size_inches(9, 3.8)
    cases = (("prefill of 2048 tokens each", (2048, 1)), ("decode-heavy, 1024 + 2048 tokens", nvrar.DECODE_HEAVY))
    for axes, (title, lengths) in zip(figure.subplots(1, 2), cases, strict=True):
        bars: dict[str, Mapping[str, float]] = {}
        for gpus in nvrar.GPUS["405B"]:
            plain, quick = (nvrar.machine("Perlmutter", "405B", lengths, nvrar=flag) for flag in (False, True))
            bars[f"{gpus}\nTP"] = plain.batch(gpus, 1).parts_s()
            bars[f"{gpus}\nNVRAR"] = quick.batch(gpus, 1).parts_s()
            bars[f"{gpus}\nPP"] = plain.batch(4, gpus // 4).parts_s()
        _stacked(axes, bars, width=0.8)
        axes.set_title(title, loc="left")
        axes.tick_params(axis="x", labelsize=6.5)
    figure.axes[0].set_ylabel("seconds")
    _legend_below(figure)
    figure.suptitle("Llama-3.1-405B on Perlmutter, 16 sequences at once, by GPUs and scheme", fontsize=11)


def allreduce_by_size(figure: Figure) -> None:
    """All-reduce time by message, number of nodes and algorithm, on three machines."""
    figure.set_size_inches(9, 4.2)
    sizes = np.array([KIB << power for power in range(3, 12)], dtype=float)
    machines: Sequence[tuple[str, Setting, int]] = (
        ("Perlmutter, 4 A100 per node", yalis.machine("Perlmutter"), 4),
        ("Alps, 4 GH200 per node", yalis.machine("Alps"), 4),
        ("Vista, one GH200 per node", nvrar.machine("Vista"), 1),
    )
    lines: dict[str, Line] = {"nccl": "-", "mpi": ":", "nvrar": "--"}
    for axes, (title, study, per_node) in zip(figure.subplots(1, 3, sharey=True), machines, strict=True):
        for colour, nodes in zip(SERIES, (1, 2, 8, 32), strict=True):
            for algorithm, line in lines.items():
                if nodes * per_node == 1 or (nodes == 1 and algorithm == "nvrar"):
                    continue
                times_us = study.allreduce_us(algorithm, sizes, nodes * per_node)
                axes.plot(sizes / KIB, times_us, line, color=colour, linewidth=1.4)
        axes.set(xscale="log", yscale="log", xlabel="message (KiB)")
        axes.set_xticks([8, 32, 128, 512, 2048], ["8", "32", "128", "512", "2048"], minor=False)
        axes.set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
        axes.minorticks_off()
        axes.grid(color="#e5e5e5")
        axes.set_title(title, loc="left")
    figure.axes[0].set_ylabel("all-reduce (µs)")
    handles: list[Any] = [mpl.lines.Line2D([], [], color=c, label=f"{n} node{'s' if n > 1 else ''}")
                          for c, n in zip(SERIES, (1, 2, 8, 32), strict=True)]  # fmt: skip
    labels = {"nccl": "NCCL", "mpi": "MPI", "nvrar": "NVRAR"}
    handles += [mpl.lines.Line2D([], [], color="#333333", linestyle=lines[name], label=labels[name]) for name in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=8)


def _legend_below(figure: Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)


def _stacked(axes: Any, bars: Mapping[str, Mapping[str, float]], width: float = 0.6) -> None:
    floor = np.zeros(len(bars))
    for kind in KINDS:
        heights = np.array([parts[kind] for parts in bars.values()])
        axes.bar(list(bars), heights, width, bottom=floor, label=kind, color=COLOURS[kind])
        floor += heights
    axes.grid(axis="y", color="#e5e5e5")


FIGURES = {
    "latency_by_layout": latency_by_layout,
    "strong_scaling": strong_scaling,
    "scaling_by_phase": scaling_by_phase,
    "allreduce_by_size": allreduce_by_size,
}
