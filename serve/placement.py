"""Whether a cluster can hold a Serve application at all, so that the impossible fails at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

Resources = dict[str, float]


def demand(app: dict[str, Any], replicas: int) -> tuple[list[Resources], bool]:
    """Bundles of all ``replicas`` of the application's engine, and whether each replica's must share one node.

    Where they must, a replica's bundles are summed to one. Serve adds the replica's own resources to its first bundle.
    """
    arguments = app["args"]
    config = arguments["llm_config"] if "llm_config" in arguments else arguments["llm_configs"][0]
    placement = config["placement_group_config"]
    actor = config["deployment_config"]["ray_actor_options"]
    own = Counter({"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0)})
    bundles = [Counter(bundle) for bundle in placement["bundles"]]
    bundles[0] = bundles[0] + own
    together = placement["strategy"] == "STRICT_PACK"
    if together:
        bundles = [sum(bundles, Counter())]
    return [dict(bundle) for bundle in bundles * replicas], together


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


def _holds(node: Resources, bundle: Resources) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in bundle.items() if amount > 0)
