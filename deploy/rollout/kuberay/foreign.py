"""What somebody else changed of a RayService by hand: reported, and never fought over.

Two marks of it: a field of ours that another manager has taken or shares (``metadata.managedFields``, as the API server
keeps them: https://kubernetes.io/docs/reference/using-api/server-side-apply/), and a value that is not what was
applied. KubeRay itself writes the status alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.controller.manifests import holds
from deploy.controller.names import MANAGER
from deploy.rollout.kuberay.words import Document

_MOST = 4
_PLACE = ("apiVersion", "kind")
Path = tuple[str, ...]


def foreign(found: Document, applied: Document) -> str | None:
    """What is not ours any more, in words; None where all of it is as it was applied."""
    taken = _taken(found, applied)
    changed = [_shown(path) for path in _differing(found, applied) if not any(path[: len(p)] == p for p in taken)]
    words = [f"{_shown(path)} is {who}'s too" for path, who in taken.items()]
    words += [f"{path} is not what was applied" for path in changed]
    if not words:
        return None
    more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
    return f"RayService {found['metadata']['name']} was changed by hand: {'; '.join(words[:_MOST])}{more}"


def _taken(found: Document, applied: Document) -> dict[Path, str]:
    """Fields of the applied document that another manager has, or has too, and whose they are."""
    others: dict[Path, str] = {}
    for entry in found["metadata"].get("managedFields") or ():
        ours = entry.get("manager") == MANAGER and entry.get("operation") == "Apply"
        if ours or entry.get("subresource") == "status":
            continue
        for path in _owned(entry.get("fieldsV1") or {}):
            if path[:1] != ("status",) and _has(applied, path):
                others.setdefault(path, entry["manager"])
    return others


def _owned(fields: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    """Paths of the leaves of a field set; one inside a list ends at the list."""
    named = {key[2:]: inner for key, inner in fields.items() if key.startswith("f:")}
    if not named:
        if at:
            yield at
        return
    for name, inner in named.items():
        yield from _owned(inner, (*at, name))


def _has(document: Any, path: Path) -> bool:
    for name in path:
        if not isinstance(document, Mapping) or name not in document:
            return False
        document = document[name]
    return True


def _differing(found: Any, applied: Any, at: Path = ()) -> Iterator[Path]:
    """Paths of what does not hold the values that were applied."""
    if isinstance(applied, Mapping) and isinstance(found, Mapping):
        for name, value in applied.items():
            if not at and name in _PLACE:
                continue
            yield from _differing(found.get(name), value, (*at, name))
    elif not holds(found, applied):
        yield at


def _shown(path: Path) -> str:
    return "." + ".".join(path)
