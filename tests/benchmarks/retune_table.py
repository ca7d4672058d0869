"""The table of a real case: a row of words per figure, the first one the head."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.retune_load import Stretch

Row = tuple[str, ...]


def table(case: str, rows: Sequence[Row], conditions: str) -> str:
    """As Markdown, with the command and the machine."""
    head, *rest = rows
    lines = [" | ".join(("", *row, "")).strip() for row in (head, ("---",) * len(head), *rest)]
    command = f"`python -m tests.benchmarks.retune_real --case {case}`"
    engines = f"Ray {version('ray')}, vLLM on CPU cores, Python {sys.version.split()[0]}"
    return "\n".join([f"{command} on {machine()}, {engines}; {conditions}:", "", *lines, ""])


def machine() -> str:
    """What this runs on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else 'an unknown processor'}"


def since(moment_s: float | None, from_s: float) -> str:
    """Seconds between two moments in words; that it never came where there is none."""
    return "never" if moment_s is None else seconds(moment_s - from_s)


def seconds(value: float) -> str:
    """Whole ones, or tenths of a few."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def counted(stretch: Stretch) -> str:
    """How many were sent and how many of them lost, and of what."""
    lost = sum(stretch.lost.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in stretch.lost.most_common())
    return f"{stretch.sent} / {lost}" + (f" ({kinds})" if lost else "")
