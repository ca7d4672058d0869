"""A canary: does the new deployment serve as well as the old one beside it, or as the SLO asks?

Both sides are counted at the same moments, so that a load that grows is no argument against either. For each target of
the SLO, and for requests that fail, the share of misses of the new one is held against the larger of what the old one
misses and what the SLO allows; worse is what exceeds that by more than the tolerance.

``alpha`` bounds the chance that one that is worse is promoted, however often one looks, and as well the chance that one
that is not worse is taken back (``tuner.stats.two_shares``). Where neither can be said it is held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from tuner.ask.request import SloTarget
from tuner.retune.moves import Answer, CanaryAnswer
from tuner.retune.policy import CanaryPolicy
from tuner.retune.seen import Look
from tuner.stats.buckets import Within
from tuner.stats.two_shares import Claim, Counted, Evidence, against_limit, against_other

FAILED = "failed"  # in the place of a target: requests that did not succeed
LEAST_LOOKS_TO_PROMOTE, LEAST_LOOKS_TO_RETURN = 5, 3  # of fewer nobody can say how far they scatter


@dataclass(frozen=True, slots=True)
class CanaryLook:
    """The requests of the new one and of the old one between two looks, by target as text and ``failed``."""

    new: Mapping[str, Within] = field(default_factory=dict)
    old: Mapping[str, Within] = field(default_factory=dict)


LOOK = TypeAdapter(CanaryLook)  # how a store keeps it


def canary_look(new: Look, old: Look | None) -> CanaryLook:
    """What two looks at the same moment say; ``old`` None where there is no old one."""
    return CanaryLook(_counts(new), {} if old is None else _counts(old))


def judge(looks: Sequence[CanaryLook], slo: Sequence[SloTarget], policy: CanaryPolicy) -> CanaryAnswer:
    """What all looks so far say; beside an old one, where that had requests, else beside the SLO alone."""
    allowed = {key_of(target): 1 - target.percentile / 100 for target in slo} | {FAILED: 0.0}
    requests = sum(_most(look.new) for look in looks)
    sides = {key: _Side(key, looks, limit, policy.tolerance) for key, limit in allowed.items()}
    unseen = [key for key, side in sides.items() if key != FAILED and not side.total]
    figures = {"requests": requests} | {name: value for side in sides.values() for name, value in side.figures.items()}
    if len(looks) >= LEAST_LOOKS_TO_RETURN:
        worse = [side for side in sides.values() if side.worse(policy.alpha / len(sides))]
        if worse:
            return CanaryAnswer(Answer.ROLL_BACK, f"it is worse: {worse[0].words}", False, figures)
    if unseen:
        return CanaryAnswer(Answer.HOLD, f"no request of it is counted for {', '.join(unseen)}", True, figures)
    if requests < policy.least_requests:
        why = f"{requests:.0f} requests of it so far, and {policy.least_requests} are needed"
        return CanaryAnswer(Answer.HOLD, why, True, figures)
    undecided = [side for side in sides.values() if side.total and not side.as_good(policy.alpha)]
    if undecided or len(looks) < LEAST_LOOKS_TO_PROMOTE:
        said = undecided[0].words if undecided else f"{len(looks)} looks so far"
        return CanaryAnswer(Answer.HOLD, f"not certain yet: {said}", False, figures)
    shown = next(side for side in sides.values() if side.total)
    return CanaryAnswer(Answer.PROMOTE, f"it is not worse: {shown.words}", False, figures)


def key_of(target: SloTarget) -> str:
    """A target as text: ``ttft:p99``."""
    return f"{target.metric.value}:p{target.percentile:g}"


def _counts(look: Look) -> dict[str, Within]:
    found = {f"{metric.value}:p{percentile:g}": within for (metric, percentile), within in look.within.items()}
    if look.arrived is not None and look.failed is not None:
        total = max(look.arrived, look.failed)  # what failed may have come before this look
        well = total - look.failed
        found[FAILED] = Within(total, well, well, well)
    return found


def _most(side: Mapping[str, Within]) -> float:
    return max((within.total for within in side.values()), default=0.0)


class _Side:
    """The misses of one target; those of a bucket that a limit cuts are taken as likely, alike on both sides."""

    def __init__(self, key: str, looks: Sequence[CanaryLook], allowed: float, tolerance: float) -> None:
        self._key, self._allowed, self._tolerance = key, allowed, tolerance
        both = [(_missed(look.new.get(key)), _missed(look.old.get(key))) for look in looks]
        self._new, self._old = [new for new, _ in both], [old for _, old in both]
        self._both = both
        self.total = sum(one.total for one in self._new)
        self._beside = sum(one.total for one in self._old)

    def worse(self, alpha: float) -> bool:
        """Certainly worse than the SLO allows, and than the old one where that had requests."""
        return bool(self.total) and all(found.reaches(alpha) for found in self._against(Claim.NOT_ABOVE))

    def as_good(self, alpha: float) -> bool:
        """Certainly not worse than one of them: the mean of two such evidences is one too."""
        found = self._against(Claim.NOT_BELOW)
        return math.log(sum(math.exp(min(one.log, 700.0)) for one in found) / len(found)) >= math.log(1 / alpha)

    @property
    def words(self) -> str:
        """For people."""
        missed = f"{self._share(self._new):.2%} of {self.total:.0f} requests miss {self._key}"
        if self._key == FAILED:
            missed = f"{self._share(self._new):.2%} of {self.total:.0f} requests fail"
        old = f", of the old one {self._share(self._old):.2%} of {self._beside:.0f}" if self._beside else ""
        return f"{missed}{old}"

    @property
    def figures(self) -> dict[str, float]:
        """For machines."""
        if not self.total:
            return {}
        old = {f"{self._key} old_missed_share": self._share(self._old)} if self._beside else {}
        return {f"{self._key} missed_share": self._share(self._new)} | old

    def _against(self, claim: Claim) -> list[Evidence]:
        guess = max(self._allowed / 2, 0.001)
        found = [against_limit(claim, self._new, min(self._allowed + self._tolerance, 1 - 1e-9), guess)]
        if self._beside:
            found.append(against_other(claim, self._both, self._tolerance, guess))
        return found

    def _share(self, blocks: Sequence[Counted]) -> float:
        total = sum(block.total for block in blocks)
        return sum(block.hit for block in blocks) / total if total else 0.0


def _missed(within: Within | None) -> Counted:
    return Counted(0.0, 0.0) if within is None else Counted(within.total, within.total - within.likely)
