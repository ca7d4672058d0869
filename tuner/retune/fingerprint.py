"""What differs between two fingerprints of a cluster. Unknown is never a change: who is not seen has not left."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Blindness, Fingerprint, LinkSeen, NodeSeen

# Relative changes beyond which probes of an unchanged link do not scatter: a small message's time depends on what else
# the host does, a large one's hardly.
ALPHA_SCATTER = 0.5
BANDWIDTH_SCATTER = 0.15


def changes(before: Fingerprint, now: Fingerprint, at_s: float) -> tuple[Notice, ...]:
    """What changed from ``before`` to ``now``, which was seen at ``at_s``; a cluster that nobody sees is ``BLIND``."""
    if now.nodes is None:
        unseen = "neither Ray nor Kubernetes says which nodes the cluster has"
        nodes = [Notice(NoticeKind.BLIND, "cluster", unseen, 1.0, at_s, blindness=Blindness.NO_CLUSTER)]
    else:
        nodes = list(_nodes(before.nodes, now.nodes, at_s))
    return (*nodes, *_links(before, now, at_s), *_versions(before, now, at_s), *_model(before, now, at_s))


def _nodes(before: tuple[NodeSeen, ...] | None, now: tuple[NodeSeen, ...], at_s: float) -> Iterator[Notice]:
    if before is None:
        return
    old, new = ({node.name: node for node in nodes} for nodes in (before, now))
    for name in sorted(old.keys() - new.keys()):
        lost = f"node {name} with {_devices(old[name])} is gone"
        yield Notice(NoticeKind.NODE_LOST, name, lost, 1.0, at_s, {"gpus": old[name].gpus})
    for name in sorted(new.keys() - old.keys()):
        joined = f"node {name} with {_devices(new[name])} has joined"
        yield Notice(NoticeKind.NODE_JOINED, name, joined, 1.0, at_s, {"gpus": new[name].gpus})
    for name in sorted(old.keys() & new.keys()):
        told = _device_changes(old[name], new[name])
        if told:
            figures = {"gpus_before": old[name].gpus, "gpus": new[name].gpus}
            evidence = f"node {name}: " + ", ".join(told)
            yield Notice(NoticeKind.DEVICES_CHANGED, name, evidence, 1.0, at_s, figures)


def _devices(node: NodeSeen) -> str:
    return f"{node.gpus} × {node.gpu or 'GPUs of an unknown kind'}"


def _device_changes(old: NodeSeen, new: NodeSeen) -> list[str]:
    told = [f"{new.gpus} GPUs in place of {old.gpus}"] if old.gpus != new.gpus else []
    for what, was, is_now in (("GPU", old.gpu, new.gpu), ("driver", old.driver, new.driver)):
        if was is not None and is_now is not None and was != is_now:
            told.append(f"{what} {is_now} in place of {was}")
    return told


def _links(before: Fingerprint, now: Fingerprint, at_s: float) -> Iterator[Notice]:
    for name in sorted(before.links.keys() & now.links.keys()):
        old, new = before.links[name], now.links[name]
        alpha, bandwidth = _change(old.alpha_us, new.alpha_us), _change(old.gb_per_s, new.gb_per_s)
        told = []
        if alpha > ALPHA_SCATTER:
            told.append(f"a message takes {new.alpha_us:.3g} µs in place of {old.alpha_us:.3g}")
        if bandwidth > BANDWIDTH_SCATTER:
            told.append(f"{new.gb_per_s:.3g} GB/s in place of {old.gb_per_s:.3g}")
        if told:
            # Probes scatter by less than the limit, so what is just beyond it is the least certain.
            beyond = max(alpha / ALPHA_SCATTER, bandwidth / BANDWIDTH_SCATTER)
            confidence = 1.0 - 0.1 / beyond / beyond
            evidence = f"link {name}: " + ", ".join(told)
            yield Notice(NoticeKind.LINK_CHANGED, name, evidence, confidence, at_s, _link_figures(old, new))


def _change(old: float, new: float) -> float:
    """By which part the greater exceeds the smaller: the same for a fall to one half as for a rise to the double."""
    if old == new:
        return 0.0
    return max(old, new) / min(old, new) - 1 if min(old, new) > 0 else math.inf


def _link_figures(old: LinkSeen, new: LinkSeen) -> dict[str, float]:
    return {
        "alpha_us_before": old.alpha_us,
        "alpha_us": new.alpha_us,
        "gb_per_s_before": old.gb_per_s,
        "gb_per_s": new.gb_per_s,
    }


def _versions(before: Fingerprint, now: Fingerprint, at_s: float) -> Iterator[Notice]:
    for name in sorted(before.versions.keys() & now.versions.keys()):
        old, new = before.versions[name], now.versions[name]
        if old != new:
            yield Notice(NoticeKind.VERSION_CHANGED, name, f"{name} is {new} in place of {old}", 1.0, at_s)


def _model(before: Fingerprint, now: Fingerprint, at_s: float) -> Iterator[Notice]:
    old, new = before.model_revision, now.model_revision
    if old is not None and new is not None and old != new:
        evidence = f"the model's revision is {new} in place of {old}"
        yield Notice(NoticeKind.MODEL_CHANGED, "model_revision", evidence, 1.0, at_s)
