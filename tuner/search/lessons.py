"""What failed trials say of layouts that were not tried: those that share the cause would fail, too."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.ask.layout import ParallelLayout
from tuner.errors import FailureReason
from tuner.trial.trial import TrialResult, TrialState

_BROKEN = (FailureReason.ENGINE_CRASHED, FailureReason.REPLICA_DIED)
_BACKENDS = ("executor", "all2all")
TWICE = 2  # crashes of a backend in unlike shapes, and no success, before it is given up


def doomed(layout: ParallelLayout, trials: Iterable[TrialResult]) -> str | None:
    """Why a layout would fail, by the failures seen so far; None when nothing says so."""
    trials = list(trials)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    if not failed:
        return None
    for trial in failed:
        if (why := _shares(layout, trial)) is not None:
            return why
    for axis in _BACKENDS:
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
    alike = (layout.ep, layout.all2all, layout.shape[6:]) == (other.ep, other.all2all, other.shape[6:])
    ranks = layout.tp * layout.pcp * (layout.dp if layout.ep else 1)
    other_ranks = other.tp * other.pcp * (other.dp if other.ep else 1)
    smaller = layout.tp <= other.tp and layout.pp <= other.pp and layout.dcp <= other.dcp and ranks <= other_ranks
    limits = (layout.max_num_batched_tokens, layout.max_num_seqs), (other.max_num_batched_tokens, other.max_num_seqs)
    return alike and smaller and limits[0][0] >= limits[1][0] and limits[0][1] >= limits[1][1]


def _needs_no_less_room(layout: ParallelLayout, other: ParallelLayout) -> bool:
    """As many devices, in groups that are as wide, under the same executor."""
    wide = layout.tp * layout.pcp >= other.tp * other.pcp
    alike = (layout.executor, layout.shape[6:]) == (other.executor, other.shape[6:])
    return alike and layout.devices >= other.devices and wide and layout.pp >= other.pp
