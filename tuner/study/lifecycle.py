"""The states of a study, and which may follow which."""

from __future__ import annotations

from enum import StrEnum

from tuner.errors import BadInput


class StudyState(StrEnum):
    """Where a study stands. ``RUNNING`` stays where its drivers were killed: that nobody could say any more."""

    QUEUED = "queued"  # asked for, and nobody has begun yet
    RUNNING = "running"
    PAUSED = "paused"  # stopped on purpose, to go on later
    DECIDED = "decided"  # its decision is stored
    FAILED = "failed"  # it ended by an error
    CANCELLED = "cancelled"


FOLLOWS: dict[StudyState, frozenset[StudyState]] = {
    StudyState.QUEUED: frozenset({StudyState.RUNNING, StudyState.PAUSED, StudyState.FAILED, StudyState.CANCELLED}),
    StudyState.RUNNING: frozenset(
        {StudyState.QUEUED, StudyState.PAUSED, StudyState.DECIDED, StudyState.FAILED, StudyState.CANCELLED},
    ),
    StudyState.PAUSED: frozenset({StudyState.QUEUED, StudyState.RUNNING, StudyState.CANCELLED}),
    StudyState.DECIDED: frozenset({StudyState.QUEUED, StudyState.RUNNING}),
    StudyState.FAILED: frozenset({StudyState.QUEUED, StudyState.RUNNING}),
    StudyState.CANCELLED: frozenset({StudyState.QUEUED, StudyState.RUNNING}),
}


def may_become(state: StudyState) -> frozenset[StudyState]:
    """The states from which a study may get to this one; itself among them, since that changes nothing."""
    return frozenset(before for before, after in FOLLOWS.items() if state in after) | {state}


def illegal(study: str, now: StudyState, wanted: StudyState) -> BadInput:
    """The error for a change that ``FOLLOWS`` does not have."""
    return BadInput(f"state of study {study}", wanted.value, f"from {now.value}: {', '.join(sorted(FOLLOWS[now]))}")
