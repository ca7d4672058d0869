"""All that a judgement looks at beside the policy and what a change could bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.ask.deployment import Deployment
from tuner.retune.demand import RATE
from tuner.retune.notice import Notice, NoticeKind

SETTLES_S = 300.0


@dataclass(frozen=True, slots=True)
class Situation:
    """``at_s`` in s since 1970. ``moved_s`` is when what serves was changed last; ``rollout`` and ``foreign`` say in
    words what is under way, and what somebody changed by hand. ``approved`` are layouts to which a human agreed,
    ``vetoed`` those that are not tried again while the cluster is as it is: refused by a human, or rolled back.
    ``gpu_hours_today`` were spent on trials since midnight UTC. ``unmeasured``: no trial measured what serves, as after
    an emergency; that is a reason to ask, too. ``outage``: nothing serves, in words; before all other reasons.
    ``measured_s`` is when a measuring round began last. For ``settles_s`` after a change what waited meanwhile is
    answered, and caches fill: nothing can be said of it, whatever it misses."""

    at_s: float
    notices: tuple[Notice, ...] = ()
    moved_s: float | None = None
    rollout: str | None = None
    foreign: str | None = None
    paused: bool = False
    approved: frozenset[Deployment] = frozenset()
    vetoed: frozenset[Deployment] = frozenset()
    gpu_hours_today: float = 0.0
    unmeasured: bool = False
    outage: str | None = None
    measured_s: float | None = None
    settles_s: float = SETTLES_S

    @property
    def concerns(self) -> tuple[Notice, ...]:
        """What may be a reason for a change, the weightiest first."""
        return concerns(self.notices)

    @property
    def measured(self) -> bool:
        """Has it been measured by how much requests are longer, or slower at the same load, so that a model can say
        what will come of it? What a rate of now makes of the busiest hour is known less well."""
        return any(
            one.kind is NoticeKind.RESIDUAL or (one.kind is NoticeKind.WORKLOAD_SHIFT and one.of != RATE)
            for one in self.concerns
        )

    @property
    def reason(self) -> str | None:
        """Why it has to be asked what a change could bring, in words; None where it need not be."""
        if self.outage is not None:
            return self.outage
        if self.concerns:
            more = len(self.concerns) - 1
            return self.concerns[0].evidence.rstrip(".") + (f" (and {more} more)" if more else "")
        return "no trial has measured what serves" if self.unmeasured else None

    @property
    def blind(self) -> tuple[Notice, ...]:
        """What cannot be seen."""
        return tuple(notice for notice in self.notices if notice.kind is NoticeKind.BLIND)

    @property
    def lasted_s(self) -> float:
        """For how long the weightiest concern has stood, which is the reason: others that come and go beside it restart
        nothing. What was never measured, since it serves."""
        weightiest = self.concerns[:1]
        longest = [one.since_s for one in self.concerns if weightiest and one.kind is weightiest[0].kind]
        return self.at_s - min(longest, default=self.at_s if self.moved_s is None else self.moved_s)


def concerns(notices: Sequence[Notice]) -> tuple[Notice, ...]:
    """Notices that are a reason to ask what a change could bring, the weightiest first; what only may be is none."""
    certain = (one for one in notices if one.kind in _WEIGHT and one.confidence >= _CERTAIN)
    return tuple(sorted(certain, key=lambda one: _WEIGHT.index(one.kind)))


_CERTAIN = 0.9  # of a notice's confidence
_WEIGHT = (
    NoticeKind.NODE_LOST,
    NoticeKind.DEVICES_CHANGED,
    NoticeKind.SLO_BURN,
    NoticeKind.MODEL_CHANGED,
    NoticeKind.VERSION_CHANGED,
    NoticeKind.LINK_CHANGED,
    NoticeKind.WORKLOAD_SHIFT,
    NoticeKind.RESIDUAL,
    NoticeKind.STRAGGLER,
    NoticeKind.NODE_JOINED,
)
