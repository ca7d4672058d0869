"""Whether a study may go on here: trials of another launcher, engine or model cannot be compared with those it has."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.ask.request import TuneRequest
from tuner.errors import BadInput
from tuner.rehearse.conditions import simulated_seed
from tuner.trial.launched import ENGINES, model_source, versions_shown
from tuner.trial.seams import Launcher

LAUNCHER_FACT, MODEL_FACT = "launcher", "model source"  # beside the versions, what a study's facts say of its launches


def launch_facts(model: str, launcher: Launcher) -> dict[str, str]:
    """What a study says of where its engines run; it goes on only where that holds."""
    return dict(launcher.versions) | {LAUNCHER_FACT: launcher.name, MODEL_FACT: model_source(model)}


def require_same_request(study: str, began: TuneRequest, now: TuneRequest) -> None:
    """Raise BadInput where a study would go on with another request, or with another file as the trace of the same."""
    if _same(began, now):
        return
    allowed = "the request that the study was started with"
    before, after = began.workload.arrival, now.workload.arrival
    if before.recorded and after.recorded and before.recorded.sha256 != after.recorded.sha256:
        allowed += f"; its trace {before.trace} had the SHA-256 {before.recorded.sha256[:12]}…, and has another now"
    raise BadInput("--resume", study, allowed)


def _same(began: TuneRequest, now: TuneRequest) -> bool:
    """One request, where one of both does not say for which release of vLLM; facts tell what really runs."""
    if began.engine.version is not None and now.engine.version is not None:
        return began == now
    return began.of_release(None) == now.of_release(None)


def require_same(study: str, began: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise BadInput where a study's facts as it ``began`` and those of ``now`` are not of one cluster.

    What an older study does not tell is not compared.
    """
    if simulated_seed(began) != simulated_seed(now) or _differ(LAUNCHER_FACT, began, now):
        raise BadInput("--launcher", _world(now), f"{_world(began)}, with which study {study} began")
    if _differ(MODEL_FACT, began, now):
        raise BadInput("model", now[MODEL_FACT], f"{began[MODEL_FACT]}, which study {study} launches")
    used = [name for name in ENGINES if name in now]
    if any(name in began for name in ENGINES) and any(began.get(name) != now[name] for name in used):
        raise BadInput(
            "--resume",
            versions_shown({name: now[name] for name in used}),
            f"{versions_shown({name: began[name] for name in ENGINES if name in began})}, with which study {study} "
            "began; install these, or begin another study with --study",
        )


def _differ(fact: str, began: Mapping[str, str], now: Mapping[str, str]) -> bool:
    return fact in began and fact in now and began[fact] != now[fact]


def _world(facts: Mapping[str, str]) -> str:
    seed = simulated_seed(facts)
    return facts.get(LAUNCHER_FACT, "a real launcher") if seed is None else f"simulated, --simulated-seed {seed}"
