"""What is ordered of a RayService next: pure, from what is read of it and what the rollout asks for.

Under an incremental upgrade KubeRay moves traffic by itself, as fast as the document says: a share is held by a step
of 0. Until that is ordered, KubeRay moves one step every ``interval_s``; a canary's interval is therefore as long as
the new cluster has been there, so that the first step is taken at once, and a watcher that dies right behind it leaves
the next one for as long again. Traffic that has moved goes back only with the former document (``returning``): KubeRay
from 1.7 on returns to the cluster that it still has; before, it makes that one once more, while all traffic goes to
the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deploy.rollout.kuberay.reading import ServiceRead
from deploy.rollout.kuberay.upgrades import Upgrades
from tuner.errors import ParlayError

_ALL = 100


@dataclass(frozen=True, slots=True)
class Course:
    """The document of ``deployment`` is applied, with these options: in percent how much capacity and traffic move at
    a time, every ``interval_s``. ``share_percent`` is where the new one's traffic is to stop. ``closed``: it is about
    to end, with nothing beside it; KubeRay can turn nobody away, so that who asks until then is cut off."""

    deployment: str
    before: str | None = None
    returning: bool = False
    surge_percent: int = _ALL
    step_percent: int = 0
    interval_s: int = 1
    share_percent: int = 0
    suspended: bool = False
    closed: bool = False


def starting(seen: ServiceRead | None, name: str, canary_percent: int, upgrades: Upgrades) -> Course | None:
    """Have a deployment brought up, without traffic where another serves; None where that was ordered already. Raises
    ParlayError while another one is coming up."""
    if seen is None:
        return Course(name, None, share_percent=_ALL)
    if seen.applied == name:
        return None if not seen.suspended else Course(name, seen.before, share_percent=_ALL)
    if name in (seen.active_runs, seen.pending_runs):
        return None
    if seen.pending is not None and not seen.suspended:
        raise ParlayError(f"KubeRay brings up {seen.pending_runs}: {name} has to wait until that is over")
    if seen.suspended or upgrades.gateway_class is None:
        return Course(name, seen.active_runs or seen.applied, share_percent=_ALL)
    return Course(name, seen.active_runs or seen.applied, surge_percent=canary_percent)


def routing(seen: ServiceRead, now: Course, shares: Mapping[str, float], at_s: float, upgrades: Upgrades) -> Course:
    """Have traffic shared so; ``now`` is what was ordered last, and comes back where nothing is to be changed. Raises
    ParlayError for a share that KubeRay cannot hold."""
    serves, comes = seen.active_runs, seen.pending_runs
    wanted = {name: percent_of(share) for name, share in shares.items() if share > 0}
    strange = wanted.keys() - {serves, comes, now.deployment}
    if strange:
        raise ParlayError(f"no traffic can go to {', '.join(sorted(strange))}: KubeRay runs no such deployment")
    if seen.pending is None or comes is None or comes == serves:
        if serves is not None and wanted.keys() <= {serves}:
            return replace(now, closed=not wanted)
        raise ParlayError("only one Ray cluster serves: KubeRay can share no traffic")
    percent = wanted.get(comes, 0)
    if now.returning:
        if percent:
            raise ParlayError(f"KubeRay goes back from {comes}: it gets no traffic any more")
        return now
    if not seen.incremental and percent != _ALL:
        raise ParlayError(upgrades.no_canary() or f"KubeRay does not say what share of the traffic {comes} has")
    return _moved(seen, now, percent, at_s, upgrades)


def _moved(seen: ServiceRead, now: Course, percent: int, at_s: float, upgrades: Upgrades) -> Course:
    assert seen.pending is not None
    has = seen.pending.traffic_percent or 0
    if percent == 0 and has > 0:
        return back(now)
    if percent == _ALL:
        pace = upgrades.surge_percent
        return replace(now, surge_percent=pace, step_percent=pace, interval_s=upgrades.interval_s, share_percent=_ALL)
    if has >= percent:
        return replace(now, step_percent=0, share_percent=percent)
    if now.share_percent == percent and now.step_percent > 0:
        return now
    there_s = 1 if seen.pending.moved_s is None else max(1, int(at_s - seen.pending.moved_s))
    step = percent - has
    return replace(now, surge_percent=percent, step_percent=step, interval_s=there_s, share_percent=percent)


def percent_of(share: float) -> int:
    """A share as KubeRay holds it, in whole percent: some traffic is 1 at least, and not all of it 99 at most."""
    if share <= 0:
        return 0
    return _ALL if share >= 1 else min(_ALL - 1, max(1, round(_ALL * share)))


def steadied(seen: ServiceRead, now: Course) -> Course:
    """What keeps KubeRay from going past the share that was ordered; ``now`` where it need not be kept."""
    if now.returning or now.share_percent in (0, _ALL) or now.step_percent == 0 or seen.pending is None:
        return now
    return replace(now, step_percent=0) if (seen.pending.traffic_percent or 0) >= now.share_percent else now


def back(now: Course) -> Course:
    """Return to what served before, with all traffic and at once."""
    if now.before is None:
        raise ParlayError(f"nothing served before {now.deployment}: there is nothing to go back to")
    return Course(now.before, now.deployment, returning=True, step_percent=_ALL, share_percent=_ALL)


def ending(seen: ServiceRead, now: Course, name: str) -> Course | None:
    """Have a deployment end that has no traffic; None where that is under way, or it is not there. Raises ParlayError
    where it serves."""
    serves, comes = seen.active_runs, seen.pending_runs
    if name == comes and comes != serves:
        if now.returning:
            return None
        if seen.percent_of(name):
            raise ParlayError(f"{name} has {seen.percent_of(name)} % of the traffic: it must have none")
        return back(now)
    if name == now.deployment and not now.returning and seen.pending is None and serves not in (None, name):
        return back(now)  # KubeRay has not looked at it yet
    if name == serves and (seen.pending is None or comes == serves):
        return None if seen.suspended else replace(now, suspended=True)
    return None
