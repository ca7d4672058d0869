"""A watched study as a timeline, from the store."""

from __future__ import annotations

from deploy.report.timeline import Mark, SeenPoint, ServedSpan, Timeline
from tuner.app.watch.memory import Memory
from tuner.app.watch.showing import happenings, seen_of
from tuner.study.store import Store

_POINTS = 2000


def timeline_of(store: Store, study: str, facts: tuple[tuple[str, str], ...] = ()) -> Timeline:
    """Of the last day; raises BadInput for a study that is not watched."""
    memory, lives = Memory.of(store.watched.watched(study).memory), store.live.of(study)
    slo = store.study(study).request.slo
    names = {f"{one.metric.value}:{one.percentile!r}": str(one) for one in slo}
    points = [
        SeenPoint(
            one.deployment,
            one.at,
            one.seconds,
            one.arrived,
            one.failed,
            {names.get(key, key): share for key, share in one.within.items() if share is not None},
        )
        for one in seen_of(store, study, lives, _POINTS)
    ]
    spans = [
        ServedSpan(one.name, str(one.deployment), one.created_s, one.serving_since_s, one.ended_s, one.state.value)
        for one in lives
    ]
    marks = [Mark(one.at, one.kind, one.text) for one in happenings(store, study)]
    notes: tuple[str, ...] = ()
    if memory.shortened != 1:
        notes = (f"The detectors' windows were shortened {memory.shortened:g} times, to be shown within minutes.",)
    required = {str(one): one.percentile / 100 for one in slo}
    return Timeline(study, tuple(points), tuple(spans), tuple(marks), required, facts, notes)
