"""Tables of a study: its trials, where each layout stands over all of them, what was spent, and the decision."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tuner.app.cli.tables import (
    ABSENT,
    caption_of,
    dropped_table,
    left_title,
    number,
    outcome,
    print_lines,
    short_names,
)
from tuner.app.tune.start_table import starts_table
from tuner.ask.request import SloTarget, TuneRequest
from tuner.ask.slo import ratio
from tuner.decide.decision import Decision
from tuner.decide.layout_summary import LayoutSummary, Spread
from tuner.explain.unlaunched import unlaunched
from tuner.trial.results import Purpose, TrialResult


def decision_tables(console: Console, decision: Decision, request: TuneRequest, ended: bool = True) -> None:
    """A study's end, or how it stands: launched layouts, dropped ones, the winner and why, the budget and the files."""
    if not ended:
        print_lines(console, ["The study has not ended: this is how it stands."])
    trials_table(console, decision, request)
    if any(summary.runs > 1 for summary in decision.standings):
        summaries_table(console, decision, request)
    starts_table(console, decision.trials)
    unlaunched_table(console, decision)
    dropped_table(console, decision.dropped)
    if decision.winner is not None:
        title = "Winner" if ended else "Best so far"
        console.print(f"[bold green]{title}[/bold green]: [bold]{decision.winner.deployment}[/bold]", highlight=False)
    told = [text for text in (decision.why, decision.remedy, decision.stopped_in_words) if text]
    lines = [*told, *caution_lines(decision, request)]
    lines.append(budget_line(decision, request))
    print_lines(console, [*lines, *(f"  {kind:12} {path}" for kind, path in decision.files.items())])


def trials_table(console: Console, decision: Decision, request: TuneRequest) -> None:
    """Every launched layout, predicted and measured side by side; the winner is marked."""
    if not decision.trials:
        return
    names, common = short_names(trial.deployment for trial in decision.trials)
    table = Table(title=f"Study {decision.study}", **left_title(caption_of(common)))
    table.add_column("", justify="right")
    table.add_column("layout", overflow="fold")
    table.add_column("outcome", overflow="fold")
    table.add_column("req/s", justify="right")
    for metric, percentile in request.shown_metrics:
        table.add_column(f"{metric.value.upper()} p{percentile:g} ms\nmodel", justify="right")
        table.add_column("\nmeasured", justify="right")
    table.add_column("attained", justify="right")
    table.add_column("goodput\nreq/s", justify="right")
    table.add_column("GPU-min", justify="right")
    for trial in decision.trials:
        table.add_row(*_trial_cells(trial, names[trial.deployment], decision, request))
    console.print(table)


def _trial_cells(trial: TrialResult, name: str, decision: Decision, request: TuneRequest) -> list[str]:
    won = decision.winner is not None and trial.number == decision.winner.number
    step = trial.shown_step(request)
    measured = step.shown_ms(request) if step else (None,) * len(request.shown_metrics)
    pairs = zip(decision.predicted_ms(request, trial), measured, strict=True)
    again = " (again)" if trial.purpose is Purpose.CONFIRM else ""
    return [
        "★" if won else str(trial.number + 1),
        name,
        outcome(trial, request) + again,
        number(step.step.rate_req_per_s if step else None, 2),
        *(number(value) for pair in pairs for value in pair),
        ABSENT if step is None or step.attainment is None else f"{step.attainment:.0%}",
        number(step.goodput_req_per_s if step else None, 2),
        number(None if trial.device_s is None else trial.device_s / 60),
    ]


def summaries_table(console: Console, decision: Decision, request: TuneRequest) -> None:
    """Where each measured layout stands, all its runs together, best first: figures with their spread and their share
    of the target."""
    if not decision.standings:
        return
    names, common = short_names(summary.deployment for summary in decision.standings)
    asked = request.workload.arrival.requests_per_s
    table = Table(title="All runs of a layout together, best first", **left_title(caption_of(common)))
    table.add_column("layout", overflow="fold")
    table.add_column("devices", justify="right")
    table.add_column("runs", justify="right")
    table.add_column(f"holds req/s\n({asked:g} asked)", justify="right")
    for target in request.slo:
        table.add_column(f"{target.metric.value.upper()} p{target.percentile:g} ms\nof {target.ms:g}", justify="right")
    table.add_column("attained\n(at least)", justify="right")
    table.add_column("E2E ms", justify="right")
    priced = any(summary.usd_per_hour is not None for summary in decision.standings)
    for name in ("USD/hour", "USD per\nM tokens") if priced else ():
        table.add_column(name, justify="right")
    for summary in decision.standings:
        table.add_row(*_summary_cells(summary, names[summary.deployment], request, priced))
    console.print(table)


