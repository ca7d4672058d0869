"""Tables for people: what ``plan``, ``volume``, ``collective`` and ``validate`` print, and parts of a study's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypedDict

from rich.console import Console
from rich.table import Table

from tuner.ask.deployment import BETWEEN_POOLS, Deployment, pools_of
from tuner.ask.layout import ParallelLayout
from tuner.ask.recorded import notes
from tuner.ask.request import TuneRequest
from tuner.ask.rules import DropReason
from tuner.ask.slo import Verdict
from tuner.ask.workload import Workload
from tuner.cost.breakdown import Breakdown
from tuner.plan.prune import Candidate, DroppedGroup, Plan
from tuner.plan.what_if import PricedLayout, WhatIf
from tuner.trial.results import TrialResult, TrialState

if TYPE_CHECKING:
    from tuner.app.answers.collective import CollectiveAnswer
    from tuner.app.answers.validate import ValidateAnswer
    from tuner.app.answers.volume import VolumeAnswer

ABSENT = "–"
MOST_ALIKE = 4  # rows of one reason in a table of drops


class TitleOptions(TypedDict):
    """Options of a ``rich`` table."""

    title_justify: Literal["left"]
    caption: str | None
    caption_justify: Literal["left"]


def short_names(deployments: Iterable[Deployment]) -> tuple[dict[Deployment, str], str]:
    """Deployments without the settings that all of them share, and those settings; the degrees always stay."""
    listed = list(deployments)
    shown = {one: [_settings(layout) for layout in pools_of(one).values()] for one in listed}
    pools = [settings for found in shown.values() for settings in found]
    axes = dict.fromkeys(axis for settings in pools for axis in settings)
    values = {axis: {settings.get(axis) for settings in pools} for axis in axes}
    common = {a: v for a, v in values.items() if a not in ("tp", "pp", "dp") and len(v) == 1 and len(listed) > 1}

    def named(settings: Mapping[str, str]) -> str:
        return ",".join(f"{axis}={value}" for axis, value in settings.items() if axis not in common)

    names = {one: BETWEEN_POOLS.join(map(named, found)) for one, found in shown.items()}
    return names, ", ".join(f"{axis}={next(iter(value))}" for axis, value in common.items())


def _settings(layout: ParallelLayout) -> dict[str, str]:
    """What its text says, axis by axis."""
    return dict(part.split("=") for part in str(layout).split(","))


def caption_of(common: str) -> str | None:
    """What all layouts of a table share, below it."""
    return f"all with {common}" if common else None


def number(value: float | None, digits: int = 1) -> str:
    """A figure, or a dash where there is none."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def plan_tables(console: Console, plan: Plan, top: int, breakdowns: Mapping[ParallelLayout, Breakdown]) -> None:
    """The ranking, where its milliseconds go, and what was dropped. Variants that the model cannot tell apart (same
    degrees, same figures) are one row."""
    rows = _distinct(plan.ranked)[:top]
    if not rows:
        dropped_table(console, plan.dropped)
        return
    names, common = short_names(candidate.layout for candidate, _ in rows)
    table = Table(
        title=f"{plan.candidates:,} candidates priced in {plan.seconds:.2f} s", **left_title(caption_of(common))
    )
    priced = any(candidate.usd_per_hour is not None for candidate, _ in rows)
    names_of = ["", "layout", "alike", "devices", *(["USD/hour", "USD per\nM tokens"] if priced else [])]
    for name in (*names_of, "TTFT ms", "TPOT ms", "goodput req/s", "meets SLO"):
        table.add_column(name, justify="left" if name == "layout" else "right", overflow="fold")
    for place, (candidate, alike) in enumerate(rows, 1):
        p = candidate.prediction
        money = [number(candidate.usd_per_hour, 2), number(candidate.usd_per_million_tokens, 2)] if priced else []
        table.add_row(
            str(place), names[candidate.layout], f"+{alike}" if alike else "", str(candidate.layout.devices), *money,
            number(p.ttft_ms), number(p.tpot_ms, 2), number(p.goodput_req_per_s, 2),
            ("yes" if p.meets_slo else "no") + (", simulated" if p.simulated else ""),
        )  # fmt: skip
    console.print(table)
    print_lines(console, [f"The first {caution}." for caution in rows[0][0].layout.cautions])
    breakdown_table(console, [c for c, _ in rows if c.layout in breakdowns][:3], breakdowns)
    dropped_table(console, plan.dropped)


def _distinct(ranked: Sequence[Candidate]) -> list[tuple[Candidate, int]]:
    """The first candidate of each run of equal degrees and equal figures, and how many follow it."""
    found: dict[object, tuple[Candidate, int]] = {}
    for candidate in ranked:
        p = candidate.prediction
        key = (candidate.layout.shape, p.ttft_ms, p.tpot_ms, p.goodput_req_per_s)
        first, alike = found.get(key, (candidate, -1))
        found[key] = (first, alike + 1)
    return list(found.values())


