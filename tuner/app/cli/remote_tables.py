"""Tables of what a service answers, for people: the same figures as without one, from the answers alone."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tuner.app.answers.decision import OriginAnswer, ShowAnswer
from tuner.app.answers.explain import ExplainAnswer
from tuner.app.answers.plan import DroppedAnswer, PlanAnswer
from tuner.app.answers.trial import TrialAnswer
from tuner.app.cli.tables import left_title, number, print_lines


def plan_answer_tables(console: Console, answer: PlanAnswer, top: int) -> None:
    """The ranking, what was dropped, and why none meets the SLO."""
    table = Table(title=f"{answer.candidates:,} candidates priced in {answer.seconds:.2f} s", **left_title())
    for name in ("", "layout", "devices", "USD/hour", "TTFT ms", "TPOT ms", "goodput req/s", "meets SLO"):
        table.add_column(name, justify="left" if name == "layout" else "right", overflow="fold")
    for place, row in enumerate(answer.ranked[:top], 1):
        meets = ("yes" if row.meets_slo else "no") + (", simulated" if row.simulated else "")
        figures = (number(row.ttft_ms), number(row.tpot_ms, 2), number(row.goodput_req_per_s, 2), meets)
        table.add_row(str(place), row.layout, str(row.gpus), number(row.usd_per_hour, 2), *figures)
    if answer.ranked:
        console.print(table)
    _dropped(console, answer.dropped)
    front = answer.front.lines[: 1 if answer.infeasible else None] if answer.front else []
    print_lines(console, [*answer.device_notes, *front, *(answer.infeasible.lines if answer.infeasible else ())])


def study_answer_tables(console: Console, answer: ShowAnswer) -> None:
    """A study's end, or how it stands."""
    _simulated(console, answer)
    if not answer.ended:
        print_lines(console, ["The study has not ended: this is how it stands."])
    if answer.trials:
        table = Table(title=f"Study {answer.study}", **left_title())
        for name in ("", "layout", "outcome", "req/s", "TTFT p99 ms", "TPOT p99 ms", "attained", "goodput req/s"):
            table.add_column(name, justify="left" if name in ("layout", "outcome") else "right", overflow="fold")
        for trial in answer.trials:
            table.add_row(*_trial_cells(trial, answer))
        console.print(table)
    _dropped(console, answer.dropped)
    if answer.winner is not None:
        title = "Winner" if answer.ended else "Best so far"
        console.print(f"[bold green]{title}[/bold green]: [bold]{answer.winner.layout}[/bold]", highlight=False)
    _told(console, answer)
    print_lines(console, [*answer.device_notes, *(answer.infeasible.lines if answer.infeasible else ())])


def explain_answer_tables(console: Console, answer: ExplainAnswer) -> None:
    """Why the winner won, where the milliseconds go, and why what was not launched lost nothing."""
    _simulated(console, answer)
    if not answer.ended:
        print_lines(console, ["The study has not ended: this is how it stands."])
    _told(console, answer)
    for row in answer.layouts:
        if row.breakdown is not None:
            table = Table(title=f"Where the milliseconds of {row.layout} go", **left_title())
            for name in ("term", "TTFT", "TPOT"):
                table.add_column(name, justify="left" if name == "term" else "right")
            for term in dict.fromkeys([*row.breakdown.ttft_ms, *row.breakdown.tpot_ms]):
                ttft, tpot = row.breakdown.ttft_ms.get(term), row.breakdown.tpot_ms.get(term)
                table.add_row(term, number(ttft, 2), number(tpot, 3))
            console.print(table)
    for learnt in answer.learnt:
        spread = f"{learnt.low:.2f} to {learnt.high:.2f}"
        console.print(f"The trials say: {learnt.term} is {learnt.factor:.2f} × the model's ({spread})", highlight=False)
    print_lines(console, [f"{group.count:,} dropped by {group.reason}: {group.why_safe}" for group in answer.dropped])
    print_lines(console, [*answer.device_notes, *(answer.infeasible.lines if answer.infeasible else ())])


def _simulated(console: Console, answer: OriginAnswer) -> None:
    if answer.simulated:
        words = f"Simulated (seed {answer.simulated_seed}): no figure here is from a real engine."
        console.print(words, style="bold yellow")


def outcome_of(trial: TrialAnswer) -> str:
    """How a trial ended, in a few words."""
    if trial.state == "failed":
        return f"failed: {trial.failure or 'unknown'}"
    if trial.state == "running" or trial.measured is None:
        return trial.state
    says = {True: "meets the SLO", False: "misses the SLO", None: "shows nothing of the SLO"}
    if trial.state == "stopped" and trial.measured.meets_slo:
        return f"meets it up to {trial.measured.rate_req_per_s:g} req/s"
    return says[trial.measured.meets_slo]


def _trial_cells(trial: TrialAnswer, answer: ShowAnswer) -> list[str]:
    wins = answer.winner is not None and answer.winner.number == trial.number
    cells = ["*" if wins else "", trial.layout, outcome_of(trial)]
    step = trial.measured
    if step is None:
        return [*cells, *[number(None)] * 5]
    ttft, tpot = (None if found is None else found.p99 for found in (step.ttft_ms, step.tpot_ms))
    attained = number(None if step.attainment is None else 100 * step.attainment) + " %"
    return [
        *cells, f"{step.rate_req_per_s:g}", number(ttft), number(tpot, 2), attained, number(step.goodput_req_per_s, 2),
    ]  # fmt: skip


def _dropped(console: Console, groups: list[DroppedAnswer]) -> None:
    if not groups:
        return
    table = Table(title="Not launched", **left_title())
    for name in ("reason", "layouts", "for example", "figure"):
        table.add_column(name, justify="right" if name == "layouts" else "left", overflow="fold")
    for group in groups:
        table.add_row(group.reason, f"{group.count:,}", group.example, group.figure)
    console.print(table)


def _told(console: Console, answer: ShowAnswer | ExplainAnswer) -> None:
    """Why it was decided so, what would have to change, and why no more was launched."""
    stopped = answer.stopped.sentence if answer.stopped is not None else None
    print_lines(console, [text for text in (answer.why, answer.remedy, stopped) if text])
