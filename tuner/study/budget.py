"""What a study may spend: what is used up by now, and whether another trial could still end within the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Budget
from tuner.study.observer import Spent
from tuner.study.records import DriverRecord, OpenTrial
from tuner.trial.trial import TrialResult

Price = Callable[[ParallelLayout], float | None]  # US dollars per GPU-hour


@dataclass(frozen=True, slots=True)
class Purse:
    """A budget and what was used of it at one moment."""

    budget: Budget
    spent: Spent
    price: Price

    def empty(self, but_launches: bool = False) -> str | None:
        """Which part of the budget is used up, or None; launches do not count for a trial that was begun already."""
        return self._beyond(replace(self.spent, launches=0) if but_launches else self.spent, at_least=True)

    def overrun(self, layout: ParallelLayout, seconds: float) -> str | None:
        """Which part of the budget a trial of at least so many seconds would certainly exceed, or None."""
        return self._beyond(self._after(layout, seconds), at_least=False)

    def _after(self, layout: ParallelLayout, seconds: float) -> Spent:
        now, hours = self.spent, layout.devices * seconds / 3600
        price = self.price(layout)
        usd = None if now.usd is None or price is None else now.usd + hours * price
        return Spent(now.launches + 1, now.minutes + seconds / 60, now.gpu_hours + hours, usd)

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


def spent(
    finished: Sequence[TrialResult],
    running: Sequence[OpenTrial],
    drivers: Sequence[DriverRecord],
    study_s: float,
    price: Price,
) -> Spent:
    """What a study has used at ``study_s``, its own time in seconds; trials that run count up to then.

    What killed drivers lost is priced as the dearest of the study's devices: which they were is not known any more.
    """
    held_s = [(trial.layout, trial.device_s or 0.0) for trial in finished]
    held_s += [(trial.layout, held_device_s(trial, study_s)) for trial in running]
    lost_s = sum(driver.lost_device_s for driver in drivers)
    prices = {layout: price(layout) for layout, _ in held_s}
    known = [found for found in prices.values() if found is not None]
    usd = None
    if len(known) == len(prices):
        usd = (sum(s * (prices[layout] or 0.0) for layout, s in held_s) + lost_s * max(known, default=0.0)) / 3600
    device_s = lost_s + sum(s for _, s in held_s)
    return Spent(len(finished) + len(running), study_s / 60, device_s / 3600, usd)


def held_device_s(trial: OpenTrial, until_s: float) -> float:
    """Seconds for which a trial without an end held devices, summed over them, at a moment of the study's time."""
    if trial.ordered_s is None:
        return 0.0
    return trial.layout.devices * max(0.0, until_s - trial.ordered_s)
