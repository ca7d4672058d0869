"""``parlay explain``: why a study's winner won, what came second, what was never tried and why that is safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from tuner.app.answers.decision import origin_answer
from tuner.app.answers.devices import on_devices
from tuner.app.answers.engine import engine_answer
from tuner.app.answers.explain import ExplainAnswer, LearntAnswer, SafelyDroppedAnswer, never_launched_answer
from tuner.app.answers.infeasible import infeasible_answer
from tuner.app.answers.layout_summary import budget_answer, layout_summary_answer, spent_answer
from tuner.app.answers.plan import dropped_answer, ranked_answer
from tuner.app.answers.stopping import stopped_answer
from tuner.app.cli.tables import breakdown_table, dropped_table, left_title, print_lines
from tuner.app.tune.learnt_prices import LearntPrice, learnt_prices
from tuner.app.tune.tables import budget_line, summaries_table
from tuner.app.wiring import breakdowns, decision_of, memories
from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.ask.rules import DropReason, illegal
from tuner.ask.space import load_space
from tuner.cost.breakdown import Breakdown
from tuner.cost.stands_on import measured_of_all
from tuner.decide.decision import Decision
from tuner.errors import BadInput
from tuner.explain.never_launched import NeverLaunched, never_launched
from tuner.plan.infeasible import Infeasible, slower_than_predicted
from tuner.plan.prune import Candidate, DroppedGroup
from tuner.plan.replica_prices import MARGIN
from tuner.study.records import StudyRecord
from tuner.study.store import Store

_BEHIND_ANOTHER = "the same engine is ranked, behind a path that suits it better by the model"
_FACT = "it could not have run"
_MISSES = f"even {MARGIN:g} × faster than the model, one request alone misses the target"
_RANKED = "a judgement of the model: below, by how much it would have to err"
_MEASURED = "what was measured says so"


@dataclass(frozen=True, slots=True)
class Explained:
    """The pieces of an explanation, for people and for machines.

    ``dropped`` says what never was launched, ``planned`` is what the plan dropped of it; ``waiting`` counts the
    candidates that were kept and not launched either.
    ``rivals`` is None without a winner; ``ended`` is False where the study goes on, ``one_layout`` True
    where that alone was asked for.
    """

    decision: Decision
    ended: bool
    one_layout: bool
    candidates: tuple[Candidate, ...]
    splits: dict[ParallelLayout, Breakdown]
    dropped: tuple[DroppedGroup, ...]
    planned: tuple[DroppedGroup, ...]
    waiting: int
    learnt: tuple[LearntPrice, ...]
    rivals: NeverLaunched | None

    @property
    def reasons(self) -> Infeasible | None:
        """Why no layout meets the SLO, where the whole study is explained and that is known."""
        return None if self.one_layout else self.decision.infeasible

    def answer(self, record: StudyRecord) -> ExplainAnswer:
        """The explanation as JSON; ``record`` is the study's."""
        decision, request = self.decision, record.request
        held = memories(request, self.splits)
        return ExplainAnswer(
            **dict(origin_answer(record.facts)),
            **dict(on_devices(request)),
            study=decision.study,
            ended=self.ended,
            why=decision.why,
            remedy=decision.remedy,
            stopped=stopped_answer(decision.stopped),
            standings=[layout_summary_answer(summary, request) for summary in decision.standings],
            layouts=[ranked_answer(c, self.splits.get(c.layout), held[c.layout]) for c in self.candidates],
            dropped=[
                SafelyDroppedAnswer(**dict(dropped_answer(group)), why_safe=self.why_safe(group))
                for group in self.dropped
            ],
            kept_but_not_launched=self.waiting,
            learnt=[LearntAnswer(**asdict(one)) for one in self.learnt],
            untried=never_launched_answer(self.rivals) if self.rivals else None,
            infeasible=infeasible_answer(self.reasons) if self.reasons else None,
            spent=spent_answer(decision.spent),
            budget=budget_answer(request.budget),
            engine=engine_answer(request, record.facts),
        )

    def why_safe(self, group: DroppedGroup) -> str:
        """Why nothing was lost by not launching a group."""
        if group.reason in (DropReason.SLO_TTFT, DropReason.SLO_TPOT, DropReason.SLO_E2E):
            return _MISSES
        if group.reason is DropReason.OTHER_FRONT:
            return _BEHIND_ANOTHER
        if group.reason is not DropReason.OUTRANKED:
            return _FACT
        return _RANKED if group in self.planned else _MEASURED

    def print(self, console: Console, request: TuneRequest) -> None:
        """The explanation in the terminal."""
        told = [] if self.ended else ["The study has not ended: this is how it stands."]
        decided = (self.decision.why, self.decision.remedy, self.decision.stopped_in_words)
        print_lines(console, [*told, *(text for text in decided if text)])
        summaries_table(console, self.decision, request)
        breakdown_table(console, self.candidates, self.splits)
        _learnt_table(console, self.learnt)
        dropped_table(console, self.dropped, self.why_safe)
        lines = [f"{self.waiting} kept candidates were not launched."] if self.waiting else []
        lines += self.rivals.lines() if self.rivals else []
        lines += self.reasons.lines() if self.reasons else []
        print_lines(console, [*lines, *measured_of_all(request).notes, budget_line(self.decision, request)])


