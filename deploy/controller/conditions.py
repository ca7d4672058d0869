"""The conditions of a LayoutRequest, of what is observed: each with a reason in one word and a message for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.controller.manifests import config_map_of, in_place, ready, wanted
from deploy.controller.names import STUDY
from deploy.controller.observed import QUOTA, Observed, Refused
from deploy.controller.retuning import held, rolled_out, watching
from deploy.controller.study_clusters import words
from tuner.study.lifecycle import StudyState

Said = tuple[str, str, str]  # status, reason, message
_MOST_LETTERS = 2000
_RUNNING = {
    StudyState.QUEUED: ("Queued", "the study waits for a worker"),
    StudyState.RUNNING: ("Running", "a worker runs the study"),
    StudyState.PAUSED: ("Paused", "the study was paused; resume it with `parlay resume` or in the service"),
}


def said(seen: Observed) -> dict[str, Said]:
    """Every condition, by its type."""
    return {kind: _short(rule(seen)) for kind, rule in _RULES.items()}


def _short(words: Said) -> Said:
    status, reason, message = words
    return status, reason, message if len(message) <= _MOST_LETTERS else f"{message[:_MOST_LETTERS]} …"


def _accepted(seen: Observed) -> Said:
    problem = seen.asked if isinstance(seen.asked, Refused) else seen.refused.get("submit")
    if problem is not None and problem.reason != QUOTA:
        return "False", problem.reason, problem.message
    return "True", "Valid", "the request is valid"


def _studying(seen: Observed) -> Said:
    study = seen.study
    held = next((one for one in seen.refused.values() if one.reason == QUOTA), None)
    if held is not None:
        return "False", QUOTA, f"{held.message}; when there is room, it goes on by itself"
    if study is None:
        why = "the study was deleted" if seen.study_deleted else "there is no study yet"
        return "False", "Deleted" if seen.study_deleted else "NotStarted", why
    if study.ending:
        return "True", "Ending", "a worker ends the study"
    if study.state is StudyState.PAUSED and study.frees_s is not None:
        return "False", QUOTA, f"{study.problem}; then the study ({study.name}) goes on by itself"
    if study.state in _RUNNING:
        reason, message = _RUNNING[study.state]
        if study.state is StudyState.PAUSED:
            return "False", reason, f"{message} ({study.name}){f': {study.problem}' if study.problem else ''}"
        cluster = words(seen) if study.state is StudyState.QUEUED else None
        return cluster or ("True", reason, f"{message} ({study.name})")
    return "False", "Ended", f"study {study.name} has ended: {study.state.value}"


def _decided(seen: Observed) -> Said:
    study = seen.study
    if study is None or study.verdict is None:
        return "False", "NotYet", "nothing is decided yet"
    if study.verdict.layout is None:
        return "True", "NoWinner", study.verdict.why
    return "True", "Winner", study.verdict.why


def _infeasible(seen: Observed) -> Said:
    study = seen.study
    if study is None or study.verdict is None:
        return "Unknown", "NotYet", "nothing is decided yet"
    if study.verdict.layout is None:
        more = f" {study.verdict.remedy}" if study.verdict.remedy else ""
        return "True", "NoLayoutMeetsSlo", f"{study.verdict.why}{more}"
    return "False", "Winner", "a layout meets the SLO"


def _rolled_out(seen: Observed) -> Said:
    found, asked = seen.rayservice, seen.asked
    mine = seen.resource.owns(found)
    if isinstance(asked, Refused):
        return "False", "Refused", "the request is not accepted"
    study, serves = seen.study, _serves(seen)
    if study is None or study.verdict is None or study.verdict.layout is None:
        no = study is not None and study.verdict is not None
        why = "no layout meets the SLO" if no else "nothing is decided yet"
        return "False", "NoWinner" if no else "AwaitingDecision", why + serves
    if isinstance(study.verdict.manifest, Refused):
        return "False", study.verdict.manifest.reason, study.verdict.manifest.message
    if seen.config_map is not None and not seen.resource.owns(seen.config_map) and not asked.auto:
        return "False", "NotOwned", _another(f"ConfigMap {config_map_of(asked.service)}")
    if not asked.auto:
        where = f"the manifest is in ConfigMap {config_map_of(asked.service)}; deploy: auto applies it"
        return _tried(seen, "config-map", ("False", "Manual", where + serves))
    if asked.retune is not None and seen.kuberay:
        return _tried(seen, "watch", rolled_out(seen))
    if not seen.kuberay:
        return "False", "KubeRayMissing", "the cluster knows no RayService: install KubeRay's operator"
    if found is not None and not mine:
        return (
            "False",
            "NotOwned",
            f"RayService {asked.service} was not made for this LayoutRequest, and stays as it is",
        )
    if "rayservice" in seen.refused or found is None:
        return _tried(seen, "rayservice", ("False", "NotApplied", "the RayService is not applied yet"))
    made, name = wanted(seen), asked.service
    if made is not None and in_place(found, made[0]) and ready(found):
        left = f"; RayService {', '.join(seen.left)} of an earlier name runs too: delete it" if seen.left else ""
        return "True", "Serving", f"RayService {name} serves {study.verdict.layout}{left}"
    return "False", "RollingOut", f"RayService {name} is applied; KubeRay does not say yet that it serves"


def _another(what: str) -> str:
    return f"{what} was not made for this LayoutRequest, and stays as it is; spec.target.name gives another name"


def _tried(seen: Observed, what: str, otherwise: Said) -> Said:
    problem = seen.refused.get(what)
    return otherwise if problem is None else ("False", problem.reason, problem.message)


def _serves(seen: Observed) -> str:
    """A word on what goes on serving meanwhile."""
    if seen.rayservice is None or not seen.resource.owns(seen.rayservice):
        return ""
    study = seen.rayservice["metadata"].get("annotations", {}).get(STUDY)
    return f"; RayService {seen.rayservice['metadata']['name']} serves what study {study} found"


def _failed(seen: Observed) -> Said:
    study = seen.study
    if study is not None and study.state is StudyState.FAILED:
        return "True", "StudyFailed", study.problem or "the study failed; its trials say why"
    if study is not None and study.state is StudyState.CANCELLED:
        return "True", "StudyCancelled", "somebody cancelled the study; resume it, or change the request"
    if seen.study_deleted:
        name = seen.resource.status.get("study")
        return "True", "StudyDeleted", f"somebody deleted the study ({name}); change the request to have another"
    return "False", "NoFailure", "nothing failed"


_RULES: dict[str, Callable[[Observed], Said]] = {
    "Accepted": _accepted,
    "Studying": _studying,
    "Decided": _decided,
    "Infeasible": _infeasible,
    "RolledOut": _rolled_out,
    "Failed": _failed,
    "Watching": watching,
    "Held": held,
}


def with_times(words: dict[str, Said], before: list[dict[str, Any]], generation: int, now: str) -> list[dict[str, Any]]:
    """The conditions as the status has them: the moment of a transition stays until the next one."""
    old = {condition.get("type"): condition for condition in before}
    found = []
    for kind, (status, reason, message) in words.items():
        was = old.get(kind, {})
        since = was.get("lastTransitionTime", now) if was.get("status") == status else now
        found.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": generation,
                "lastTransitionTime": since,
            }
        )
    return found
