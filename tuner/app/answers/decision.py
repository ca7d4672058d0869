"""A study's decision: what ``parlay tune`` and ``parlay show`` print with ``--json``, and ``decision.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.app.answers.devices import OnDevices, on_devices
from tuner.app.answers.engine import EngineAnswer, engine_answer
from tuner.app.answers.infeasible import InfeasibleAnswer, infeasible_answer
from tuner.app.answers.layout_summary import (
    BudgetAnswer,
    LayoutSummaryAnswer,
    SpentAnswer,
    budget_answer,
    layout_summary_answer,
    spent_answer,
)
from tuner.app.answers.plan import DroppedAnswer, dropped_answer
from tuner.app.answers.stopping import StoppedAnswer, stopped_answer
from tuner.app.answers.trial import StepAnswer, TrialAnswer, trial_answer
from tuner.ask.request import TuneRequest
from tuner.decide.decision import Decision
from tuner.rehearse.conditions import simulated_seed
from tuner.study.records import StudyRecord
from tuner.trial.results import TrialResult


class OriginAnswer(Answer):
    """Whether a study's cluster was simulated."""

    simulated: bool = Field(description="Whether no engine ran.")
    simulated_seed: int | None = Field(description="Seed of the simulated cluster; null where engines ran.")


class FrontAnswer(Answer):
    """One layout of the Pareto front."""

    layout: str = Field(description="The layout.")
    gpus: int = Field(description="Its devices.")
    measured: StepAnswer | None = Field(description="The step that stands for it.")


class DecisionAnswer(OriginAnswer, OnDevices):
    """The decision of a study."""

    study: str = Field(description="The study's name.")
    winner: TrialAnswer | None = Field(description="The trial that stands for the best layout; null: none met the SLO.")
    runner_up: str | None = Field(description="The second layout that meets the SLO; null where there is none.")
    pareto: list[FrontAnswer] = Field(description="Layouts that no other beats on both axes of the front.")
    trials: list[TrialAnswer] = Field(description="Every trial, in order.")
    standings: list[LayoutSummaryAnswer] = Field(description="Measured layouts with all their runs, best first.")
    spent: SpentAnswer = Field(description="What the study used.")
    budget: BudgetAnswer = Field(description="What it might use.")
    dropped: list[DroppedAnswer] = Field(description="What never was launched, group by group.")
    why: str = Field(description="Why the winner won, or by how much the best layout misses.")
    remedy: str | None = Field(description="What would have to change; null where a layout meets the SLO.")
    stopped: StoppedAnswer | None = Field(description="Why no more was launched; null of a study that goes on.")
    infeasible: InfeasibleAnswer | None = Field(description="Why no layout can; null where one does, or none is known.")
    files: dict[str, str] = Field(description="Paths of what was written, by kind.")
    engine: EngineAnswer = Field(description="The engine that was measured.")


class ShowAnswer(DecisionAnswer):
    """A study looked at again."""

    ended: bool = Field(description="False: not decided yet, this is how its trials stand.")
    state: str = Field(description="queued, running, paused, decided, failed or cancelled.")

    def as_decision(self) -> DecisionAnswer:
        """Without what is only told of one that is looked at again."""
        return DecisionAnswer(**{name: getattr(self, name) for name in DecisionAnswer.model_fields})


def decision_answer(decision: Decision, request: TuneRequest, facts: Mapping[str, str]) -> DecisionAnswer:
    """The decision of a study; ``facts`` are the study's."""

    def shown(trials: Sequence[TrialResult]) -> list[TrialAnswer]:
        return [trial_answer(t, request, decision.predictions.get(str(t.deployment))) for t in trials]

    return DecisionAnswer(
        **dict(origin_answer(facts)),
        **dict(on_devices(request)),
        study=decision.study,
        winner=shown([decision.winner])[0] if decision.winner else None,
        runner_up=str(decision.runner_up.deployment) if decision.runner_up else None,
        pareto=[FrontAnswer(layout=row.layout, gpus=row.gpus, measured=row.measured) for row in shown(decision.pareto)],
        trials=shown(decision.trials),
        standings=[layout_summary_answer(summary, request) for summary in decision.standings],
        spent=spent_answer(decision.spent),
        budget=budget_answer(request.budget),
        dropped=[dropped_answer(group) for group in decision.dropped],
        why=decision.why,
        remedy=decision.remedy,
        stopped=stopped_answer(decision.stopped),
        infeasible=infeasible_answer(decision.infeasible) if decision.infeasible else None,
        files=dict(decision.files),
        engine=engine_answer(request, facts),
    )


def show_answer(decision: Decision, record: StudyRecord, ended: bool) -> ShowAnswer:
    """The decision of a study that ``ended``, or how it stands."""
    shown = decision_answer(decision, record.request, record.facts)
    return ShowAnswer(**dict(shown), ended=ended, state=record.state.value)


def origin_answer(facts: Mapping[str, str]) -> OriginAnswer:
    """Whether a study's cluster was simulated, and with which seed."""
    seed = simulated_seed(facts)
    return OriginAnswer(simulated=seed is not None, simulated_seed=seed)
