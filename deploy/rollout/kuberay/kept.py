"""The documents of deployments as they were applied, kept beside them: another release of Parlay may write the same
layout otherwise, and the last good one is never written anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deploy.controller.names import digest
from deploy.rollout.kuberay.placed import Placed
from deploy.rollout.kuberay.words import Document

MOST = 8  # of some 10 kB each, in an object of at most 1 MiB
_NAMES = "deployments.json"


def name_of(placed: Placed) -> str:
    """The name of the ConfigMap."""
    return f"{placed.service}-deployments"


def config_map(placed: Placed, documents: Mapping[str, Document]) -> dict[str, Any]:
    """It, with documents by the names of their deployments, the oldest first."""
    files = {_file(name): _dumped(one) for name, one in documents.items()}
    names = _dumped({_file(name): name for name in documents})
    meta = placed.meta(name_of(placed), {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {_NAMES: names} | files}


def documents_of(found: Document | None) -> dict[str, dict[str, Any]]:
    """What it keeps; nothing where there is none."""
    data = (found or {}).get("data") or {}
    names = json.loads(data.get(_NAMES, "{}"))
    return {name: json.loads(data[file]) for file, name in names.items() if file in data}


def with_another(
    kept: Mapping[str, Document], name: str, document: Document, needed: frozenset[str]
) -> dict[str, Document]:
    """What is kept once another is there: those that are ``needed``, and of the others the latest."""
    all_of_them = {known: one for known, one in kept.items() if known != name} | {name: document}
    spare = [known for known in all_of_them if known not in needed and known != name]
    gone = set(spare[: max(0, len(all_of_them) - MOST)])
    return {known: one for known, one in all_of_them.items() if known not in gone}


def _file(name: str) -> str:
    """A key of a ConfigMap has letters, digits, dashes and dots; deployments may be called anything."""
    return f"{digest(name)}.json"


def _dumped(value: Document) -> str:
    return json.dumps(dict(value), ensure_ascii=False, indent=1)
