"""Which load step of a trial is worth measuring next: the rate at which it is uncertain what matters of the layout.

Where the layout has to hold the asked rate, and no more counts, that rate alone decides, and comes first. The lower one
follows where it is missed and nothing meets the SLO yet: then it counts who holds the most. For goodput the highest
rate held is bracketed: by what is believed of the layout before the trial, and above what the best one holds, since a
lower figure cannot win. A rate whose verdict is certain is not measured. Rates that the operator lists are all
measured, as they rise, to the first that misses the SLO; so are those of two objectives, which have no single best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.ask.request import Objective, TuneRequest
from tuner.trial.results import StepResult

CERTAIN = 0.01  # probability of the other verdict


def chosen(request: TuneRequest) -> bool:
    """Are the rates of a trial chosen one by one?"""
    return request.load.rates_req_per_s is None and request.second_objective is None


def windows(request: TuneRequest) -> int:
    """How many load steps a trial needs, as a rule, that holds what it was hoped to hold."""
    if not chosen(request):
        return len(request.rates_req_per_s)
    return 2 if request.objective is Objective.MAX_GOODPUT else 1


def usual_load_s(request: TuneRequest, warm: bool = False) -> float:
    """Seconds of load that a trial is expected to take; none for warming up on an engine that is ``warm``.

    No bound: a window ends where its verdict is certain, a warm-up where it is over, which may take up to
    ``LONGEST_WARM_UP`` times as long as usual.
    """
    return windows(request) * request.load.seconds + (0.0 if warm else request.load.warmup_seconds)


def rising(request: TuneRequest, seen: Sequence[StepResult]) -> float | None:
    """The next of all rates, to the first that misses the SLO."""
    if seen and seen[-1].misses(request):
        return None
    return next(iter(request.rates_req_per_s[len(seen) :]), None)


def next_rate(
    request: TuneRequest, seen: Sequence[StepResult], to_beat: float, held: NDArray[np.int64] | None
) -> float | None:
    """The next rate, in requests/s; None where no other would tell what matters.

    ``seen``: the load steps so far. ``to_beat``: what the best measured layout holds, 0 where none meets the SLO.
    ``held``: draws of the number of rates that the layout holds, from before the trial; None where nothing is believed.
    """
    rates = request.rates_req_per_s
    if not chosen(request):
        return rising(request, seen)
    if any(step.failed or (not step.meets(request) and not step.misses(request)) for step in seen):
        return None
    met = [rates.index(step.step.rate_req_per_s) for step in seen if step.meets(request)]
    missed = [rates.index(step.step.rate_req_per_s) for step in seen if step.misses(request)]
    low, high = max(met, default=-1), min(missed, default=len(rates))
    if request.objective is not Objective.MAX_GOODPUT:
        asked = _asked(request)
        if not seen:
            return rates[asked]
        return rates[high - 1] if low < 0 < high and not to_beat else None
    return _between(rates, low, high, to_beat, held, begun=bool(seen))


def _between(
    rates: Sequence[float], low: int, high: int, to_beat: float, held: NDArray[np.int64] | None, begun: bool
) -> float | None:
    """Of the rates above the one at ``low`` and below the one at ``high`` that which halves what is open."""
    left = [at for at in range(low + 1, high) if rates[at] > to_beat]
    if not left:
        return None if begun else rates[-1]
    possible = np.zeros(0) if held is None else held[(held > low) & (held <= high)]
    if possible.size:
        chance = {at: float((possible > at).mean()) for at in left}
        open_ = [at for at in left if CERTAIN <= chance[at] <= 1 - CERTAIN]
        return None if begun and not open_ else rates[min(open_ or left, key=lambda at: abs(chance[at] - 0.5))]
    return rates[left[(len(left) - 1) // 2]]


def _asked(request: TuneRequest) -> int:
    """Where the asked rate stands."""
    asked = request.workload.arrival.requests_per_s
    return int(np.argmin(np.abs(np.array(request.rates_req_per_s) - asked)))
