"""How KubeRay here replaces the Ray cluster of a RayService, as far as its operator was told and its release can.

``NewCluster``: a second cluster comes up beside the first and gets all traffic once it is ready; nothing can be tried
on a part of the traffic. ``NewClusterWithIncrementalUpgrade`` (KubeRay from 1.5, behind the gate
``RayServiceIncrementalUpgrade``): a Gateway sends a growing share to the second one, and devices move over in steps.
Neither can be asked of the API: whoever runs Parlay says what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deploy.rollout.kuberay.words import Document
from tuner.errors import BadInput


class Strategy(StrEnum):
    """What KubeRay does with another document."""

    FIRST = "first"  # nothing serves yet: a cluster is made
    SERVE_CONFIG = "serve_config"  # the same cluster: Ray Serve changes it in place
    NEW_CLUSTER = "NewCluster"
    INCREMENTAL = "NewClusterWithIncrementalUpgrade"


@dataclass(frozen=True, slots=True)
class Upgrades:
    """``gateway_class`` names the GatewayClass for incremental upgrades; None: there are none. ``gateway_url`` is where
    that Gateway is asked. Capacity moves by ``surge_percent`` at a time (100: both clusters whole, so that nothing of
    the old one ends before the new one has all traffic), traffic by as much every ``interval_s``. Raises BadInput."""

    gateway_class: str | None = None
    gateway_url: str | None = None
    surge_percent: int = 100
    interval_s: int = 10

    def __post_init__(self) -> None:
        if self.gateway_class is not None and not self.gateway_url:
            raise BadInput("--gateway-url", self.gateway_url, "where the Gateway of an incremental upgrade is asked")
        if not 1 <= self.surge_percent <= 100:
            raise BadInput("--surge-percent", self.surge_percent, "from 1 to 100")
        if self.interval_s < 1:
            raise BadInput("--upgrade-interval", self.interval_s, "seconds, 1 at least")

    def no_canary(self) -> str | None:
        """Why nothing can be tried on a part of the traffic; None where it can."""
        if self.gateway_class is not None:
            return None
        return (
            "KubeRay gives a new Ray cluster all traffic as soon as it is ready: without incremental upgrades "
            "(a GatewayClass, and the operator's gate RayServiceIncrementalUpgrade) there is no canary"
        )


def strategy(old: Document | None, new: Document, upgrades: Upgrades) -> Strategy:
    """What follows where ``new`` is applied behind ``old`` (None: there is nothing)."""
    if old is None:
        return Strategy.FIRST
    if same_cluster(old, new):
        return Strategy.SERVE_CONFIG
    return Strategy.INCREMENTAL if upgrades.gateway_class is not None else Strategy.NEW_CLUSTER


def same_cluster(old: Document, new: Document) -> bool:
    """Whether KubeRay keeps the Ray cluster: it compares ``rayClusterConfig`` without how many pods a group has, and
    lets groups be added at the end (``shouldPrepareNewCluster`` of its ``rayservice_controller``)."""
    one, other = _compared(old["spec"]["rayClusterConfig"]), _compared(new["spec"]["rayClusterConfig"])
    groups = one.pop("workerGroupSpecs"), other.pop("workerGroupSpecs")
    return one == other and groups[0] == groups[1][: len(groups[0])]


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    ignored = ("replicas", "minReplicas", "maxReplicas")
    groups = [
        {key: value for key, value in group.items() if key not in ignored}
        for group in config.get("workerGroupSpecs") or ()
    ]
    return {key: value for key, value in config.items() if key != "upgradeStrategy"} | {"workerGroupSpecs": groups}
