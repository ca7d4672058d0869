"""What the store tells of studies, their trials and their drivers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import FailureReason
from tuner.plan.prune import Candidate, DroppedGroup
from tuner.study.lifecycle import StudyState
from tuner.trial.devices import Placement
from tuner.trial.ledger import Entry, Outcome
from tuner.trial.results import Purpose, TrialResult, TrialState


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as stored; ``decided`` once a decision was reached, ``ranked`` and ``dropped`` None until it was planned.

    ``facts`` are versions, launcher and the machine, as text: for the reader of a report, and for who goes on with it.
    """

    name: str
    created_at: float
    request: TuneRequest
    facts: dict[str, str]
    candidates_total: int | None
    ranked: tuple[Candidate, ...] | None
    dropped: tuple[DroppedGroup, ...] | None
    decided: bool
    state: StudyState


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial that began and has no end: it runs, or a killed driver left it.

    ``placement`` is None where nothing is known of its devices; ``lease`` is the token by which whoever claimed it
    holds those of a cluster that other studies use too.
    """

    number: int
    deployment: Deployment
    app: str
    log_dir: Path
    driver: str
    placement: Placement | None
    purpose: Purpose
    repeat: int
    lease: int | None = None

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)


@dataclass(frozen=True, slots=True)
class TrialClaim:
    """What a driver wants to launch; ``ordered_s`` is the study's time now, the price None where none is known."""

    driver: str
    deployment: Deployment
    purpose: Purpose
    repeat: int
    ordered_s: float
    usd_per_gpu_hour: float | None
    log_root: Path

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened in a study, and its number there, from 1; ``at`` in s since 1970, ``data`` a JSON object."""

    study: str
    number: int
    at: float
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """A process that drives, or drove, a study: seconds since its last sign of life, and the study's time then."""

    driver: str
    silent_s: float
    study_s: float


Mark = tuple[int, int]  # trials begun, and launches that are over: it changes with whatever happens to a study's trials


@dataclass(frozen=True, slots=True)
class Pulse:
    """The little by which a driver sees whether anything has happened: ``owners`` are the drivers of open trials."""

    mark: Mark
    owners: frozenset[str]
    drivers: tuple[DriverRecord, ...]

    @property
    def study_s(self) -> float:
        """The study's time at the last sign of life that any driver gave, in seconds."""
        return max((driver.study_s for driver in self.drivers), default=0.0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is known of a study's trials at one moment, in order; ``trials`` are those that run too."""

    state: StudyState
    trials: tuple[TrialResult, ...]
    open: tuple[OpenTrial, ...]
    entries: tuple[Entry, ...]
    drivers: tuple[DriverRecord, ...]

    @property
    def finished(self) -> tuple[TrialResult, ...]:
        """The trials that ended; without those that were cancelled, which say nothing."""
        ended = (trial for trial in self.trials if trial.state is not TrialState.RUNNING)
        return tuple(trial for trial in ended if trial.failure is not FailureReason.CANCELLED)

    @property
    def pulse(self) -> Pulse:
        """As it was at that moment."""
        over = sum(entry.outcome is not Outcome.RUNNING for entry in self.entries)
        owners = frozenset(trial.driver for trial in self.open)
        begun = len(self.entries) + sum(trial.engine_of is not None for trial in self.trials)
        return Pulse((begun, over), owners, self.drivers)


def app_name(study: str, number: int, lost: int = 0) -> str:
    """The deployment's name of a trial, unique in a cluster and known before it starts.

    ``lost`` trials of the study never ended: a number that is used again gets another name, so that the driver that
    lost the trial cannot tear down its successor's deployment.
    """
    return f"parlay-{study}-{number}" + (f"-{lost}" if lost else "")
