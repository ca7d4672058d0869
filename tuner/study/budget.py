"""What a study may spend: which part is used up by now, and whether another trial could still end within the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuner.ask.deployment import Deployment
from tuner.ask.request import Budget
from tuner.trial.ledger import Price, Spent


@dataclass(frozen=True, slots=True)
class Purse:
    """A budget and what was used of it at one moment."""

    budget: Budget
    spent: Spent
    price: Price

    def empty(self, but_launches: bool = False) -> str | None:
        """Which part of the budget is used up, or None; launches do not count for a trial that was begun already."""
        return self._beyond(replace(self.spent, launches=0) if but_launches else self.spent, at_least=True)

    def overrun(self, deployment: Deployment, seconds: float, launches: int = 1) -> str | None:
        """Which part of the budget a trial of at least so many seconds would certainly exceed, or None; ``launches`` 0
        of one on an engine that runs."""
        return self._beyond(self._after(deployment, seconds, launches), at_least=False)

    def _after(self, deployment: Deployment, seconds: float, launches: int) -> Spent:
        now, hours = self.spent, deployment.devices * seconds / 3600
        price = self.price(deployment)
        usd = None if now.usd is None or price is None else now.usd + hours * price
        return Spent(now.launches + launches, now.minutes + seconds / 60, now.gpu_hours + hours, usd)

    def _beyond(self, used: Spent, at_least: bool) -> str | None:
        budget = self.budget
        parts = (
            (used.launches, budget.launches, f"{budget.launches} launches"),
            (used.minutes, budget.minutes, f"{budget.minutes:g} minutes"),
            (used.gpu_hours, budget.gpu_hours, f"{budget.gpu_hours or 0:g} GPU-hours"),
            (used.usd, budget.usd, f"{budget.usd or 0:g} US dollars"),
        )
        for have, limit, words in parts:
            if have is not None and limit is not None and (have > limit or (at_least and have >= limit)):
                return f"the budget of {words}"
        return None
