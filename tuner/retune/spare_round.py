"""The request of a round that is tuned while something serves: on the devices that it leaves."""

from __future__ import annotations

from tuner.ask.deployment import Deployment, pools_of
from tuner.ask.request import ClusterSpec, TuneRequest


def on_spare(request: TuneRequest, present: Deployment) -> TuneRequest | None:
    """The request with a cluster of what ``present`` leaves; None where that is nothing.

    Of nodes that it uses in part nothing is taken, but of a single one: trials would disturb what serves on them.
    """
    taken: dict[str | None, int] = {}
    for layout in pools_of(present).values():
        taken[layout.gpu] = taken.get(layout.gpu, 0) + layout.devices
    groups = request.groups
    named = {group.gpu for group in groups}
    left = []
    for at, group in enumerate(groups):
        mine = taken.get(group.gpu, 0) + (taken.get(None, 0) if at == 0 and None not in named else 0)
        rest = _less(group, mine)
        left += [rest] if rest is not None else []
    if not left:
        return None
    return request.model_copy(update={"cluster": left[0] if len(left) == 1 else tuple(left)})


def _less(group: ClusterSpec, devices: int) -> ClusterSpec | None:
    if devices == 0:
        return group
    if group.nodes == 1:
        rest = group.gpus_per_node - devices
        return group.model_copy(update={"gpus_per_node": rest}) if rest > 0 else None
    nodes = group.nodes - -(-devices // group.gpus_per_node)
    return group.model_copy(update={"nodes": nodes}) if nodes > 0 else None
