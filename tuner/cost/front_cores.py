"""How much longer the loops of a path take where they share a node's cores with each other, and with engines.

Cores are shared evenly by all that wants them (processor sharing): where that is more than there is, everything takes
as many times as long. A loop wants cores while it works, which is longer, the slower it works; what engines and other
threads want never ends. That is what ``tuner.simulate.front_shared`` simulates; here, loops work independently of each
other, and what they want together is taken as normal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROUNDS = 30
_LOGISTIC = np.log(2) * np.sqrt(2 * np.pi)  # scale at which log(1 + e^x) has the normal loss function's value at 0


def stretches(
    cores: float, others: Floats, loops: Sequence[Floats], taken: Sequence[Floats], works: Sequence[Floats]
) -> list[Floats]:
    """By hop, by which factor its work takes longer on ``cores``, of which ``others`` are wanted without end.

    Of each hop: its ``loops``, the cores that each is ``taken`` up while it works, and its ``works``, for which share
    of the time it would work with cores enough. Arrays broadcast.
    """
    longer = [np.ones(()) for _ in works]
    for _ in range(_ROUNDS):  # from below: the least solution, if there is one
        busy = [np.minimum(work * times, 1.0) for work, times in zip(works, longer, strict=True)]
        longer = _longer(cores, others, loops, taken, busy)
    return longer


def saturation(
    cores: float, others: Floats, loops: Sequence[Floats], taken: Sequence[Floats], works_ms: Sequence[Floats]
) -> tuple[Floats, list[Floats]]:
    """(Requests/ms at which the first loop is busy all the time, how much longer work then takes, by hop); ``works_ms``
    is what one of a hop's loops works for a request."""
    longer = [np.ones(()) for _ in works_ms]
    for _ in range(2 * _ROUNDS):
        each = [work * times for work, times in zip(works_ms, longer, strict=True)]
        most = np.maximum(np.max(np.broadcast_arrays(*each), axis=0), 1e-12)
        found = _longer(cores, others, loops, taken, [one / most for one in each])
        longer = [(before + after) / 2 for before, after in zip(longer, found, strict=True)]
    return 1 / most, longer


def _longer(
    cores: float, others: Floats, loops: Sequence[Floats], taken: Sequence[Floats], busy: Sequence[Floats]
) -> list[Floats]:
    """What each hop finds when it works: its own cores, and those that the other loops want then; nothing takes longer
    where all of them together want no more than there is."""
    mean = most = np.asarray(others, dtype=float)
    variance = np.zeros(())
    for count, each, share in zip(loops, taken, busy, strict=True):
        mean, variance = mean + count * share * each, variance + count * share * (1 - share) * each**2
        most = most + count * each
    found = []
    for each, share in zip(taken, busy, strict=True):
        wanted = mean + (1 - share) * each
        spread = np.sqrt(np.maximum(variance - share * (1 - share) * each**2, 1e-9)) / _LOGISTIC
        found.append(np.where(most <= cores, 1.0, 1 + spread * np.logaddexp(0.0, (wanted - cores) / spread) / cores))
    return found
