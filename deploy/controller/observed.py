"""What the controller sees of one LayoutRequest at one moment. Nothing else enters into what it does next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.controller.names import FINALIZER, Key
from deploy.controller.resource import Retune
from tuner.retune.policy import RetunePolicy
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish

Document = Mapping[str, Any]
OPEN = (StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSED)
QUOTA = "QuotaSpent"  # reason


@dataclass(frozen=True, slots=True)
class Resource:
    """The object itself, as the API server has it."""

    document: Document

    @property
    def key(self) -> Key:
        """Where it is found."""
        meta = self.document["metadata"]
        return Key(meta["namespace"], meta["name"])

    @property
    def uid(self) -> str:
        """The object, not its name."""
        return str(self.document["metadata"]["uid"])

    @property
    def generation(self) -> int:
        """Grows with every change of the spec."""
        return int(self.document["metadata"].get("generation", 0))

    @property
    def version(self) -> str:
        """Its resource version."""
        return str(self.document["metadata"].get("resourceVersion", ""))

    @property
    def finalizers(self) -> tuple[str, ...]:
        """Who has to be done with it before it goes."""
        return tuple(self.document["metadata"].get("finalizers", ()))

    @property
    def held(self) -> bool:
        """Whether it stays until the controller has let go of it."""
        return FINALIZER in self.finalizers

    @property
    def deleting(self) -> bool:
        """Whether somebody has deleted it."""
        return "deletionTimestamp" in self.document["metadata"]

    @property
    def status(self) -> Document:
        """What was last said of it; empty at first."""
        found: Document = self.document.get("status") or {}
        return found

    def owns(self, other: Document | None) -> bool:
        """Whether another object was made for it."""
        owners = (other or {}).get("metadata", {}).get("ownerReferences", ())
        return any(owner.get("uid") == self.uid for owner in owners)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why something is not done: a reason in one word, and in words."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a study concluded, in the keys of the status; ``manifest`` is the winner's RayService, without a winner
    None, and Refused where none can be written."""

    layout: str | None
    gpus: int | None
    usd_per_hour: float | None
    why: str
    remedy: str | None
    manifest: Document | Refused | None
    spent: Document | None = None


@dataclass(frozen=True, slots=True)
class StudySeen:
    """A study of it in the store; ``best`` and ``spent`` None where nothing is known, ``verdict`` until it decided.

    ``pinned``: no rule for old studies takes it. ``cluster``: the RayCluster that was made for it alone. ``frees_s``,
    of one that a quota has paused: in how many seconds it may launch again (0: now).
    """

    name: str
    state: StudyState
    wish: Wish | None = None
    problem: str | None = None
    best: str | None = None
    spent: Document | None = None
    verdict: Verdict | None = None
    pinned: bool = False
    cluster: str | None = None
    frees_s: float | None = None

    @property
    def needs_cluster(self) -> bool:
        """Whether it waits for, or runs on, a RayCluster of its own."""
        return self.cluster is not None and self.state in (StudyState.QUEUED, StudyState.RUNNING)

    @property
    def ending(self) -> bool:
        """Whether it was told to end and has not."""
        return self.wish is Wish.CANCEL and self.state is StudyState.RUNNING


@dataclass(frozen=True, slots=True)
class WatchedSeen:
    """A watched study: by which policy, and how its watcher's last look stood, in a word and in words (``state`` None:
    there was none yet). ``serving`` is the deployment that has the traffic, ``layout`` its layout. ``attended``: some
    process watches it."""

    study: str
    policy: RetunePolicy
    attended: bool = False
    paused: bool = False
    state: str | None = None
    text: str = ""
    serving: str | None = None
    layout: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterAsked:
    """A RayCluster that is to be made for a study: its name, its GPUs, and its manifest."""

    name: str
    gpus: int
    manifest: Document


@dataclass(frozen=True, slots=True)
class Asked:
    """What its spec asks for, checked: the study's name, whether the winner is applied, and the RayService's name.

    ``target`` stands for all else that a manifest is made of beside the winner. ``cluster`` is where trials run, if
    not where the workers of the controller run them. ``retune``: what serves is watched, and the watcher alone rolls
    out; None: it is not.
    """

    study: str
    auto: bool
    service: str
    target: str = ""
    cluster: ClusterAsked | None = None
    retune: Retune | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """All of it. ``study`` is that of ``asked``, ``others`` those of what was asked before, as far as they are open
    or pinned.

    ``rayservice`` and ``config_map`` are the objects of the names that it would use, whoever made them; None: there are
    none. ``left`` are RayServices that it owns under other names. ``refused`` has, for what was tried since and did not
    work, why. ``kuberay``: the cluster knows RayServices. ``deleted_s``: seconds since it was deleted. ``clusters`` are
    the RayClusters that it owns, and whatever has the name of one that it asks for; ``room`` is how many GPUs more such
    clusters may take, beside all that there are. ``watched`` are its
    studies that are watched.
    """

    resource: Resource
    asked: Asked | Refused
    study: StudySeen | None = None
    others: tuple[StudySeen, ...] = ()
    rayservice: Document | None = None
    left: tuple[str, ...] = ()
    config_map: Document | None = None
    kuberay: bool = True
    deleted_s: float = 0.0
    clusters: tuple[Document, ...] = ()
    room: int = 0
    refused: Mapping[str, Refused] = field(default_factory=dict)
    watched: tuple[WatchedSeen, ...] = ()

    @property
    def watch(self) -> WatchedSeen | None:
        """Its study, as it is watched; None where it is not."""
        name = None if self.study is None else self.study.name
        return next((one for one in self.watched if one.study == name), None)

    @property
    def studies(self) -> tuple[StudySeen, ...]:
        """All of them."""
        return (*self.others, *([self.study] if self.study else []))

    @property
    def study_deleted(self) -> bool:
        """Whether somebody has deleted the study of what is asked: it was there when the status was written."""
        if self.study is not None or isinstance(self.asked, Refused):
            return False
        return bool(self.resource.status.get("study") == self.asked.study)
