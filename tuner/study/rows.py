"""Rows of the store's tables as what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def trials_of(rows: Sequence[Row], steps: Mapping[int, Iterable[StepResult]]) -> tuple[TrialResult, ...]:
    """All trials of a study, of their rows with the ledger's ``device_s``; ``steps`` by number."""
    engines = engines_shared(rows)
    return tuple(trial_of(row, steps.get(row["number"], ()), engines) for row in rows)


def engines_shared(rows: Iterable[Row]) -> dict[str, int]:
    """Of all trials of a study: the engines on which several were measured, each with the trial that launched it."""
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["app"], []).append(row["number"])
    return {app: min(found) for app, found in numbers.items() if len(found) > 1}


def trial_of(row: Row, steps: Iterable[StepResult], engines: Mapping[str, int]) -> TrialResult:
    """A trial, of its row with the ledger's ``device_s``, which is its own alone where no other shares its engine, as
    ``engines_shared`` says."""
    first, deployment, device_s = engines.get(row["app"]), parse_deployment(row["layout"]), row["device_s"]
    if first is not None:
        device_s = None if row["seconds"] is None else row["seconds"] * deployment.devices
    return TrialResult(
        number=row["number"],
        deployment=deployment,
        state=TrialState(row["state"]),
        steps=tuple(steps),
        failure=FailureReason(row["failure"]) if row["failure"] else None,
        detail=row["detail"],
        log_tail=tuple(row["log_tail"] or ()),
        ready_after_s=row["ready_after_s"],
        seconds=row["seconds"],
        purpose=Purpose(row["purpose"]),
        repeat=row["repeat"],
        device_s=device_s,
        launched=LAUNCHED.validate_python(row["launched"]) if row["launched"] else None,
        engine_of=None if first == row["number"] else first,
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
