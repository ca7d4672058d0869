"""A layout on its nodes, for the report: where each rank runs, and what one request sends between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from deploy.report.study_data import ShownLink, ShownRank, ShownRanks
from tuner.ask.cluster import Cluster, requested_cluster
from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.packing import footprint
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.cost.volume import Operation, request_operations
from tuner.errors import BadInput

_MB = 1e6


def ranks_shown(request: TuneRequest, deployment: Deployment) -> ShownRanks | None:
    """The deployment on its nodes, packed in order; None of two pools, and of a model that is not here any more."""
    if not isinstance(deployment, ParallelLayout):
        return None
    try:
        model, cluster = requested_model(request), requested_cluster(request).group(deployment)
    except BadInput:
        return None
    work = request.workload
    prompt, output = round(work.prompt_tokens.mean), max(1, round(work.output_tokens.mean))
    operations = request_operations(model, deployment, prompt, output)
    names = [_name(deployment, number) for number in range(deployment.devices)]
    places = zip(names, _places(deployment, cluster), strict=True)
    ranks = tuple(ShownRank(name, node, device) for name, (node, device) in places)
    return ShownRanks(str(deployment), cluster.gpus_per_node, ranks, tuple(_links(deployment, operations)))


def _name(layout: ParallelLayout, number: int) -> str:
    """``r1 s0 t3``: replica, stage and rank of the stage, those that there are several of."""
    replica, within = divmod(number, layout.devices_per_replica)
    stage, rank = divmod(within, layout.tp * layout.pcp)
    parts = [("r", replica, layout.dp), ("s", stage, layout.pp), ("t", rank, layout.tp * layout.pcp)]
    return " ".join(f"{letter}{value}" for letter, value, count in parts if count > 1) or "t0"


def _places(layout: ParallelLayout, cluster: Cluster) -> Iterator[tuple[int, int]]:
    """(node, device) of each rank, replica after replica: whole nodes, then a part of one that rests share."""
    per_node = cluster.gpus_per_node
    one, fresh, shared, used = footprint(layout, per_node), 0, -1, per_node
    for _ in range(layout.dp):
        for _ in range(one.whole):
            yield from ((fresh, device) for device in range(per_node))
            fresh += 1
        if one.rest:
            if used + one.rest > per_node:
                fresh, shared, used = fresh + 1, fresh, 0
            yield from ((shared, used + device) for device in range(one.rest))
            used += one.rest


def _links(layout: ParallelLayout, operations: tuple[Operation, ...]) -> Iterator[ShownLink]:
    """What each rank sends to its neighbour on the ring of its group, or to the next stage, by kind."""
    sent: dict[tuple[int, int, str], float] = defaultdict(float)
    width, size = layout.tp * layout.pcp, layout.devices_per_replica
    for op in operations:
        for replica in range(layout.dp):
            for rank in range(width):
                first = replica * size + op.stage * width + rank
                second, kind = _neighbour(layout, op, first, replica, rank)
                if second is not None and op.sent_bytes_per_rank:
                    sent[(first, second, kind)] += op.sent_bytes_per_rank
    for (first, second, kind), value in sent.items():
        yield ShownLink(_name(layout, first), _name(layout, second), kind, value / _MB)


def _neighbour(layout: ParallelLayout, op: Operation, first: int, replica: int, rank: int) -> tuple[int | None, str]:
    width, size = layout.tp * layout.pcp, layout.devices_per_replica
    if op.group == "pp":
        return (first + width if op.operation == "send" else None), "pipeline"
    if op.group == "ep":
        around = replica * width + rank + 1
        other, within = divmod(around % (width * layout.dp), width)
        return other * size + op.stage * width + within, "experts"
    ring = min(op.ranks, width)
    start = rank - rank % ring
    return first - rank + start + (rank - start + 1) % ring, "tensor"
