"""The terminal while a study runs: a line per event, and where there is a terminal, a live line below them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from tuner.app.cli.tables import number, outcome
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.slo import Verdict
from tuner.plan.prune import Plan
from tuner.search.proposal import Proposal
from tuner.search.rates import usual_load_s
from tuner.stats.warm_up import LOOK_S
from tuner.study.device_leases import Blocked
from tuner.study.observer import Observer
from tuner.study.start_forecast import StartForecast
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, StepResult, TrialResult
from tuner.trial.seams import RunningDeployment

_SAYS = {
    Verdict.MET: "meets the SLO",
    Verdict.MISSED: "misses the SLO",
    Verdict.UNKNOWN: "shows nothing of the SLO",
}
FIRST_GUESS_READY_S = 60.0


@dataclass
class _Running:
    """A trial on the screen: since when, and what it does."""

    since: float
    phase: str = ""
    text: str = ""


class Screen(Observer):
    """Shows a study to a person. ``console`` writes to stderr, so that stdout stays for answers."""

    def __init__(self, console: Console, request: TuneRequest) -> None:
        self._console, self._request = console, request
        self._started = time.perf_counter()
        self._launches = request.budget.launches
        self._done: list[float] = []
        self._finished: list[TrialResult] = []
        self._running: dict[int, _Running] = {}
        self._best = ""
        self._unlaunched = 0  # trials on the engines of others
        self._status: Status | None = console.status("starting") if console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def close(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        """One line for the record."""
        elapsed = time.perf_counter() - self._started
        self._console.print(
            f"[dim]{int(elapsed // 60):2d}:{int(elapsed % 60):02d}[/dim]  {text}", highlight=False, soft_wrap=True
        )

    def planned(self, plan: Plan) -> None:
        dropped = sum(group.count for group in plan.dropped)
        self.note(
            f"{plan.candidates:,} layouts priced in {plan.seconds:.2f} s: {len(plan.ranked)} kept, {dropped:,} dropped "
            f"by the model; at most {self._launches} will be launched"
        )

    def waiting(self, proposal: Proposal, blocked: Blocked) -> None:
        self.note(f"{proposal.deployment} {escape(blocked.words)}")

    def resumed(self, finished: Sequence[TrialResult], orphans: Sequence[str]) -> None:
        self._unlaunched = sum(trial.engine_of is not None for trial in finished)
        left = f"; torn down: {', '.join(orphans)}" if orphans else ""
        self._finished += finished
        self.note(f"resumed: {len(finished)} trials are finished and will not run again{left}")

    def remembered(self, studies: Sequence[str]) -> None:
        self.note(f"begins with what was learnt of the prices here by {', '.join(studies)}")

    def trial_started(self, number: int, launches: int, proposal: Proposal) -> None:
        self._running[number] = _Running(time.perf_counter())
        self._unlaunched += proposal.engine_of is not None
        beside = f", beside {len(self._running) - 1} more" if len(self._running) > 1 else ""
        which = f"trial {number + 1}" + (f" of at most {launches}" if proposal.engine_of is None else ", same engine")
        self.note(
            f"{which}: [bold]{proposal.deployment}[/bold] ({proposal.why}){beside}, "
            f"about {self._left(number, proposal)} left"
        )

    def launching(self, number: int, text: str) -> None:
        self._set_live(number, text)
        running, phase = self._running.get(number), text.partition(" (")[0]
        if running is None:
            return
        if self._status is None and phase != running.phase:
            self._note_of(number, text)
        running.phase = phase

    def ready(self, number: int, deployment: RunningDeployment) -> None:
        self._note_of(number, f"ready after {deployment.ready_after_s:.1f} s")

    def step_started(self, number: int, step: LoadStep, steps: int) -> None:
        name = "warm-up" if step.warmup else f"load step {step.index + 1} of {steps}"
        about = "about " if step.longest_s is not None else ""
        self._set_live(number, f"{name}, {step.rate_req_per_s:g} req/s for {about}{step.duration_s:g} s")

    def measuring(self, number: int, text: str) -> None:
        self._set_live(number, text)

    def step_measured(self, number_: int, result: StepResult) -> None:
        if result.step.warmup:
            self._warmed_up(number_, result)
            return
        parts = [f"{result.step.rate_req_per_s:g} req/s", f"{result.completed}/{result.sent} answered"]
        for metric in (Metric.TTFT, Metric.TPOT):
            if (found := result.latency.get(metric)) is not None:
                parts.append(f"{metric.value.upper()} p50 {number(found.p50_ms)} p99 {number(found.p99_ms)} ms")
        if result.invalid is not None:
            parts.append(f"[yellow]invalid: {escape(result.invalid)}[/yellow]")
        else:
            parts.append(_SAYS[result.verdict(self._request)])
        if result.ended_early is not None and result.offered_s is not None:
            parts.append(f"certain after {result.offered_s:.1f} s")
        self._note_of(number_, ", ".join(parts))
        for caution in result.cautions:
            self._note_of(number_, f"[yellow]{escape(caution)}[/yellow]")

    def _warmed_up(self, number_: int, result: StepResult) -> None:
        """A line on a warm-up that was not as long as usual."""
        took_s, usual_s = result.offered_s, result.step.duration_s
        if took_s is not None and abs(took_s - usual_s) >= LOOK_S:
            self._note_of(number_, f"warm-up of {took_s:.1f} s (usually {usual_s:g} s)")

    def trial_finished(self, result: TrialResult) -> None:
        detail = f": {result.detail}" if result.detail else ""
        self._note_of(result.number, f"{outcome(result, self._request)}{detail}")
        for line in result.log_tail[-5:]:
            self._console.print(f"        {line}", style="dim", highlight=False, markup=False, soft_wrap=True)
        self._finished.append(result)
        if (running := self._running.pop(result.number, None)) is not None:
            self._done.append(time.perf_counter() - running.since)

    def best_so_far(self, best: TrialResult | None, spent: Spent) -> None:
        layout = str(best.deployment) if best is not None else ""
        if layout and layout != self._best:
            self.note(f"best so far: {layout}, {outcome(best, self._request)}")  # type: ignore[arg-type]
        self._best = layout

    def ended(self, why: str) -> None:
        self.note(why)

    def _note_of(self, number: int, text: str) -> None:
        """A line on one trial, which is named where several run."""
        self.note(f"  trial {number + 1}: {text}" if len(self._running) > 1 else f"  {text}")

    def _left(self, number: int, proposal: Proposal) -> str:
        """Time for the trials that may still come: this one's start as its phases foretell, the others at the pace of
        those so far."""
        running = proposal.engine_of is not None
        start_s = 0.0 if running else StartForecast(self._request, self._finished).expected_s(proposal.deployment)
        load_s = usual_load_s(self._request, warm=running)
        this_s = load_s + (FIRST_GUESS_READY_S if start_s is None else start_s)
        each_s = sum(self._done) / len(self._done) if self._done else this_s
        others = max(self._launches - number - 1 + self._unlaunched, 0)
        seconds = (this_s + each_s * others) / max(len(self._running), 1)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

    def _set_live(self, number: int, text: str) -> None:
        if number in self._running:
            self._running[number].text = text
        if self._status is not None:
            shown = (f"trial {n + 1}: {r.text}" for n, r in sorted(self._running.items()) if r.text)
            self._status.update("\n".join(shown) or text)
