"""What the store tells of studies, their trials and their drivers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.plan.prune import Candidate, DroppedGroup
from tuner.trial.devices import Placement
from tuner.trial.trial import Purpose


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as stored; ``decision`` is None until one was reached, ``ranked`` and ``dropped`` until it was planned.

    ``facts`` are versions, launcher and the machine, as text: for the reader of a report, and for who goes on with it.
    """

    name: str
    created_at: float
    request: TuneRequest
    facts: dict[str, str]
    candidates_total: int | None
    ranked: tuple[Candidate, ...] | None
    dropped: tuple[DroppedGroup, ...] | None
    decision: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial that began and has no end: it runs, or a killed driver left it.

    ``ordered_s`` is the study's time when it began. ``placement`` is None where nothing is known of its devices.
    """

    number: int
    layout: ParallelLayout
    app: str
    log_dir: Path
    driver: str
    placement: Placement | None
    ordered_s: float | None
    purpose: Purpose
    repeat: int


@dataclass(frozen=True, slots=True)
class TrialClaim:
    """What a driver wants to launch; ``ordered_s`` is the study's time now."""

    driver: str
    layout: ParallelLayout
    purpose: Purpose
    repeat: int
    ordered_s: float
    log_root: Path


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """A process that drives, or drove, a study.

    ``silent_s`` since its last sign of life, ``study_s`` the study's time then; ``lost_device_s`` was spent on trials
    that never ended, and that it took over.
    """

    driver: str
    silent_s: float
    study_s: float
    lost_device_s: float


def app_name(study: str, number: int, lost: int = 0) -> str:
    """The deployment's name of a trial, unique in a cluster and known before it starts.

    ``lost`` trials of the study never ended: a number that is used again gets another name, so that the driver that
    lost the trial cannot tear down its successor's deployment.
    """
    return f"parlay-{study}-{number}" + (f"-{lost}" if lost else "")
