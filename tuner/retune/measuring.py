"""A measuring round: what an engineer on call does where the SLO is missed and the model knows nothing better.

The model says that no other layout meets the SLO, or carries clearly more, while what serves misses it: then the model
is wrong of something, and only trials tell of what. At most one such round begins in ``measure_hours``, on devices that
are spare: what serves is not given up for a guess. What it measures is believed by the judgements after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tuner.retune import holds
from tuner.retune.holds import Hold
from tuner.retune.judgement import HeldBy, Outlook
from tuner.retune.policy import RetunePolicy
from tuner.retune.situation import Situation

WHY = "the SLO is missed, and the model, which expects nothing better, is wrong of something"


def to_measure(policy: RetunePolicy, outlook: Outlook) -> Outlook | None:
    """The outlook on what a measuring round begins with; None where there is no reason for one, nothing untried that
    may do, or the policy wants none. That the SLO is missed has to have been seen."""
    present, first = outlook.present, outlook.untried
    if not policy.measure_hours or policy.trials == "never" or present is None or first is None:
        return None
    if present.meets is not False or present.chance is not None:
        return None
    hours = first.gpus * outlook.untried_hours
    return replace(outlook, best=first, tuning_gpu_hours=hours, gain=0.0, gain_per_hour=0.0)


def held(situation: Situation, policy: RetunePolicy, outlook: Outlook) -> Iterator[Hold]:
    """What holds one, beside what holds everything; ``outlook`` as ``to_measure`` gives it."""
    first = outlook.best
    if first is None:
        return
    yield from holds.vetoed(situation, first)
    yield from holds.means(situation, policy.model_copy(update={"trials": "spare"}), outlook, True, True)
    yield from holds.waits(situation, policy.model_copy(update={"regains_minutes": policy.persists_minutes}), True)
    measured_s, rests_s = situation.measured_s, 3600 * policy.measure_hours
    if measured_s is not None and situation.at_s - measured_s < rests_s:
        yield (
            HeldBy.MEASURED,
            f"it was measured {holds.clock(measured_s)}; again from {holds.clock(measured_s + rests_s)}",
        )
    yield from holds.consent(situation, policy.consent, first.deployment)
