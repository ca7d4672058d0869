"""What things of a LayoutRequest are called, in Kubernetes and in the store; the same at every look."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

GROUP, VERSION, KIND, PLURAL = "parlay.dev", "v1alpha1", "LayoutRequest", "layoutrequests"
API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "parlay"  # the field manager of all that the controller applies
FINALIZER = f"{GROUP}/studies"
STUDY, DECISION, DIGEST = f"{GROUP}/study", f"{GROUP}/decision", f"{GROUP}/digest"  # annotations of what is applied
OF = f"{GROUP}/layoutrequest-uid"  # its label
OWNER = "kubernetes/"  # what owners of the controller's orders begin with
_MOST = 40  # letters of a RayService's name: KubeRay appends up to 22, and a label has 63
_MOST_OF_OWNER = 60  # letters of an account in the store


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Where an object is found."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def digest(document: Any) -> str:
    """Sixteen hexadecimal digits that stand for a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def owner_of(key: Key) -> str:
    """Whose its studies are in the queue, and whose quota they spend: every namespace has its own."""
    whole = f"{OWNER}{key.namespace}"
    return whole if len(whole) <= _MOST_OF_OWNER else f"{whole[: _MOST_OF_OWNER - 9]}-{digest(whole)[:8]}"


def studies_of(key: Key, uid: str) -> str:
    """What the names of all its studies begin with; an object that is made anew under the same name has others."""
    return f"{key.namespace[:20].rstrip('-')}.{key.name[:40].rstrip('-.')}.{digest(uid)[:8]}."


def study_of(key: Key, uid: str, asked: Any) -> str:
    """The study of what is asked: the same again where it was asked before, however often anybody looks."""
    return studies_of(key, uid) + digest(asked)[:10]


def cluster_of(name: str, study: str) -> str:
    """The RayCluster that is made for a study of the LayoutRequest of that name: no other study has the same."""
    return f"{label_of(name)[:24].rstrip('-')}-{digest(study)[:10]}"


def label_of(name: str) -> str:
    """A DNS label of at most 40 characters for an object's name; no two names have the same one."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain == name and len(name) <= _MOST and name[:1].isalpha():
        return name
    plain = plain if plain[:1].isalpha() else f"parlay-{plain}".strip("-")
    return f"{plain[: _MOST - 9].rstrip('-')}-{digest(name)[:8]}"
