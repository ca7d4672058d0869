"""A watched study on a terminal: at a glance how it stands, then why, then what serves."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuner.app.answers.watch import LayoutOutlookAnswer, OutlookAnswer, StandingAnswer, WatchAnswer

STYLES = {
    "well": "green",
    "noticed": "yellow",
    "held": "yellow",
    "blind": "magenta",
    "acting": "cyan",
    "failed": "bold red",
}


def show_watch(console: Console, answer: WatchAnswer) -> None:
    """All of it."""
    console.print(f"[bold]{escape(answer.study)}[/bold]" + (" (paused)" if answer.paused else ""), highlight=False)
    if answer.windows_shortened != 1:
        console.print(f"detectors' windows are shortened {answer.windows_shortened:g} times", style="yellow")
    if answer.standing is None:
        console.print("nobody has looked yet", style="dim")
    else:
        show_standing(console, answer.standing)
    _deployments(console, answer)
    for one in answer.happened[:8]:
        console.print(f"  {_clock(one.at)}  {escape(one.kind)}: {escape(one.text)}", highlight=False, soft_wrap=True)


def show_standing(console: Console, standing: StandingAnswer) -> None:
    """How a look stood: the state, what was noticed, what a change would bring, what holds it back."""
    style = STYLES.get(standing.state, "")
    console.print(
        f"[{style}]{standing.state.upper()}[/{style}]  {escape(standing.text)}", highlight=False, soft_wrap=True
    )
    if standing.notices:
        table = Table("noticed", "of", "evidence", "sure", "since", box=None, pad_edge=False)
        for one in standing.notices:
            sure = "cannot see" if one.kind == "blind" else f"{one.confidence:.0%}"
            table.add_row(one.kind, one.of, escape(one.evidence), sure, _clock(one.since))
        console.print(table)
    judgement = standing.judgement
    if judgement is not None and judgement.outlook is not None:
        _outlook(console, judgement.outlook)
    if judgement is not None and judgement.held_by:
        for held, words in judgement.held_by.items():
            console.print(f"held by {held}: {escape(words)}", style="yellow", highlight=False, soft_wrap=True)
    for line in standing.acted:
        console.print(f"→ {escape(line)}", style="cyan", highlight=False, soft_wrap=True)


def standing_line(study: str, standing: StandingAnswer) -> str:
    """In one line, for a log."""
    return f"{time.strftime('%H:%M:%S')} {study}: {standing.state}: {standing.text}"


def _outlook(console: Console, outlook: OutlookAnswer) -> None:
    targets = list(dict.fromkeys([*_ms(outlook.present), *_ms(outlook.best)]))
    columns = ("layout", "GPUs", "meets the SLO", "how sure", "requests/s", "USD/h", *targets)
    table = Table("", *columns, box=None, pad_edge=False)
    for name, one in (("serves", outlook.present), ("best", outlook.best)):
        if one is None:
            table.add_row(name, "does not fit the cluster" if name == "serves" else "none")
            continue
        sure = "measured" if one.measured else "–" if one.chance is None else f"{one.chance:.0%}"
        meets = {True: "yes", False: "no", None: "unknown"}[one.meets_slo]
        carries = "–" if one.goodput_req_per_s is None else f"{one.goodput_req_per_s:.3g}"
        usd = "–" if one.usd_per_hour is None else f"{one.usd_per_hour:.2f}"
        values = [f"{one.ms[key]:.3g} ms" if key in one.ms else "–" for key in targets]
        table.add_row(name, one.layout, str(one.gpus), meets, sure, carries, usd, *values)
    console.print(table)
    takes = f"{outlook.tuning_gpu_hours:.2f} GPU-hours of trials, {outlook.moving_gpu_hours:.2f} of moving"
    gain = f"gain {outlook.gain:+.1%}" + (", and the SLO is regained" if outlook.regains_slo else "")
    console.print(f"{gain}; it takes {takes}", highlight=False)
    for one_assumed in outlook.assumed:
        console.print(f"assumed: {escape(one_assumed)}", style="dim", highlight=False, soft_wrap=True)


def _ms(one: LayoutOutlookAnswer | None) -> dict[str, float]:
    return {} if one is None else one.ms


def _deployments(console: Console, answer: WatchAnswer) -> None:
    if not answer.deployments:
        return
    shares = {one.new: one.share for one in answer.rollouts[:1] if one.step not in ("done", "rolled_back", "failed")}
    table = Table("deployment", "layout", "state", "of round", "serves since", "share", box=None, pad_edge=False)
    for one in answer.deployments[:6]:
        since = "–" if one.serving_since is None else _clock(one.serving_since)
        share = f"{shares[one.name]:.0%}" if one.name in shares else ""
        table.add_row(one.name, one.layout, one.state.replace("_", " "), one.study, since, share)
    console.print(table)


def _clock(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%m-%d %H:%M:%S}"
