"""Why a study launched no more, with the figures behind the sentence."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.decide.stopping import Stopped, Sum


class SumAnswer(Answer):
    """What devices cost that are held."""

    gpu_hours: float = Field(description="Their hours.")
    usd: float | None = Field(description="Their price in US dollars; null where a device has none.")


class NextLaunchAnswer(Answer):
    """The launch that would have been worth most."""

    layout: str = Field(description="What it would have launched.")
    costs: SumAnswer = Field(description="What it would have cost.")
    chance: float = Field(description="Probability that it clearly beats the winner.")
    objective: str = Field(description="In whose unit the gain is: devices, US dollars per hour, requests/s or ms.")
    gain: float = Field(description="By how much it would then be better.")
    worth: SumAnswer = Field(description="What that chance is worth over the horizon.")


class UnconfirmedAnswer(Answer):
    """A winner that was not measured again."""

    costs: SumAnswer = Field(description="What a second run of it would have cost.")
    fails: float = Field(description="Probability that the winner does not hold.")
    worth: SumAnswer = Field(description="That probability times what the winner costs to run over the horizon.")


class StoppedAnswer(Answer):
    """What another launch would have cost, and what it could still have won."""

    sentence: str = Field(description="All of it in words.")
    horizon_hours: float = Field(description="Hours within which a launch has to pay for itself.")
    within: float = Field(description="Share of the objective below which a difference is none.")
    unlikely: float = Field(description="Probability below which a win is not looked for.")
    budget: str | None = Field(
        description="The part of the budget that ended the study; null where it ended by itself."
    )
    launch: NextLaunchAnswer | None = Field(description="The launch that came next; null where none is left or known.")
    unconfirmed: UnconfirmedAnswer | None = Field(description="Null where the winner was measured again, or is none.")
    ties: int = Field(description="Layouts not launched since they cannot be told apart from the winner.")


def stopped_answer(stopped: Stopped | None) -> StoppedAnswer | None:
    """Why a study launched no more; None of one that goes on, or ended before this was kept."""
    if stopped is None:
        return None
    launch, once = stopped.launch, stopped.unconfirmed
    return StoppedAnswer(
        sentence=stopped.sentence,
        horizon_hours=stopped.horizon_hours,
        within=stopped.within,
        unlikely=stopped.unlikely,
        budget=stopped.budget,
        launch=None if launch is None else NextLaunchAnswer(
            layout=launch.layout, costs=_sum(launch.costs), chance=launch.chance, objective=launch.objective.value,
            gain=launch.gain, worth=_sum(launch.worth),
        ),
        unconfirmed=None if once is None else UnconfirmedAnswer(
            costs=_sum(once.costs), fails=once.fails, worth=_sum(once.worth)
        ),
        ties=stopped.ties,
    )  # fmt: skip


def _sum(one: Sum) -> SumAnswer:
    return SumAnswer(**asdict(one))
