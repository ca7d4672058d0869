"""What the controller does next, of what it observes: a pure function, asked again after every step.

Nothing is remembered between two looks. A controller that was killed anywhere, or another that took over, sees what is
there and goes on with it; each step is one that may be done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.controller.manifests import in_place, wanted
from deploy.controller.observed import OPEN, QUOTA, Asked, Document, Observed, Refused, StudySeen
from deploy.controller.retuning import is_watched, site_of, to_let
from deploy.controller.status import status
from deploy.controller.study_clusters import LOOK_AGAIN_S, asked_for, done_with, orphans, to_be_made, waits_for_room
from tuner.retune.policy import RetunePolicy
from tuner.study.lifecycle import StudyState

TEARDOWN_S = 600.0  # for so long a deleted LayoutRequest stays where its studies do not end
QUOTA_S = 60.0  # a quota may be raised meanwhile, or room for a RayCluster be there again, which nobody tells


@dataclass(frozen=True, slots=True)
class Hold:
    """Add the finalizer, before anything is begun that would have to be ended."""


@dataclass(frozen=True, slots=True)
class Release:
    """Remove it."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue the study of what is asked."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Queue it again: it was cancelled because something else was asked for since, or a quota held it."""

    study: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a study that is asked for no more."""

    study: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Pin the study: were it taken away for its age, it would be run again, and all that serves replaced."""


@dataclass(frozen=True, slots=True)
class Let:
    """Unpin a study that is asked for no more."""

    study: str


@dataclass(frozen=True, slots=True)
class MakeCluster:
    """Make the RayCluster on which the study runs, if ``gpus`` more may be taken."""

    document: dict[str, Any]
    gpus: int


@dataclass(frozen=True, slots=True)
class RemoveCluster:
    """Remove one whose study needs it no more."""

    document: Document


@dataclass(frozen=True, slots=True)
class EndOrphan:
    """End a study that was told to, but whose worker went with its RayCluster."""

    study: str


@dataclass(frozen=True, slots=True)
class ApplyConfigMap:
    """Apply the ConfigMap with the manifest."""

    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApplyService:
    """Apply the RayService."""

    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Watch:
    """Have what serves watched, and rolled out by the watcher alone; ``site`` as ``retuning`` has it."""

    policy: RetunePolicy
    site: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Watch a study no more."""

    study: str


@dataclass(frozen=True, slots=True)
class Say:
    """Write the status."""

    status: dict[str, Any]


Action = (
    Hold | Release | Submit | Resume | Cancel | Keep | Let | MakeCluster | RemoveCluster | EndOrphan
    | ApplyConfigMap | ApplyService | Watch | Unwatch | Say
)  # fmt: skip


def next_action(seen: Observed, now: str) -> Action | None:
    """The next step; None: nothing is to be done until something changes. ``now`` as ``status`` has it.

    What was tried since the look and did not work (``seen.refused``) is not tried again before the next.
    """
    if seen.resource.deleting:
        return _ending(seen, now)
    if not seen.resource.held:
        return Hold()
    asked = seen.asked
    if isinstance(asked, Refused):
        return _say(seen, now) or _cleared(seen)
    first = _begun(seen) or _made(seen) or _shipped(seen, asked)
    return first or _say(seen, now) or _superseded(seen) or _unwatched(seen) or _cleared(seen) or _pins(seen)


def again_s(seen: Observed) -> float | None:
    """In how many seconds to look again though nothing is told until then; None: there is no need."""
    if orphans(seen):
        return LOOK_AGAIN_S
    study = seen.study
    if seen.resource.deleting:
        return max(TEARDOWN_S - seen.deleted_s, 0.0) + 1.0 if seen.resource.held else None
    if waits_for_room(seen) or any(one.reason == QUOTA for one in seen.refused.values()):
        return QUOTA_S
    if study is None or study.state is not StudyState.PAUSED or study.frees_s is None:
        return None
    return min(max(study.frees_s, 1.0), QUOTA_S)