def _summary_cells(summary: LayoutSummary, name: str, request: TuneRequest, priced: bool) -> list[str]:
    attained = ABSENT if summary.attainment is None else f"{summary.attainment:.1%}"
    if summary.attainment_interval is not None:
        attained += f"\n({summary.attainment_interval[0]:.1%})"
    money = [number(summary.usd_per_hour, 2), number(summary.usd_per_million_tokens, 2)] if priced else []
    return [
        name if summary.meets else f"{name} (misses)",
        str(summary.deployment.devices),
        runs_of(summary),
        _held(summary),
        *(_against(summary.slo_ms.get(target.key), target) for target in request.slo),
        attained,
        _spread(summary.e2e_ms, 0),
        *money,
    ]


def _held(summary: LayoutSummary) -> str:
    if summary.held_req_per_s is not None or summary.at_req_per_s is None:
        return number(summary.held_req_per_s, 2)
    return f"{ABSENT}\n({number(summary.at_req_per_s, 2)} missed)"


def unlaunched_table(console: Console, decision: Decision) -> None:
    """For each shape of which nothing was launched, its best candidate, the model's figures and the reason."""
    rows = unlaunched(decision) if decision.trials else ()
    if not rows:
        return
    names, common = short_names(row.layout for row in rows)
    table = Table(title="Not launched: the best candidate of each other shape", **left_title(caption_of(common)))
    table.add_column("layout", overflow="fold")
    table.add_column("alike", justify="right")
    for name in ("TTFT ms\nmodel", "TPOT ms\nmodel", "goodput req/s\nmodel"):
        table.add_column(name, justify="right")
    table.add_column("why not", overflow="fold")
    for row in rows:
        said = row.prediction
        figures = number(said.ttft_ms), number(said.tpot_ms, 2), number(said.goodput_req_per_s, 2)
        alike = f"+{row.count - 1}" if row.count > 1 else ""
        table.add_row(names[row.layout], alike, *figures, row.why)
    console.print(table)


def runs_of(summary: LayoutSummary) -> str:
    """How many runs a layout has, and what its confirmation said."""
    verdict = {None: "", True: ", confirmed", False: ", refuted"}[summary.confirmed]
    return f"{summary.runs}{verdict}"


def _against(spread: Spread | None, target: SloTarget) -> str:
    return ABSENT if spread is None else f"{_spread(spread, 1)}\n{ratio(target, spread.high):.0%} of it"


def _spread(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return ABSENT
    low, high = (spread.low, spread.high) if spread.runs > 1 else spread.interval or (None, None)
    around = f" ({number(low, digits)}–{number(high, digits)})" if low is not None else ""
    return number(spread.mean, digits) + around


def caution_lines(decision: Decision, request: TuneRequest) -> list[str]:
    """Where the server of a trial counted tokens, or answered, otherwise than asked, at the step that is shown."""
    shown = ((trial.number + 1, trial.shown_step(request)) for trial in decision.trials)
    return [f"Trial {number_}: {words}." for number_, step in shown if step is not None for words in step.cautions]


def budget_line(decision: Decision, request: TuneRequest) -> str:
    """What was spent of each budget."""
    spent, budget = decision.spent, request.budget
    lost = f" (and {spent.lost} cut short)" if spent.lost else ""
    parts = [
        f"{spent.launches} of {budget.launches} launches{lost}",
        f"{spent.minutes:.1f} of {budget.minutes:g} minutes",
    ]
    for value, limit, unit in ((spent.gpu_hours, budget.gpu_hours, "GPU-hours"), (spent.usd, budget.usd, "US dollars")):
        if value is not None:
            parts.append(f"{value:.2f}" + (f" of {limit:g}" if limit is not None else "") + f" {unit}")
    return f"Spent: {', '.join(parts)}."