def explain_study(store: Store, record: StudyRecord, layout: ParallelLayout | None) -> Explained:
    """Explain the winner beside the runner-up, or one layout; raises BadInput for one that is not of the space."""
    (decision, ended), request = decision_of(store, record), record.request
    ranked = {candidate.layout: candidate for candidate in record.ranked or ()}
    tried = {trial.layout for trial in decision.trials}
    rivals = None
    model, cluster = requested_model(request), requested_cluster(request)
    if layout is not None:
        chosen = [layout] if layout in ranked else []
        dropped = () if chosen else _why_dropped(record, decision, layout)
    else:
        chosen = [t.layout for t in (decision.winner, decision.runner_up) if t is not None]
        chosen = chosen or [t.layout for t in decision.trials[:2]]
        dropped = decision.dropped
        if decision.winner is not None:
            slower = slower_than_predicted(request, decision.trials, decision.predictions)
            rivals = never_launched(request, model, load_space(request.space), decision.standings[0], tried, slower)
    splits = breakdowns(request, model, cluster, [one for one in chosen if one in ranked])
    named = {group.example for group in decision.dropped}
    waiting = 0 if layout else len([one for one in ranked if one not in tried and one not in named])
    return Explained(
        decision=decision,
        ended=ended,
        one_layout=layout is not None,
        candidates=tuple(ranked[one] for one in splits),
        splits=splits,
        dropped=tuple(dropped),
        planned=tuple(record.dropped or ()),
        waiting=waiting,
        learnt=() if layout else learnt_prices(record, decision),
        rivals=rivals,
    )


def _learnt_table(console: Console, learnt: Sequence[LearntPrice]) -> None:
    if not learnt:
        return
    table = Table(title="What the trials taught: factors on the model's prices", **left_title())
    table.add_column("price")
    for name in ("factor", "95 % interval", "before"):
        table.add_column(name, justify="right")
    for one in learnt:
        table.add_row(
            one.term, f"{one.factor:.2f}", f"{one.low:.2f}–{one.high:.2f}", f"{one.prior_low:.2f}–{one.prior_high:.2f}"
        )  # fmt: skip
    console.print(table)


def _why_dropped(record: StudyRecord, decision: Decision, layout: ParallelLayout) -> tuple[DroppedGroup, ...]:
    drop = illegal(requested_model(record.request), layout, requested_cluster(record.request).group(layout))
    if drop is not None:
        return (DroppedGroup(drop.reason, 1, layout, drop.figure),)
    same = tuple(g for g in decision.dropped if g.example == layout)
    alike = tuple(g for g in decision.dropped if g.example.shape == layout.shape)
    if not same and not alike:
        raise BadInput("--layout", str(layout), "a layout of the study's space")
    return same or alike
