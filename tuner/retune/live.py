"""What is deployed: which decision, which application, where, since when, and whether it was ever good."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tuner.ask.deployment import Deployment
from tuner.retune.seen import Fingerprint
from tuner.trial.launched import Launched


class LiveState(StrEnum):
    """Where a deployment that is to serve stands."""

    WANTED = "wanted"  # nothing of it exists for certain
    SERVING = "serving"  # traffic goes there, some or all of it
    LAST_GOOD = "last_good"  # served well before the present one; what a rollback goes to
    ENDED = "ended"
    FAILED = "failed"  # never came up, or was rolled back


@dataclass(frozen=True, slots=True)
class LiveDeployment:
    """One deployment of a watched study. ``watched`` is the study's first round, by whose name all of this is known;
    ``study`` the round that decided it, and ``trial`` the trial that measured it (None: an emergency's, measured by
    nobody yet). ``name`` is unique for ever: the application's, in Ray Serve and Kubernetes alike. ``launched`` is what
    is, or was, started; ``fingerprint`` what it rested on when it was decided. It is ``good`` once a
    canary said so, or it served well for a while. Times are in s since 1970."""

    watched: str
    name: str
    study: str
    trial: int | None
    deployment: Deployment
    launched: Launched
    site: str
    state: LiveState
    created_s: float
    serving_since_s: float | None = None
    ended_s: float | None = None
    good: bool = False
    fingerprint: Fingerprint | None = None
