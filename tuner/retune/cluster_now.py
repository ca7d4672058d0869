"""The cluster of a request as it is seen now: its node groups with the nodes that are there, and links as probed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tuner.ask.profile import load_profile
from tuner.ask.request import ClusterSpec, TuneRequest
from tuner.cost.collectives import load_fabric
from tuner.retune.seen import Fingerprint, LinkSeen, NodeSeen

_PROBES_DIFFER = 0.1  # share by which two probes of one link may


def cluster_now(
    request: TuneRequest, seen: Fingerprint | None, then: Fingerprint | None
) -> tuple[ClusterSpec | tuple[ClusterSpec, ...] | None, dict[str, str]]:
    """(the cluster section of now, what changed in words: ``nodes`` and ``link``); None where no node is left.

    Where nobody sees the nodes, they are those that were asked for. Kinds of GPUs that the request does not name are
    left out: nobody asked for layouts on them.
    """
    changed: dict[str, str] = {}
    groups = request.groups or _found(seen)
    links = _links(seen, then)
    if seen is not None and seen.nodes is not None:
        counted = [(spec, _equal_nodes(spec, seen.nodes)) for spec in groups]
        told = [_words(spec, now) for spec, now in counted if now != (spec.nodes, spec.gpus_per_node)]
        if told:
            changed["nodes"] = "; ".join(told)
        groups = tuple(_resized(spec, *now) for spec, now in counted if now[0])
    linked = []
    for spec in groups:
        factor = links.get(_fabric(spec), 1.0)
        if factor != 1.0:
            own = spec.inter_node_gb_per_s or _own_gb_per_s(spec)
            changed["link"] = f"{own * factor:.3g} GB/s between nodes instead of {own:.3g}"
            spec = spec.model_copy(update={"inter_node_gb_per_s": own * factor})
        linked.append(spec)
    if not linked:
        return None, changed
    return (linked[0] if len(linked) == 1 else tuple(linked)), changed


def _found(seen: Fingerprint | None) -> tuple[ClusterSpec, ...]:
    """Groups for a request that names none: all kinds of nodes that are seen."""
    nodes = [] if seen is None else [node for node in seen.nodes or () if node.gpu and node.gpus]
    counts = Counter((node.gpu, node.gpus) for node in nodes)
    best: dict[str, tuple[int, int]] = {}
    for (gpu, per_node), count in counts.items():
        if gpu is not None and count * per_node > best.get(gpu, (0, 0))[0] * best.get(gpu, (0, 0))[1]:
            best[gpu] = (count, per_node)
    return tuple(ClusterSpec(gpu=gpu, nodes=n, gpus_per_node=per) for gpu, (n, per) in best.items())


def _equal_nodes(spec: ClusterSpec, nodes: Iterable[NodeSeen]) -> tuple[int, int]:
    """(nodes, GPUs of each) of a group: those with as many GPUs as were asked for, or where none has, the most
    devices that equal parts of all nodes give."""
    names = {spec.gpu, load_profile(spec.gpu).name}
    sizes = [node.gpus for node in nodes if node.gpu in names and node.gpus > 0]
    whole = sum(size >= spec.gpus_per_node for size in sizes)
    if whole or not sizes:
        return whole, spec.gpus_per_node
    per = max(set(sizes), key=lambda each: (each * sum(size >= each for size in sizes), each))
    return sum(size >= per for size in sizes), per


def _resized(spec: ClusterSpec, nodes: int, per_node: int) -> ClusterSpec:
    return spec.model_copy(update={"nodes": nodes, "gpus_per_node": per_node})


def _words(spec: ClusterSpec, now: tuple[int, int]) -> str:
    was = f"{spec.nodes} × {spec.gpus_per_node}"
    return f"{now[0]} × {now[1]} {spec.gpu} instead of {was}" if now[0] else f"no {spec.gpu} instead of {was}"


def _links(seen: Fingerprint | None, then: Fingerprint | None) -> dict[str, float]:
    """By fabric, how many times faster a link is than when the decision was made; of links that were probed twice."""
    before = {} if then is None else then.links
    now = {} if seen is None else seen.links
    return {name: _factor(before[name], link) for name, link in now.items() if name in before}


def _factor(before: LinkSeen, now: LinkSeen) -> float:
    """1 where it changed by less than probes differ by."""
    factor = now.gb_per_s / before.gb_per_s if before.gb_per_s > 0 else 1.0
    return factor if factor > 0 and abs(factor - 1) > _PROBES_DIFFER else 1.0


def _fabric(spec: ClusterSpec) -> str:
    return spec.fabric or load_profile(spec.gpu).fabric


def _own_gb_per_s(spec: ClusterSpec) -> float:
    """What the fabric's NICs give each device, in GB/s and direction."""
    return load_fabric(_fabric(spec)).nic_gb_per_s * load_profile(spec.gpu).nics_per_node / spec.gpus_per_node
