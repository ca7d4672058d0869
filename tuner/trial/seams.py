"""The seams through which every kind of cluster is driven: a launcher brings a deployment up, a meter measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.errors import FailureReason
from tuner.trial.cancel import CancelHandle
from tuner.trial.devices import Placement
from tuner.trial.launched import Launched
from tuner.trial.results import LoadStep, StepResult
from tuner.trial.shared import SharedCluster

Samples = Mapping[Metric, Sequence[float]]
"""Every value of each metric in one load step, in seconds: of requests that completed, for ITL of their tokens."""


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """All that a launcher needs to bring up one trial.

    ``app`` is the deployment's unique name, known before anything starts, so that an orphan can be found by it;
    ``log_dir`` is where the trial's logs are kept. ``placement`` names the devices that it may use, by node; None: any.
    """

    study: str
    trial: int
    app: str
    deployment: Deployment
    request: TuneRequest
    log_dir: Path
    placement: Placement | None = None

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)


def _nobody(_: object) -> None:
    """Told, and silent."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who follows one launch or one load step: what ends it early, and whom it tells.

    ``progress`` is told, in words, what goes on; ``samples`` what a step saw, once it is measured. They know by
    themselves which trial it is, and may be called from any thread; they should be quick, as the work waits for them.
    """

    cancel: CancelHandle = field(default_factory=CancelHandle)
    progress: Callable[[str], None] = _nobody
    samples: Callable[[Samples], None] = _nobody


@runtime_checkable
class RunningDeployment(Protocol):
    """A running deployment of one layout."""

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-compatible endpoint, without ``/v1``."""

    @property
    def model_id(self) -> str:
        """The model name that requests must carry."""

    @property
    def ready_after_s(self) -> float:
        """Seconds from the order to the first healthy answer."""

    @property
    def launched(self) -> Launched:
        """What was launched, and on what."""

    def failure(self) -> tuple[FailureReason, str] | None:
        """Why the deployment is not healthy any more, or None while it is."""

    def log_tail(self, lines: int = 20) -> tuple[str, ...]:
        """The engine's last log lines, oldest first."""

    def teardown(self) -> None:
        """Stop it and free its devices; safe to call twice, and after a crash."""


@runtime_checkable
class Reconfigurable(Protocol):
    """A running deployment whose path to the engine can change while the engine runs on."""

    def reconfigure(self, layout: ParallelLayout, watch: Watch) -> None:
        """Serve as ``layout`` from now on, which differs in axes alone that the launcher names as ``in_place``.

        No engine is started again. ``launched`` says from then on what a launch of the layout is given, and
        ``ready_after_s`` how long the change took. Raises LaunchFailed where it does not come to that, and Cancelled
        soon after that was asked: then it may serve as either, and is to be torn down.
        """


@runtime_checkable
class Launcher(Protocol):
    """Brings layouts up. Implementations: real Ray Serve, a local vLLM process, (later) the simulated cluster."""

    @property
    def name(self) -> str:
        """What it is, as shown to people: ``ray-serve``, ``local-process``."""

    @property
    def parallel(self) -> int:
        """How many deployments it can keep up side by side; 1 where they would disturb each other."""

    @property
    def cluster(self) -> SharedCluster | None:
        """The cluster on which it launches, where others may launch too; None where its devices are its own."""

    @property
    def in_place(self) -> frozenset[str]:
        """Names of the axes that its deployments, then ``Reconfigurable``, change while the engine runs on."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of what its engines run on, by distribution, as in the ``Launched`` of its deployments."""

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        """Why this launcher cannot run it as it is written, or None; asked before anything starts."""

    def launch(self, order: LaunchOrder, watch: Watch) -> RunningDeployment:
        """Start, wait until it answers, and return it; tear down and raise LaunchFailed otherwise.

        It tells ``watch`` what it waits for, and ends with Cancelled within seconds after it was asked to. Whatever
        ends it, nothing is left behind.
        """

    def remove_orphan(self, app: str) -> bool:
        """Tear down the deployment of that name if a dead process left one; True if there was one. What it raises says
        that it may still be there."""

    def close(self) -> None:
        """Give back what the launcher itself holds (a Ray that it started)."""


@runtime_checkable
class Meter(Protocol):
    """Measures a deployment under one load step."""

    def measure(self, deployment: RunningDeployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        """Run the step to its end, and tell ``watch`` its samples, where they are known.

        Raises LaunchFailed(REPLICA_DIED | CLIENT_ERROR) when no figure can be had, and Cancelled soon after it was
        asked to end; the deployment stays.
        """
