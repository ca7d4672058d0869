"""The objects of one watched study on a Kubernetes cluster: read, applied with what was kept, never taken by force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.rollout.kuberay.kept import config_map, documents_of, name_of, with_another
from deploy.rollout.kuberay.placed import Placed
from deploy.rollout.kuberay.words import belongs
from tuner.app.controller.kube import CONFIG_MAP, RAY_SERVICE, Kind, KubeError, Object
from tuner.app.controller.retried import Retried
from tuner.errors import ParlayError

Services = Callable[[], list[Object]]
_CONFLICT, _FORBIDDEN, _NOT_FOUND = 409, 403, 404


class KubeObjects:
    """``services`` are the RayServices of the namespace, where somebody mirrors them; else they are listed."""

    def __init__(self, kube: Retried, placed: Placed, services: Services | None = None) -> None:
        self._kube, self._placed, self._services = kube, placed, services

    def services(self) -> dict[str, Object]:
        """RayServices of the watched study, by their names."""
        return {name: one for name, one in self.all_services().items() if belongs(one, self._placed.watched)}

    def all_services(self) -> dict[str, Object]:
        """RayServices of the namespace, whoever made them: listed, since a controller needs no right to get them."""
        listed = self._services() if self._services is not None else self._kube.list(RAY_SERVICE, self._namespace)
        return {one["metadata"]["name"]: one for one in listed}

    def get(self, kind: Kind, name: str) -> Object | None:
        """One of another kind, whoever made it."""
        return self._kube.get(kind, self._namespace, name)

    def kept(self) -> dict[str, dict[str, Any]]:
        """Documents of deployments as they were applied first."""
        found = self._kube.get(CONFIG_MAP, self._namespace, name_of(self._placed))
        return documents_of(found if found is not None and belongs(found, self._placed.watched) else None)

    def keep(self, name: str, document: Object, needed: frozenset[str]) -> None:
        """Keep another. Raises ParlayError where somebody else has a ConfigMap of that name."""
        self.require_ours(CONFIG_MAP, name_of(self._placed))
        self.apply(CONFIG_MAP, config_map(self._placed, with_another(self.kept(), name, document, needed)))

    def apply(self, kind: Kind, document: Object) -> Object:
        """Apply it. Raises ParlayError where it is somebody else's, or a field of it is."""
        what = f"{document['kind']} {document['metadata']['name']}"
        try:
            return self._kube.apply(kind, document)
        except KubeError as error:
            if error.code == _CONFLICT:
                fields = "; ".join(error.causes) or str(error)
                raise ParlayError(f"{what}: another manager has fields of it, and keeps them: {fields}") from None
            if error.code in (_FORBIDDEN, _NOT_FOUND):
                raise ParlayError(f"{what} cannot be applied: {error}") from None
            raise

    def require_ours(self, kind: Kind, name: str) -> None:
        """Raise ParlayError where there is one of that name that was not made for this watched study."""
        found = self.all_services().get(name) if kind is RAY_SERVICE else self.get(kind, name)
        if found is not None and not belongs(found, self._placed.watched):
            raise ParlayError(not_ours(name, self._placed))

    def remove(self, kind: Kind, found: Object) -> None:
        """Have it go, and all that it owns."""
        self._kube.remove(kind, found)

    @property
    def _namespace(self) -> str:
        return self._placed.namespace


def not_ours(name: str, placed: Placed) -> str:
    """Of an object that somebody else made, in words."""
    return f"{name} in {placed.namespace} was not made for the watched study {placed.watched}, and stays as it is"