def _ending(seen: Observed, now: str) -> Action | None:
    if not seen.resource.held:
        return None
    if (left := _cancel(seen.studies) or _unwatched(seen) or _let(seen.studies) or _cleared(seen)) is not None:
        return left
    if not any(study.state in OPEN for study in seen.studies):
        return Release()
    if seen.deleted_s <= TEARDOWN_S:
        return _say(seen, now)
    late = None if "remove" in seen.refused else done_with(seen, all_of_them=True)
    return Release() if late is None else RemoveCluster(late)


def _made(seen: Observed) -> MakeCluster | None:
    document, asked = to_be_made(seen), asked_for(seen)
    return None if document is None or asked is None else MakeCluster(document, asked.gpus)


def _cleared(seen: Observed) -> RemoveCluster | EndOrphan | None:
    """No RayCluster outlives the need of its study, and no study waits for one that is gone."""
    if "remove" not in seen.refused and (cluster := done_with(seen)) is not None:
        return RemoveCluster(cluster)
    return next((EndOrphan(one.name) for one in orphans(seen) if one.name not in seen.refused), None)


def _cancel(studies: tuple[StudySeen, ...]) -> Cancel | None:
    left = (study for study in studies if study.state in OPEN and not study.ending)
    return next((Cancel(study.name) for study in left), None)


def _superseded(seen: Observed) -> Cancel | None:
    """What was asked before ends once the status names another study: so it is known who cancelled which."""
    named = seen.study is not None and seen.resource.status.get("study") == seen.study.name
    return _cancel(seen.others) if named else None


def _let(studies: tuple[StudySeen, ...]) -> Let | None:
    return next((Let(study.name) for study in studies if study.pinned), None)


def _pins(seen: Observed) -> Keep | Let | None:
    """Of its studies that have ended, the one that it names is pinned and no other."""
    study = seen.study
    if study is not None and study.state not in OPEN and not study.pinned:
        return Keep()
    return _let(seen.others)


def _begun(seen: Observed) -> Action | None:
    """The study is there, unless somebody has deleted it; it was not ended by the controller itself, nor paused by a
    quota that is free again."""
    if seen.study is None:
        return None if "submit" in seen.refused or seen.study_deleted else Submit()
    another = seen.resource.status.get("study") not in (None, seen.study.name)
    ended = seen.study.state is StudyState.CANCELLED and another
    freed = seen.study.state is StudyState.PAUSED and seen.study.frees_s == 0
    return Resume(seen.study.name) if (ended or freed) and "resume" not in seen.refused else None


def _shipped(seen: Observed, asked: Asked) -> Action | None:
    """The winner's manifest is where it is asked to be; what belongs to others is left alone."""
    found = wanted(seen)
    if found is None:
        return None
    service, mapped = found
    if _to_be_applied(seen, "config-map", seen.config_map, mapped):
        return ApplyConfigMap(mapped)
    if asked.auto and asked.retune is not None:
        tried = "watch" in seen.refused or not seen.kuberay or is_watched(seen, asked)
        return None if tried else Watch(asked.retune.policy, site_of(seen, asked))
    if asked.auto and seen.kuberay and _to_be_applied(seen, "rayservice", seen.rayservice, service):
        return ApplyService(service)
    return None


def _unwatched(seen: Observed) -> Unwatch | None:
    found = to_let(seen)
    return None if found is None else Unwatch(found.study)


def _to_be_applied(seen: Observed, what: str, found: Document | None, document: Document) -> bool:
    if what in seen.refused or (found is not None and not seen.resource.owns(found)):
        return False
    return found is None or not in_place(found, document)


def _say(seen: Observed, now: str) -> Say | None:
    said = status(seen, now)
    return None if said == dict(seen.resource.status) or "say" in seen.refused else Say(said)
