"""What differs, as of the last look that saw the cluster, from the fingerprint that the decision rests on."""

from __future__ import annotations

from tuner.retune.fingerprint import changes
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Blindness, Fingerprint, Look

STALE_S = 900.0  # after which what was seen of the cluster says nothing of now
_Key = tuple[NoticeKind, str, str]


class ClusterChange:
    """Compares with ``before``; what that does not know, with how it was seen first. A look without a fingerprint
    changes nothing: what was seen stands, until it is stale."""

    def __init__(self, before: Fingerprint | None = None) -> None:
        self._before = before
        self._now: Fingerprint | None = None
        self._seen_s: float | None = None
        self._blind_s: float | None = None
        self._standing: dict[_Key, Notice] = {}

    def look(self, look: Look) -> tuple[Notice, ...]:
        """Each change since it was seen first; ``BLIND`` where nobody sees the cluster, or has for a while."""
        if self._seen_s is None:
            self._seen_s = look.at_s - look.seconds
        now = look.fingerprint
        if now is not None:
            self._seen_s = look.at_s
            if now != self._now:
                self._compare(now, look.at_s)
        blind = Blindness.NO_CLUSTER in look.blind or (now is not None and now.nodes is None)
        self._blind_s = (look.at_s - look.seconds if self._blind_s is None else self._blind_s) if blind else None
        if blind or look.at_s - self._seen_s > STALE_S:
            return (*self._standing.values(), _unseen(self._seen_s if self._blind_s is None else self._blind_s))
        return tuple(self._standing.values())

    def _compare(self, now: Fingerprint, at_s: float) -> None:
        """What this look did not see of the cluster is as it was seen last; what the decision did not know of it, as it
        was seen first."""
        self._now = now if self._now is None else _merged(self._now, now)
        self._before = now if self._before is None else _merged(now, self._before)
        found = {_key(one): one for one in changes(self._before, self._now, at_s) if one.kind is not NoticeKind.BLIND}
        self._standing = {key: self._standing.get(key, one) for key, one in found.items()}

    def decided(self, at_s: float) -> None:
        """What was seen last is what the new decision rests on."""
        self._before = self._now if self._now is not None else self._before
        self._standing = {}


def _key(one: Notice) -> _Key:
    told = "" if one.kind is NoticeKind.LINK_CHANGED else one.evidence  # a link's figures scatter
    return one.kind, one.of, told


def _merged(last: Fingerprint, now: Fingerprint) -> Fingerprint:
    """``now``, and of ``last`` what it does not know."""
    return Fingerprint(
        now.nodes if now.nodes is not None else last.nodes,
        {**last.versions, **now.versions},
        {**last.links, **now.links},
        now.model_revision or last.model_revision,
    )


def _unseen(since_s: float) -> Notice:
    evidence = "neither Ray nor Kubernetes says what the cluster has"
    return Notice(NoticeKind.BLIND, "cluster", evidence, 1.0, since_s, blindness=Blindness.NO_CLUSTER)
