"""What a running Ray cluster has, and whether an application can be placed on it at all.

Pure: nodes come as Ray reports their resources, so that the impossible is refused before anything starts.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from serve.launch.accelerators import PROFILES, accelerators
from serve.launch.device import devices_of
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput
from tuner.trial.devices import Placement

Resources = dict[str, float]
_ADDRESS = re.compile(r"node:(?!__).*")  # the resource that Ray gives each node beside its devices


def llm_config(app: Mapping[str, Any]) -> dict[str, Any]:
    """The one LLM configuration of an application, with or without data-parallel ranks."""
    arguments = app["args"]
    config: dict[str, Any] = arguments["llm_config"] if "llm_config" in arguments else arguments["llm_configs"][0]
    return config


def demand(app: dict[str, Any], replicas: int) -> tuple[list[Resources], bool]:
    """Bundles of all ``replicas`` of the application's engine, and whether each replica's must share one node.

    Where they must, a replica's bundles are summed to one. Serve adds the replica's own resources to its first bundle.
    """
    config = llm_config(app)
    placement = config["placement_group_config"]
    actor = config["deployment_config"]["ray_actor_options"]
    own = {"CPU": float(actor.get("num_cpus", 1)), "GPU": float(actor.get("num_gpus", 0))}
    bundles = [own, *placement["bundles"]]
    bundles = [_sum(bundles[:2]), *bundles[2:]]
    together = placement["strategy"] == "STRICT_PACK"
    return ([_sum(bundles)] if together else bundles) * replicas, together


def fits(nodes: Sequence[Resources], bundles: Sequence[Resources]) -> bool:
    """True where the bundles can be dealt onto the nodes' total resources, largest first, each on one node."""
    left = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=lambda b: sum(b.values()), reverse=True):
        home = next((node for node in left if _holds(node, bundle)), None)
        if home is None:
            return False
        for name, amount in bundle.items():
            home[name] = home.get(name, 0.0) - amount
    return True


def home_of(nodes: Sequence[Resources], placement: Placement | None, groups: Sequence[ClusterSpec]) -> str | None:
    """Ray's resource of the node that a placement means; None where it spans several, or the nodes are others by now.

    A placement counts the nodes of a request's ``groups`` in their order; of one group, Ray's are taken by address.
    """
    if placement is None or len(placement.nodes) != 1:
        return None
    index = next(iter(placement.nodes))
    for group in groups:
        if index < group.nodes:
            members = [node for node in nodes if devices_of(group).stands_in(node, group)]
            own = sorted(name for node in members for name in node if _ADDRESS.fullmatch(name))
            return own[index] if len(own) == group.nodes else None
        index -= group.nodes
    return None


def pinned(app: dict[str, Any], home: str) -> dict[str, Any]:
    """The application with each bundle on the node whose resource is ``home``."""
    app = copy.deepcopy(app)
    for bundle in llm_config(app)["placement_group_config"]["bundles"]:
        bundle[home] = 0.001
    return app


def unpinned(app: dict[str, Any]) -> dict[str, Any]:
    """The application with its bundles on any node: what ``pinned`` was given."""
    app = copy.deepcopy(app)
    placement = llm_config(app)["placement_group_config"]
    placement["bundles"] = [
        {name: amount for name, amount in bundle.items() if not _ADDRESS.fullmatch(name)}
        for bundle in placement["bundles"]
    ]
    return app


def _sum(bundles: Sequence[Resources]) -> Resources:
    names = {name for bundle in bundles for name in bundle}
    return {name: sum(bundle.get(name, 0.0) for bundle in bundles) for name in sorted(names)}


def _holds(node: Resources, bundle: Resources) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in bundle.items() if amount > 0)


def cluster_of_nodes(nodes: Sequence[Resources]) -> ClusterSpec | tuple[ClusterSpec, ...]:
    """The nodes and devices of a cluster, as a request's ``cluster``; CPUs are the devices where there is no GPU.

    Nodes of different accelerators are node groups.

    Where some nodes have GPUs, those without (a head that only coordinates) are left out. Raises BadInput where nodes
    of one accelerator differ in their number of devices, or the accelerator has no hardware profile.
    """
    equipped = [node for node in nodes if node.get("GPU", 0) >= 1 and not _gpus_are_cores(node)]
    if not equipped:
        cores = Counter(("cpu", int(node["CPU"])) for node in nodes if node.get("CPU", 0) >= 1)
        return _equal_groups(cores)[0]
    groups = _equal_groups(Counter((_profile(node), int(node["GPU"])) for node in equipped))
    return groups if len(groups) > 1 else groups[0]


def _equal_groups(counts: Counter[tuple[str, int]]) -> tuple[ClusterSpec, ...]:
    """A group of each accelerator, from how many nodes have so many of it; raises BadInput where they differ."""
    kinds = sorted(counts)
    if kinds and len({profile for profile, _ in kinds}) == len(kinds):
        return tuple(ClusterSpec(gpu=gpu, nodes=counts[gpu, each], gpus_per_node=each) for gpu, each in kinds)
    seen = ", ".join(f"{nodes} × {each} {profile}" for (profile, each), nodes in sorted(counts.items()))
    allowed = "nodes of each accelerator that have equally many"
    if counts:
        (profile, each), nodes = max(counts.items(), key=lambda item: item[1] * item[0][1])
        allowed += f"; name those to plan for, as {{gpu: {profile}, nodes: {nodes}, gpus_per_node: {each}}}"
    raise BadInput("cluster", f"ray, with nodes of {seen or 'nothing'}", allowed)


def _gpus_are_cores(node: Resources) -> bool:
    """True for logical GPUs: one per core and of no type, as Ray's executor needs them on CPUs (see engine)."""
    return not accelerators(node) and node.get("GPU") == node.get("CPU")


def _profile(node: Resources) -> str:
    kinds = accelerators(node)
    known = [PROFILES[kind] for kind in kinds if kind in PROFILES]
    if len(known) != 1:
        raise BadInput("cluster", f"ray, with accelerators {kinds}", "one of " + ", ".join(PROFILES))
    return known[0]
