"""Whether an account may have another study queued: how many of its own wait or run, and what it has spent."""

from __future__ import annotations

import math
from http import HTTPStatus

from tuner.app.answers.problem import QUOTA
from tuner.app.service.access import Caller
from tuner.app.service.problems import Refused
from tuner.app.service.service import Service
from tuner.errors import BadInput
from tuner.study.quotas import Standing


def require_room(service: Service, caller: Caller, owner: str, study: str, *, simulated: bool) -> None:
    """Raise Refused with 429 where the account ``owner``, to which the study counts, has no room for it; the audit
    keeps that. Simulated clusters cost no GPU-hours.

    Whoever calls has looked before at what no room would mend, a name that is taken or a study that is not to be
    resumed: that is a conflict, 409, however much room there is.
    """
    standing = service.store.quotas.standing(owner)
    own = standing.quota.studies
    most = service.settings.limits.open_studies if own is None else own
    try:
        if service.store.orders.running(owner) >= most:
            words = f"this token has {most} studies that wait or run, which is the most"
            raise _refused(words, BadInput("quota: studies", most, f"fewer than {most} that wait or run"))
        if standing.frees_at is not None and not simulated:
            raise _spent(standing)
    except Refused as refused:
        service.noted(caller, "refuse", study, refused.detail)
        raise


def _spent(standing: Standing) -> Refused:
    quota, frees_at = standing.quota, standing.frees_at
    more = {
        "gpu_hours": standing.gpu_hours,
        "allowed_gpu_hours": quota.gpu_hours,
        "window_days": quota.window_days,
        "frees_at": None if frees_at is None or math.isinf(frees_at) else frees_at,
    }
    allowed = f"less than {quota.gpu_hours or 0:g} GPU-hours in {quota.window_days:g} days"
    return _refused(standing.words, BadInput("quota: gpu_hours", f"{standing.gpu_hours:.4g}", allowed), more)


def _refused(words: str, wrong: BadInput, more: dict[str, float | None] | None = None) -> Refused:
    """Without ``Retry-After``: it would be days, and nobody should wait for it with an open connection."""
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, words, wrong, kind=QUOTA, more=more)
