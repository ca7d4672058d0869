"""What a watcher tells: events of the watched study, each once."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.app.answers.watch import HappeningAnswer, StandingAnswer
from tuner.study.events import Events
from tuner.study.records import Event
from tuner.study.rollouts import ROLLOUT_EVENT

NOTICED, JUDGED, ACTED, SAID, PROBLEM = "noticed", "judged", "acted", "said", "watch_problem"
KINDS = (NOTICED, JUDGED, ACTED, SAID, PROBLEM, ROLLOUT_EVENT)


def tell(events: Events, study: str, standing: StandingAnswer, told: Iterable[str]) -> tuple[str, ...]:
    """Tell what is new in how a look stood; what is told by now, to be given the next time."""
    before, now = set(told), _news(standing)
    for key, (kind, data) in now.items():
        if key not in before:
            events.tell(study, kind, data)
    for text in standing.acted:
        events.tell(study, ACTED, {"text": text})
    return tuple(sorted(now))


def gist(standing: StandingAnswer) -> tuple[str, ...]:
    """What of a look is worth a line of its own: not that a figure moved since the last one."""
    return (standing.state, *sorted(_news(standing)), *standing.acted)


def _news(standing: StandingAnswer) -> dict[str, tuple[str, dict[str, str]]]:
    """What there is to tell: by a key that stays while it is the same, its kind and its data."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for notice in standing.notices:
        key = f"{NOTICED} {notice.kind} {notice.of}"
        found[key] = (NOTICED, {"kind": notice.kind, "of": notice.of, "text": notice.evidence})
    if standing.judgement is not None and standing.judgement.action != "nothing":
        held = ",".join(standing.judgement.held_by)
        key = f"{JUDGED} {standing.judgement.action} {held}"
        found[key] = (JUDGED, {"action": standing.judgement.action, "held_by": held, "text": standing.judgement.why})
    if standing.problem is not None:
        found[f"{PROBLEM} {standing.problem}"] = (PROBLEM, {"text": standing.problem})
    return found


def happening(event: Event, data: dict[str, object]) -> HappeningAnswer:
    """One event in words."""
    text = str(data.get("text") or data.get("outcome") or "")
    if event.kind == ROLLOUT_EVENT:
        share = f", {float(str(data.get('share', 0))):.0%} of the traffic" if data.get("share") else ""
        wish = f" ({data['wish']})" if data.get("wish") else ""
        told = f": {data['outcome']}" if data.get("outcome") else ""
        text = f"rollout {data.get('number')} to {data.get('new')} is {data.get('step')}{share}{wish}{told}"
    return HappeningAnswer(at=event.at, kind=event.kind.removeprefix("watch_"), text=text)
