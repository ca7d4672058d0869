"""The GPUs of a Kubernetes cluster, as its nodes tell of them, for whoever may look at nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.rollout.kuberay.nodes import cordoned, nodes_seen
from tuner.app.controller.kube import NODE, Kube, KubeError, Object
from tuner.app.controller.retried import Retried
from tuner.retune.seen import NodeSeen

_FORBIDDEN = 403


class KubeNodes:
    """``tolerations`` are those of the pods that serve. Raises KubeError where the API server does not answer."""

    def __init__(
        self, kube: Kube, tolerations: Sequence[Mapping[str, Any]] = (), gpu_resource: str = "nvidia.com/gpu"
    ) -> None:
        self._kube, self._tolerations, self._gpu_resource = Retried(kube), tolerations, gpu_resource

    def seen(self) -> tuple[NodeSeen, ...] | None:
        """Nodes with GPUs on which pods serve or may; None where nobody may look."""
        found = self._all()
        return None if found is None else nodes_seen(found, self._tolerations, self._gpu_resource)

    def free(self) -> list[Object] | None:
        """Those where new pods go, as the API server has them; None where nobody may look."""
        found = self._all()
        if found is None:
            return None
        shut, there = cordoned(found), {one.name for one in nodes_seen(found, self._tolerations, self._gpu_resource)}
        return [one for one in found if one["metadata"]["name"] in there - shut]

    def _all(self) -> list[Object] | None:
        try:
            return self._kube.list(NODE, "")
        except KubeError as error:
            if error.code == _FORBIDDEN:
                return None
            raise
