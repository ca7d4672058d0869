"""What was noticed of a deployment: each notice names its evidence, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tuner.retune.seen import Blindness


class NoticeKind(StrEnum):
    """What may be noticed. ``BLIND`` says that something cannot be: it never means that all is well."""

    NODE_LOST = "node_lost"
    NODE_JOINED = "node_joined"
    DEVICES_CHANGED = "devices_changed"  # other GPUs, another count, another driver
    LINK_CHANGED = "link_changed"
    VERSION_CHANGED = "version_changed"  # of the engine, or of Ray
    MODEL_CHANGED = "model_changed"
    SLO_BURN = "slo_burn"
    WORKLOAD_SHIFT = "workload_shift"
    RESIDUAL = "residual"  # it is slower or faster than was measured, at the same load
    STRAGGLER = "straggler"
    BLIND = "blind"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that changed. ``of`` says what (a node, a target, a link); ``evidence`` is one sentence with figures,
    ``confidence`` from 0 to 1 that it is no accident, ``since_s`` when it began (s since 1970), as well as that is
    known; ``figures`` the same for machines, with units in their names. ``blindness`` says why, of ``BLIND`` alone."""

    kind: NoticeKind
    of: str
    evidence: str
    confidence: float
    since_s: float
    figures: Mapping[str, float] = field(default_factory=dict)
    blindness: Blindness | None = None
