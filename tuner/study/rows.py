"""Rows of the store's tables as what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tuner.ask.deployment import parse_deployment
from tuner.ask.request import TuneRequest
from tuner.errors import FailureReason
from tuner.plan.prune import Candidate, DroppedGroup
from tuner.study.lifecycle import StudyState
from tuner.study.records import OpenTrial, StudyRecord
from tuner.trial.devices import Placement
from tuner.trial.launched import Launched
from tuner.trial.ledger import Entry, Outcome
from tuner.trial.results import Purpose, StepResult, TrialResult, TrialState

RANKED = TypeAdapter(tuple[Candidate, ...])
LAUNCHED = TypeAdapter(Launched)
DROPPED = TypeAdapter(tuple[DroppedGroup, ...])

Row = Mapping[Any, Any]


def study_of(row: Row) -> StudyRecord:
    """A study."""
    return StudyRecord(
        name=row["name"],
        created_at=row["created_at"],
        request=TuneRequest.model_validate_json(row["request"]),
        facts=row["facts"],
        candidates_total=row["candidates_total"],
        ranked=RANKED.validate_json(row["ranked"]) if row["ranked"] else None,
        dropped=DROPPED.validate_json(row["dropped"]) if row["dropped"] else None,
        decided=row["decision"] is not None,
        state=StudyState(row["state"]),
    )


def trial_of(row: Row, steps: Iterable[StepResult]) -> TrialResult:
    """A trial, of its row with the ledger's ``device_s``."""
    return TrialResult(
        number=row["number"],
        deployment=parse_deployment(row["layout"]),
        state=TrialState(row["state"]),
        steps=tuple(steps),
        failure=FailureReason(row["failure"]) if row["failure"] else None,
        detail=row["detail"],
        log_tail=tuple(row["log_tail"] or ()),
        ready_after_s=row["ready_after_s"],
        seconds=row["seconds"],
        purpose=Purpose(row["purpose"]),
        repeat=row["repeat"],
        device_s=row["device_s"],
        launched=LAUNCHED.validate_python(row["launched"]) if row["launched"] else None,
    )


def open_trial_of(row: Row) -> OpenTrial:
    """A trial without an end."""
    held = row["placement"]
    return OpenTrial(
        number=row["number"],
        deployment=parse_deployment(row["layout"]),
        app=row["app"],
        log_dir=Path(row["log_dir"]),
        driver=row["driver"],
        placement=None if held is None else Placement(tuple((node, count) for node, count in held)),
        purpose=Purpose(row["purpose"]),
        repeat=row["repeat"],
    )


def entry_of(row: Row) -> Entry:
    """What a launch took."""
    return Entry(
        app=row["app"],
        layout=None if row["layout"] is None else parse_deployment(row["layout"]),
        outcome=Outcome(row["outcome"]),
        ordered_s=row["ordered_s"],
        device_s=row["device_s"],
        usd_per_gpu_hour=row["usd_per_gpu_hour"],
    )
