"""A watched study's question on all of its cluster, and what the trials of all its rounds say of it.

A round is asked on what was free when it began: its cluster is none that a later question is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tuner.ask.deployment import Deployment, TwoPools
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.retune.known import comparable
from tuner.study.store import Store
from tuner.trial.launched import ENGINES
from tuner.trial.results import TrialResult


def whole_request(store: Store, rounds: Sequence[str]) -> TuneRequest:
    """The last round's request, on the cluster of the study itself."""
    first = store.study(store.rounds.base_of(rounds[-1])).request
    asked = store.study(rounds[-1]).request
    return asked.model_copy(update={"cluster": first.cluster})


def named(deployment: Deployment, own: TuneRequest, whole: TuneRequest) -> Deployment:
    """A layout that was asked of one node group (``own``), as it prints where there are several: with the group."""
    if len(whole.groups) < 2 or len(own.groups) != 1:
        return deployment
    gpu = own.groups[0].gpu
    if isinstance(deployment, TwoPools):
        return TwoPools(_on(deployment.prefill, gpu), _on(deployment.decode, gpu))
    return _on(deployment, gpu)


def trials_of(store: Store, rounds: Sequence[str], whole: TuneRequest) -> tuple[TrialResult, ...]:
    """The trials of all rounds under such a load and by the engine of the newest launch, the oldest round first."""
    found: list[TrialResult] = []
    for name in rounds:
        own = store.study(name).request
        if comparable(whole, own.model_copy(update={"cluster": whole.cluster})):
            found += (_named(trial, own, whole) for trial in store.snapshot(name).finished)
    newest = next((release for one in reversed(found) if one.steps and (release := _release(one))), None)
    return tuple(one for one in found if newest is None or _release(one) in (None, newest))


def engine_of(trial: TrialResult) -> Mapping[str, str] | None:
    """Releases of the engine by which it was launched, and of Ray; None where nobody told."""
    if trial.launched is None:
        return None
    return {name.removesuffix("-cpu"): text for name, text in trial.launched.versions.items() if name in ENGINES}


def _release(trial: TrialResult) -> str | None:
    return (engine_of(trial) or {}).get("vllm")


def _on(layout: ParallelLayout, gpu: str) -> ParallelLayout:
    return replace(layout, gpu=layout.gpu or gpu)


def _named(trial: TrialResult, own: TuneRequest, whole: TuneRequest) -> TrialResult:
    deployment = named(trial.deployment, own, whole)
    return trial if deployment == trial.deployment else replace(trial, deployment=deployment)
