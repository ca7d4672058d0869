"""Why a study launched no more: what another launch would have cost, and what it could still have won. Pure values,
and the sentence that says them; they are computed by ``tuner.search.worth``."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.request import Objective

NOTHING_LEFT = "nothing is left that could win"
_WINS = {
    Objective.MIN_GPUS: "save {} devices",
    Objective.MIN_COST: "save {} US dollars per hour",
    Objective.MAX_GOODPUT: "serve {} requests/s more",
    Objective.MIN_LATENCY: "save {} ms of E2E latency",
}


@dataclass(frozen=True, slots=True)
class Sum:
    """Devices held, in GPU-hours, and their price in US dollars: None where a device has no price."""

    gpu_hours: float
    usd: float | None

    def __str__(self) -> str:
        return f"{_figure(self.gpu_hours)} GPU-hours" if self.usd is None else f"{_figure(self.usd)} US dollars"


@dataclass(frozen=True, slots=True)
class NextLaunch:
    """The launch that would have been worth most: its layout, what it ``costs``, the probability (``chance``) that it
    clearly beats the best measured layout, by how much if it does (``gain``, in the unit of the ``objective``), and
    what that chance is ``worth`` over the horizon."""

    layout: str
    costs: Sum
    chance: float
    objective: Objective
    gain: float
    worth: Sum

    @property
    def words(self) -> str:
        """In words, where it has a chance at all."""
        wins = _WINS[self.objective].format(_figure(self.gain))
        return f"another launch costs {self.costs}, and could {wins} with a probability of {_share(self.chance)}"


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A winner that was not measured again: what that ``costs``, and the probability that it does not hold (``fails``)
    times what it would then have cost over the horizon (``worth``)."""

    costs: Sum
    fails: float
    worth: Sum


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a study ended. ``budget`` names the part of the budget that ended it, None where it ended by itself.

    ``launch`` is None where nothing is known of one, or none is left. ``ties`` counts layouts that were not launched
    since they cannot be told apart from the winner at the asked precision (``within``, a share of the objective). A
    probability below ``unlikely`` is not told from none.
    """

    horizon_hours: float
    within: float
    unlikely: float
    budget: str | None = None
    launch: NextLaunch | None = None
    unconfirmed: Unconfirmed | None = None
    ties: int = 0

    @property
    def sentence(self) -> str:
        """One sentence for whoever pays; a second one where the winner was not measured again."""
        parts = [self.budget] if self.budget is not None else []
        if self.launch is not None and self.launch.chance:
            worth = f"which is worth {self.launch.worth} over {self.horizon_hours:g} h"
            surely = self.launch.chance >= self.unlikely
            parts.append(f"{self.launch.words}, {worth if surely else 'too little to be told from none'}")
        elif self.budget is None:
            over = "" if self.launch is None else f" by over {self.within:.0%}"
            parts.append(f"{NOTHING_LEFT}{over}")
        if self.ties:
            tie = "layout ties" if self.ties == 1 else "layouts tie"
            parts.append(f"{self.ties} other {tie} with the winner within {self.within:.0%}")
        text = f"Stopped: {'; '.join(parts)}"
        if (left := self.unconfirmed) is not None:
            text += f". A second run of the winner would cost {left.costs}, and it fails to hold with a probability of "
            text += _share(left.fails)
        return f"{text}."


def _figure(value: float) -> str:
    return f"{value:.2f}" if 0.01 <= value < 100 and value != round(value) else f"{value:.3g}"


def _share(probability: float) -> str:
    if probability < 0.001:
        return "less than 0.1 %"
    return f"{probability * 100:.2g} %"
