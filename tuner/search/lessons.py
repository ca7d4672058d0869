"""What failed trials say of layouts that were not tried: those that share the cause would fail, too."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.ask.axes import Memory, Role
from tuner.ask.deployment import Deployment, TwoPools
from tuner.ask.layout import AXES, ParallelLayout
from tuner.errors import FailureReason
from tuner.trial.results import TrialResult, TrialState

_BROKEN = (FailureReason.ENGINE_CRASHED, FailureReason.REPLICA_DIED)
_BACKENDS = tuple(name for name, axis in AXES.items() if axis.role is Role.ENGINE)
TWICE = 2  # crashes of a backend in unlike shapes, and no success, before it is given up


def doomed(layout: Deployment, trials: Iterable[TrialResult]) -> str | None:
    """Why a deployment would fail, by the failures seen so far; None when nothing says so, as of two pools."""
    if isinstance(layout, TwoPools):
        return None
    trials = [trial for trial in trials if not isinstance(trial.deployment, TwoPools)]
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    if not failed:
        return None
    for trial in failed:
        if (why := _shares(layout, trial)) is not None:
            return why
    for axis in (*_BACKENDS, "front"):
        value = getattr(layout, axis)
        same = [t for t in trials if getattr(t.layout, axis) == value]
        shapes = {t.layout.shape for t in same if t.failure in _BROKEN}
        others = any(getattr(t.layout, axis) != value and t.state is not TrialState.FAILED for t in trials)
        if len(shapes) >= TWICE and others and all(t.state is TrialState.FAILED for t in same):
            return f"{axis}={value} crashed in {len(shapes)} shapes and never ran"
    return None


def _shares(layout: ParallelLayout, failed: TrialResult) -> str | None:
    other = failed.layout
    if failed.failure is FailureReason.DOES_NOT_FIT and _needs_no_less_memory(layout, other):
        return f"needs no less memory per device than {other}, which does not fit"
    if failed.failure is FailureReason.PLACEMENT_IMPOSSIBLE and _needs_no_less_room(layout, other):
        return f"needs no less room than {other}, which could not be placed"
    same = layout.shape == other.shape and all(getattr(layout, a) == getattr(other, a) for a in _BACKENDS)
    if failed.failure is FailureReason.ENGINE_CRASHED and same:
        return f"differs from {other}, which crashed, in the scheduler's limits alone"
    return None


def _needs_no_less_memory(layout: ParallelLayout, other: ParallelLayout) -> bool:
    """Every shard is at least as large, and so are the activations of a step."""
    for name, axis in AXES.items():
        mine, theirs = getattr(layout, name), getattr(other, name)
        if axis.memory is Memory.UNORDERED and mine != theirs:
            return False
        if (axis.memory is Memory.SPLITS and mine > theirs) or (axis.memory is Memory.ADDS and mine < theirs):
            return False
    return _expert_ranks(layout) <= _expert_ranks(other)


def _expert_ranks(layout: ParallelLayout) -> int:
    return layout.tp * layout.pcp * (layout.dp if layout.ep else 1)


def _needs_no_less_room(layout: ParallelLayout, other: ParallelLayout) -> bool:
    """As many replicas, each as wide and as deep, under the same executor."""
    wide = layout.tp * layout.pcp >= other.tp * other.pcp
    alike = (layout.executor, layout.gpu) == (other.executor, other.gpu)
    return alike and layout.dp >= other.dp and wide and layout.pp >= other.pp
