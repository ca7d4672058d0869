"""The GPUs of a Kubernetes cluster, as its nodes tell of them, for whoever may look at nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.rollout.kuberay.nodes import nodes_seen
from tuner.app.controller.kube import NODE, Kube, KubeError, Object
from tuner.app.controller.retried import Retried
from tuner.retune.seen import NodeSeen

_FORBIDDEN = 403


class KubeNodes:
    """``tolerations`` and ``selector`` are those of the pods that serve. Raises KubeError where the API server
    does not answer."""

    def __init__(
        self,
        kube: Kube,
        tolerations: Sequence[Mapping[str, Any]] = (),
        gpu_resource: str = "nvidia.com/gpu",
        selector: Mapping[str, str] | None = None,
    ) -> None:
        self._kube, self._tolerations, self._gpu_resource = Retried(kube), tolerations, gpu_resource
        self._selector = selector or {}

    def seen(self) -> tuple[NodeSeen, ...] | None:
        """Nodes with GPUs on which pods serve or may; None where nobody may look."""
        found = self._all()
        return None if found is None else self._seen(found)

    def there(self) -> list[Object] | None:
        """The same, as the API server has them."""
        found = self._all()
        if found is None:
            return None
        there = {one.name for one in self._seen(found)}
        return [one for one in found if one["metadata"]["name"] in there]

    def _seen(self, found: list[Object]) -> tuple[NodeSeen, ...]:
        return nodes_seen(found, self._tolerations, self._gpu_resource, self._selector)

    def _all(self) -> list[Object] | None:
        try:
            return self._kube.list(NODE, "")
        except KubeError as error:
            if error.code == _FORBIDDEN:
                return None
            raise
