"""Deployments and rollouts for tests."""

from __future__ import annotations

from typing import Any

from tuner.ask.deployment import parse_deployment
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.rollout import Rollout, Step, Way
from tuner.trial.launched import Launched, RayApplication


def a_live(name: str, layout: str = "tp=1", **changes: Any) -> LiveDeployment:
    """A deployment of the study ``s``."""
    config = {"name": name, "route_prefix": f"/{name}"}
    launched = Launched("ray-serve", {"ray": "2.60.0"}, "model", RayApplication(config))
    known: dict[str, Any] = {
        "watched": "s", "name": name, "study": "s", "trial": 0, "deployment": parse_deployment(layout),
        "launched": launched, "site": "simulated", "state": LiveState.WANTED, "created_s": 0.0,
    }  # fmt: skip
    return LiveDeployment(**known | changes)


def a_rollout(way: Way = Way.BESIDE, **changes: Any) -> Rollout:
    """The rollout of ``new`` for ``old`` that was just planned, and approved."""
    known: dict[str, Any] = {
        "watched": "s", "number": 1, "way": way, "old": "old", "new": "new", "step": Step.PLANNED,
        "why": "it is faster", "began_s": 0.0, "step_since_s": 0.0, "approved": True,
    }  # fmt: skip
    return Rollout(**known | changes)
