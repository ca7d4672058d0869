"""What the controller asks of a Kubernetes API server: the seam, with a real client behind it or a test's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deploy.controller.names import GROUP, PLURAL, VERSION
from tuner.errors import ServiceError

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, by where it is found."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, name: str = "", part: str = "") -> str:
        """Of all in a namespace (without one: in all of them), or of one, or of a part of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"namespaces/{namespace}" if namespace else ""
        return "/".join(word for word in (root, place, self.plural, name, part) if word)


LAYOUT_REQUEST = Kind(GROUP, VERSION, PLURAL)
RAY_SERVICE = Kind("ray.io", "v1", "rayservices")
RAY_CLUSTER = Kind("ray.io", "v1", "rayclusters")
CONFIG_MAP = Kind("", "v1", "configmaps")
EVENT = Kind("", "v1", "events")
LEASE = Kind("coordination.k8s.io", "v1", "leases")
SERVICE = Kind("", "v1", "services")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes")
POD = Kind("", "v1", "pods")
NODE = Kind("", "v1", "nodes")  # in no namespace


class KubeError(ServiceError):
    """The API server refused, or did not answer (``code`` 0); ``causes`` has its details, in words."""

    def __init__(self, code: int, reason: str, message: str, causes: Sequence[str] = ()) -> None:
        self.code, self.reason, self.causes = code, reason, tuple(causes)
        super().__init__(f"Kubernetes: {message or reason or code}")


@dataclass(frozen=True, slots=True)
class Change:
    """A line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the object (of a bookmark its version alone)."""

    kind: str
    object: Object


class Kube(Protocol):
    """The API server; every method raises KubeError where it refuses or does not answer. Any thread may ask."""

    def list(self, kind: Kind, namespace: str) -> tuple[list[Object], str]:
        """All of a kind (of all namespaces where none is named), and the version from which a watch goes on."""

    def watch(self, kind: Kind, namespace: str, version: str, seconds: float) -> Iterator[Change]:
        """What happens to them from that version on, for so long; code 410 where the version is too old."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One, or None."""

    def create(self, kind: Kind, namespace: str, document: Object) -> Object:
        """Make one; code 409 where there is one of that name."""

    def replace(self, kind: Kind, namespace: str, name: str, document: Object, part: str = "") -> Object:
        """Put the document, or its status, in its place; code 409 unless it is of the version that is there."""

    def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """Change some of it (JSON merge patch); code 409 where ``metadata.resourceVersion`` is not the one there."""

    def apply(self, kind: Kind, namespace: str, name: str, document: Object) -> Object:
        """Server-side apply, never by force: code 409 where another manager has a field with another value."""

    def remove(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete that one, and have what it owns follow; code 404 where it is gone, 409 where another has its name."""