def left_title(caption: str | None = None) -> TitleOptions:
    """A table's title and caption at its left edge."""
    return {"title_justify": "left", "caption": caption, "caption_justify": "left"}


def breakdown_table(
    console: Console, candidates: Sequence[Candidate], breakdowns: Mapping[ParallelLayout, Breakdown]
) -> None:
    """Terms of TTFT and TPOT of one request alone, side by side."""
    if not candidates:
        return
    names, common = short_names(candidate.layout for candidate in candidates)
    table = Table(title="Where the milliseconds go (one request alone)", **left_title(caption_of(common)))
    table.add_column("term", overflow="fold")
    for candidate in candidates:
        table.add_column(f"{names[candidate.layout]}\nTTFT", justify="right", overflow="fold")
        table.add_column("\nTPOT", justify="right")
    splits = [breakdowns[c.layout] for c in candidates]
    terms = dict.fromkeys(name for split in splits for name in (*split.ttft_ms, *split.tpot_ms))
    for name in terms:
        cells = [cell for s in splits for cell in (s.ttft_ms.get(name), s.tpot_ms.get(name))]
        table.add_row(name, *(number(cell, 3) for cell in cells))
    table.add_section()
    totals = [sum(parts.values()) for s in splits for parts in (s.ttft_ms, s.tpot_ms)]
    table.add_row("total", *(number(value, 3) for value in totals))
    console.print(table)


def dropped_table(
    console: Console, dropped: Sequence[DroppedGroup], safe: Callable[[DroppedGroup], str] | None = None
) -> None:
    """What never was launched, the figure that decided it, and why that is ``safe``. Beyond ``MOST_ALIKE`` rows of one
    reason, the rest is one row."""
    if not dropped:
        return
    shown = list[DroppedGroup]()
    more: dict[DropReason, int] = {}
    for group in _merged(dropped):
        if sum(one.reason is group.reason for one in shown) < MOST_ALIKE:
            shown.append(group)
        else:
            more[group.reason] = more.get(group.reason, 0) + group.count
    names, common = short_names(group.example for group in shown)
    table = Table(title="Dropped before launch", **left_title(caption_of(common)))
    table.add_column("reason")
    table.add_column("count", justify="right")
    table.add_column("for example", overflow="fold")
    table.add_column("figure", overflow="fold")
    if safe:
        table.add_column("why that is safe", overflow="fold")
    for group in shown:
        cells = [safe(group)] if safe else []
        table.add_row(group.reason.value, f"{group.count:,}", names[group.example], group.figure, *cells)
    for reason, count in more.items():
        table.add_row(reason.value, f"{count:,}", "more", ABSENT, *([ABSENT] if safe else []))
    console.print(table)


def _merged(dropped: Sequence[DroppedGroup]) -> list[DroppedGroup]:
    """Groups of one reason and figure as one, by the first example."""
    found: dict[tuple[DropReason, str], DroppedGroup] = {}
    for group in dropped:
        key = (group.reason, group.figure)
        known = found.get(key)
        found[key] = replace(known, count=known.count + group.count) if known else group
    return list(found.values())


