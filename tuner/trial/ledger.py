"""What a study has spent: the one account, which budget, decision, report and telemetry all read.

Its entries are in the store, one for each launch, written when the trial is claimed and when it ends. What is launched
again (a trial that was cancelled, or whose driver was killed) stays in the account with the devices that it held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tuner.ask.deployment import Deployment

Price = Callable[[Deployment], float | None]  # US dollars per GPU-hour


class Outcome(StrEnum):
    """What became of a launch."""

    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"  # cancelled, or left by a killed driver: the trial is begun again


@dataclass(frozen=True, slots=True)
class Entry:
    """One launch: the deployment, and what it took.

    ``ordered_s`` is the study's time at the order; ``device_s`` the seconds from there to the end of the teardown,
    summed over the devices, None while it runs. ``usd_per_gpu_hour`` is the price at the time, None where none was
    known. Of what was lost under older versions, layout and order are not known any more: None.
    """

    app: str
    layout: Deployment | None
    outcome: Outcome
    ordered_s: float | None
    device_s: float | None
    usd_per_gpu_hour: float | None

    def device_s_until(self, study_s: float) -> float:
        """Seconds for which it has held devices, summed over them, at a moment of the study's time."""
        if self.outcome is not Outcome.RUNNING:
            return self.device_s or 0.0
        if self.layout is None or self.ordered_s is None:
            return 0.0
        return self.layout.devices * max(0.0, study_s - self.ordered_s)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a study has used: launches, its own time in minutes, GPU-hours from order to teardown, and their price.

    Trials in flight count up to now. ``launches`` are those that a budget counts; ``lost`` came to nothing and were
    begun again, or will be: their GPU-hours and price are in the sums. ``usd`` is None where a device has no price.
    """

    launches: int
    minutes: float
    gpu_hours: float
    usd: float | None
    lost: int = 0


def spent(entries: Sequence[Entry], study_s: float, price: Price) -> Spent:
    """The sum of the account at ``study_s``, the study's own time in seconds.

    ``price`` is asked where an entry has none; a layout that is not known is priced as the study's dearest device.
    """
    held = [(_usd_per_gpu_hour(entry, price), entry.device_s_until(study_s) / 3600) for entry in entries]
    prices = [usd for usd, _ in held if usd is not None]
    dearest = max(prices, default=0.0)
    priced = len(prices) == sum(entry.layout is not None for entry in entries)
    return Spent(
        launches=_count(entries, {Outcome.RUNNING, Outcome.ENDED}),
        minutes=study_s / 60,
        gpu_hours=sum(hours for _, hours in held),
        usd=sum(hours * (dearest if usd is None else usd) for usd, hours in held) if priced else None,
        lost=_count(entries, {Outcome.LOST}),
    )


def _usd_per_gpu_hour(entry: Entry, price: Price) -> float | None:
    if entry.usd_per_gpu_hour is not None or entry.layout is None:
        return entry.usd_per_gpu_hour
    return price(entry.layout)


def _count(entries: Iterable[Entry], outcomes: set[Outcome]) -> int:
    return sum(entry.outcome in outcomes for entry in entries)
