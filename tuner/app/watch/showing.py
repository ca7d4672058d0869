"""All that is shown of a watched study, from the store: the one answer of the service, the page and the command."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tuner.app.answers.watch import (
    HappeningAnswer,
    RoundAnswer,
    SeenAnswer,
    WatchAnswer,
    live_answer,
    rollout_answer,
)
from tuner.app.watch.memory import Memory
from tuner.app.watch.telling import KINDS, happening
from tuner.retune.live import LiveDeployment
from tuner.retune.seen import Look
from tuner.stats.buckets import NOTHING
from tuner.study.store import Store

MOST_POINTS, MOST_EVENTS, MOST_DEPLOYMENTS = 240, 100, 20
SHOWN_S = 24 * 3600.0


def watch_answer(store: Store, study: str) -> WatchAnswer:
    """Of a study that is, or was, watched; raises BadInput for one that is not."""
    watched = store.watched.watched(study)
    memory, lives = Memory.of(watched.memory), store.live.of(study)[-MOST_DEPLOYMENTS:]
    return WatchAnswer(
        study=study,
        watched=True,
        paused=watched.paused,
        watcher=watched.watcher or None,
        policy=watched.policy.model_dump(mode="json"),
        site=dict(watched.site),
        windows_shortened=memory.shortened,
        standing=memory.standing,
        deployments=[live_answer(one) for one in reversed(lives)],
        rollouts=[rollout_answer(one) for one in store.rollouts.of(study)[:MOST_DEPLOYMENTS]],
        rounds=[_round(store, name) for name in store.rounds.of(study)],
        seen=seen_of(store, study, lives),
        happened=list(reversed(happenings(store, study))),
    )


def seen_of(store: Store, study: str, lives: Sequence[LiveDeployment], most: int = MOST_POINTS) -> list[SeenAnswer]:
    """What came in the last day, as at most so many points of each deployment."""
    found = []
    for live in lives:
        looks = store.looks.of(study, live.name)
        begin_s = looks[-1].at_s - SHOWN_S if looks else 0.0
        looks = tuple(look for look in looks if look.at_s > begin_s)
        each = -(-len(looks) // most) or 1
        found += [_seen(live.name, looks[at : at + each]) for at in range(0, len(looks), each)]
    return sorted(found, key=lambda one: one.at)


def happenings(store: Store, study: str) -> list[HappeningAnswer]:
    """The last of what a watcher told, the oldest first."""
    events = store.events.of_kinds(study, KINDS, MOST_EVENTS)
    return [happening(event, json.loads(event.data)) for event in events]


def _seen(name: str, looks: Sequence[Look]) -> SeenAnswer:
    within = {}
    for key in {key for look in looks for key in look.within}:
        total = sum((look.within[key] for look in looks if key in look.within), NOTHING)
        within[f"{key[0].value}:{key[1]!r}"] = total.likely / total.total if total.total else None
    arrived = [look.arrived for look in looks if look.arrived is not None]
    failed = [look.failed for look in looks if look.failed is not None]
    prompts = [look.prompt for look in looks if look.prompt is not None]
    tokens, requests = sum(one.mean * one.requests for one in prompts), sum(one.requests for one in prompts)
    return SeenAnswer(
        at=looks[-1].at_s,
        seconds=sum(look.seconds for look in looks),
        deployment=name,
        arrived=sum(arrived) if arrived else None,
        failed=sum(failed) if failed else None,
        within=within,
        prompt_tokens=tokens / requests if requests else None,
    )


def _round(store: Store, name: str) -> RoundAnswer:
    state = store.listing.state(name)
    return RoundAnswer(study=name, state="gone" if state is None else state.value)