def trace_lines(workload: Workload, *more: str) -> list[str]:
    """What the trace of a workload brought, and what was left out of it, then ``more``; nothing without a trace."""
    if workload.arrival.recorded is None:
        return []
    prompt, output = workload.prompt_tokens, workload.output_tokens
    told = (
        f"The trace: prompts of {prompt.mean:,.0f} tokens (mean; at most {prompt.max:,}), outputs of "
        f"{output.mean:,.0f} (at most {output.max:,}), at {workload.arrival.requests_per_s:.4g} requests/s"
    )
    return [told, *notes(workload), *more]


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Sentences, one per line, as they are."""
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def what_if_tables(console: Console, supposed: WhatIf, plan: Plan) -> None:
    """Who would win with each technique, the same layouts under both prices, and what the techniques are."""
    priced = [s for e in supposed.effects for s in (e.before, e.after) if s is not None]
    names, common = short_names(dict.fromkeys(one.layout for one in priced))
    table = Table(
        title="What if (the engine has none of these; nothing here can be emitted)", **left_title(caption_of(common))
    )
    table.add_column("technique", overflow="fold")
    table.add_column("best layout", overflow="fold")
    for name in ("devices", "TTFT ms", "TPOT ms", "E2E ms", "goodput req/s", "meets SLO"):
        table.add_column(f"{name}\nwithout → with", justify="right")
    for effect in supposed.effects:
        pairs = [(effect.before, effect.before_with)]
        pairs += [(effect.after_without, effect.after)] if effect.another_wins else []
        for place, (without, found) in enumerate(pairs):
            if without is not None and found is not None:
                first = " + ".join(effect.techniques) if place == 0 else "  → wins now"
                table.add_row(first, names[found.layout], *_what_if_cells(without, found))
        table.add_section()
    console.print(table)
    for line in supposed.summary():
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _what_if_cells(without: PricedLayout, found: PricedLayout) -> list[str]:
    """Figures of one layout without and with, as one where they are equal."""
    columns = [
        (str(without.gpus), str(found.gpus)),
        (number(without.ttft_ms), number(found.ttft_ms)),
        (number(without.tpot_ms, 2), number(found.tpot_ms, 2)),
        (number(without.e2e_ms, 0), number(found.e2e_ms, 0)),
        (number(without.goodput_req_per_s, 2), number(found.goodput_req_per_s, 2)),
        ("yes" if without.meets_slo else "no", "yes" if found.meets_slo else "no"),
    ]
    return [old if old == new else f"{old} → {new}" for old, new in columns]


def volume_tables(console: Console, answer: VolumeAnswer) -> None:
    """Operations of one TP rank of each stage, and the paper's formulas."""
    title = f"{answer.model} · {answer.layout} · {answer.prompt_tokens} + {answer.output_tokens} tokens"
    table = Table(title=title, title_justify="left")
    for name in ("phase", "stage", "operation", "ranks", "calls", "shape", "bytes per call", "where"):
        table.add_column(name, justify="right" if name in ("stage", "ranks", "calls", "bytes per call") else "left")
    for row in answer.operations:
        shape = " × ".join(f"{n:,}" for n in row.shape)
        table.add_row(
            row.phase, str(row.stage), row.operation, str(row.ranks), f"{row.calls:,}", shape,
            f"{row.message_bytes:,}", row.where,
        )  # fmt: skip
    console.print(table if answer.operations else f"{title}: nothing is sent")
    console.print(f"Sent over all ranks of one replica: {answer.sent_bytes_all_ranks:,} bytes")
    moved = answer.kv_transfer
    links = ", ".join(f"stage {one.stage}: {one.links} × {one.link_bytes:,}" for one in moved.links)
    console.print(
        f"KV cache of the prompt, if prefill and decode are apart: {moved.bytes_per_request:,} bytes ({links})"
    )
    formulas = Table(title="Formulas of Xu et al. (arXiv 2507.14392)", title_justify="left")
    formulas.add_column("volume")
    formulas.add_column("bytes", justify="right")
    formulas.add_row("V_tp", f"{answer.paper.v_tp_bytes:,}")
    formulas.add_row("V_pp", f"{answer.paper.v_pp_bytes:,}")
    for name, value in answer.paper.v_hybrid_bytes:
        formulas.add_row(f"V_hybrid {name.replace('_', ' ')}", f"{value:,}")
    console.print(formulas)


def collective_table(console: Console, answer: CollectiveAnswer) -> None:
    """One collective: its algorithm, the terms of its time, and why the engine picks it."""
    title = f"{answer.operation} of {answer.bytes:,} bytes, {answer.ranks} ranks on {answer.nodes} node(s)"
    console.print(title, highlight=False, style="italic", soft_wrap=True)
    table = Table()
    table.add_column("term")
    table.add_column("µs", justify="right")
    for name, value in answer.terms.items():
        table.add_row(name.removesuffix("_us"), number(value, 2))
    table.add_section()
    table.add_row("total", number(answer.latency_us, 2))
    console.print(table)
    console.print(f"algorithm: {answer.algorithm}", highlight=False, markup=False)
    for text in (answer.why, *(answer.device_notes or ())):
        if text:
            console.print(text, soft_wrap=True, highlight=False, markup=False)


def outcome(trial: TrialResult, request: TuneRequest) -> str:
    """How a trial ended, in a few words."""
    if trial.state is TrialState.FAILED:
        return f"failed: {trial.failure.value if trial.failure else 'unknown'}"
    if trial.state is TrialState.RUNNING:
        return "running"
    best = trial.best_step(request)
    if best is None:
        return "misses the SLO" if trial.verdict(request) is Verdict.MISSED else "shows nothing of the SLO"
    return (
        "meets the SLO" if trial.state is TrialState.MEASURED else f"meets it up to {best.step.rate_req_per_s:g} req/s"
    )


def validation_tables(console: Console, answer: ValidateAnswer) -> None:
    """Errors over all rows and by system, and what could not be priced."""
    table = Table(title=f"{answer.kind}: {answer.scored} of {answer.rows} rows scored, errors in %")
    table.add_column("system")
    for name in ("rows", *(f"{figure} {part}" for figure in answer.by_figure() for part in ("mean", "median"))):
        table.add_column(name, justify="right")
    for name, part in [*answer.by_system.items(), ("all", answer)]:
        errors = [number(value) for error in part.by_figure().values() for value in (error.mean, error.median)]
        table.add_row(name, str(part.rows), *errors)
    console.print(table)
    for reason in answer.not_priced:
        console.print(f"{reason.rows} rows not priced, the first in line {reason.first_line}: {reason.reason}")
