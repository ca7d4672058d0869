"""What the objects of a watched study carry, so that whoever looks at them knows what was ordered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.controller.names import GROUP, digest

Document = Mapping[str, Any]

WATCHED = f"{GROUP}/watched"  # annotation: the study, by whose name all of it is known; as a label, what stands for it
DEPLOYMENT = f"{GROUP}/deployment"  # annotation: whose document was applied last
BEFORE = f"{GROUP}/before"  # annotation: whose it was before that; what a rollback goes to
SHARE = f"{GROUP}/share-percent"  # annotation: of the traffic, that the new one was ordered to have
RETURNING = f"{GROUP}/returning"  # annotation: "true" where DEPLOYMENT served before, and comes back
CLOSED = f"{GROUP}/closed"  # annotation: "true" where no new requests are to come, before it ends
SHARES = f"{GROUP}/shares"  # annotation of what deals the traffic: which shares were ordered, as JSON


def noted(document: Document, annotation: str) -> str | None:
    """The value of an annotation; None where it has none."""
    found: str | None = (document["metadata"].get("annotations") or {}).get(annotation)
    return found


def belongs(document: Document, watched: str) -> bool:
    """Whether an object was made for that watched study."""
    return noted(document, WATCHED) == watched


def label_for(watched: str) -> str:
    """The value of the label by which all objects of a watched study are listed: its name may be no label."""
    return digest(watched)


def serve_service(name: str) -> str:
    """What KubeRay calls the Service of a RayService's or a RayCluster's proxies: at most 50 letters, of which the
    first go, and a letter at the front (``CheckName`` of its ``controllers/ray/utils``)."""
    whole = f"{name}-serve-svc"[-50:]
    return whole if whole[0].isalpha() else f"r{whole[1:]}"


def address(name: str, namespace: str) -> str:
    """Where these proxies are asked within the cluster."""
    return f"http://{serve_service(name)}.{namespace}.svc:8000"
