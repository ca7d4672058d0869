"""The status of a LayoutRequest, of what is observed, and what of it is worth an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.controller.conditions import said, with_times
from deploy.controller.manifests import config_map_of
from deploy.controller.names import DIGEST, digest
from deploy.controller.observed import QUOTA, Document, Observed, Refused
from deploy.controller.resource import Status
from deploy.controller.study_clusters import found, name_of
from tuner.study.lifecycle import StudyState

_PHASES = {
    StudyState.QUEUED: "Queued",
    StudyState.RUNNING: "Studying",
    StudyState.PAUSED: "Paused",
    StudyState.FAILED: "Failed",
    StudyState.CANCELLED: "Cancelled",
}
# Conditions whose change people are told: of type, status and reason, which kind of event.
_TOLD = {
    ("Accepted", "False"): "Warning",
    ("Studying", "True"): "Normal",
    ("Decided", "True"): "Normal",
    ("Infeasible", "True"): "Warning",
    ("RolledOut", "True"): "Normal",
    ("Failed", "True"): "Warning",
    ("Held", "True"): "Warning",
}
_HELD = {
    "Paused", "QuotaSpent", "Deleted", "FieldConflict", "NotOwned", "KubeRayMissing", "NoManifest", "NotFound",
    "Rejected", "Forbidden",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """An event for people: ``name`` is the same however often it is made."""

    name: str
    kind: str
    reason: str
    message: str


def status(seen: Observed, now: str) -> dict[str, Any]:
    """What is said of it; ``now`` is the time of a transition, as RFC 3339 has it."""
    resource, study = seen.resource, seen.study
    before = list(resource.status.get("conditions", ()))
    words = said(seen)
    # One that is to be taken up again is not named before: by that it is known that the controller cancelled it.
    waits = any(one.reason == QUOTA for one in seen.refused.values())
    document: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "phase": _phase(seen, {kind: (state, reason) for kind, (state, reason, _) in words.items()}),
        "study": resource.status.get("study") if study is None or study.ending or waits else study.name,
        "conditions": with_times(words, before, resource.generation, now),
        "deployed": _deployed(seen),
        "rayCluster": None if (cluster := found(seen)) is None else name_of(cluster),
    }
    if study is not None:
        document["best"] = {"layout": study.best} if study.best else None
        document["spent"] = study.spent
        if (verdict := study.verdict) is not None:
            document["decision"] = _present(
                layout=verdict.layout,
                gpus=verdict.gpus,
                usdPerHour=verdict.usd_per_hour,
                why=verdict.why,
                remedy=verdict.remedy,
            )
    checked = Status.model_validate(_present(**document))
    return checked.model_dump(mode="json", by_alias=True, exclude_none=True)


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _phase(seen: Observed, words: dict[str, tuple[str, str]]) -> str:
    if seen.resource.deleting:
        return "Ending"
    if words["Accepted"][0] == "False":
        return "Refused"
    study = seen.study
    if study is None:
        return "Deleted" if seen.study_deleted else "Pending"
    if study.verdict is None:
        return "Studying" if study.state is StudyState.DECIDED else _PHASES[study.state]
    if study.verdict.layout is None:
        return "Infeasible"
    if words["RolledOut"][0] == "True":
        return "RolledOut"
    held = {"RollingOut": "RollingOut", "NotApplied": "RollingOut", "Manual": "Decided"}
    return held.get(words["RolledOut"][1], "Held")


def _deployed(seen: Observed) -> Document | None:
    asked, resource = seen.asked, seen.resource
    if isinstance(asked, Refused) or seen.study is None or seen.study.verdict is None:
        return None
    mapped = config_map_of(asked.service) if resource.owns(seen.config_map) else None
    service = asked.service if resource.owns(seen.rayservice) else None
    applied = seen.rayservice if service else seen.config_map if mapped else None
    if applied is None:
        return None
    stands_for = applied["metadata"].get("annotations", {}).get(DIGEST)
    return _present(configMap=mapped, rayService=service, digest=stands_for)


def told(seen: Observed, now: dict[str, Any]) -> list[Told]:
    """What people are told of the change from the status that is there to the one that comes.

    Each has a name made of what it is of, so that a controller that was killed behind it does not tell it twice.
    """
    before = {c["type"]: (c["status"], c["reason"]) for c in seen.resource.status.get("conditions", ())}
    found = []
    for condition in now["conditions"]:
        kind, state, reason = condition["type"], condition["status"], condition["reason"]
        level = _TOLD.get((kind, state))
        if reason in _HELD and kind in ("RolledOut", "Studying"):
            level = "Warning"
        if level is not None and before.get(kind) != (state, reason):
            what = digest([seen.resource.uid, seen.resource.version, kind, state, reason])
            name = f"{seen.resource.key.name[:200].rstrip('-.')}.{what}"
            found.append(Told(name, level, reason, condition["message"][:1000]))
    return found
