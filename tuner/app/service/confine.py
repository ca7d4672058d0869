"""Which files a request may name: none, but those beneath the folders that the operator of the service has opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tuner.ask.profile import canonical_gpu, gpu_choices, known_profiles
from tuner.ask.registry import known_models, model_choices
from tuner.errors import BadInput


def confine(document: Mapping[str, Any], roots: Iterable[Path]) -> None:
    """Raise BadInput where a document names a file that does not lie beneath one of ``roots``, links followed.

    It is looked at before it is read as a request, since reading it opens its files; and once more by the worker, whose
    folder may be another, and which comes later. A known model's name that no file here has, profiles by name and
    lengths in the document itself need none. Any other model is a path, whether it exists here or not. What is no text
    where a file would be named is left to the checks of the request.
    """
    opened = tuple(root.resolve() for root in roots)
    cluster = document.get("cluster")
    model = document.get("model")
    if isinstance(model, str) and (model not in known_models() or _exists(model)):
        _require(model, "request: model", opened, model_choices(model))
    for group in cluster if isinstance(cluster, list | tuple) else [cluster]:
        gpu = group.get("gpu") if isinstance(group, Mapping) else None
        if isinstance(gpu, str) and canonical_gpu(gpu) not in known_profiles():
            _require(gpu, "request: cluster.gpu", opened, gpu_choices(gpu))
    trace = _within(_within(document, "workload"), "arrival").get("trace")
    if isinstance(trace, str):
        _require(trace, "request: workload.arrival.trace", opened, "another process")


def _within(part: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = part.get(key)
    return found if isinstance(found, Mapping) else {}


def _exists(model: str) -> bool:
    try:
        return Path(model).exists()
    except (OSError, ValueError):
        return True


def _require(name: str, where: str, roots: tuple[Path, ...], instead: str) -> None:
    try:
        path = Path(name).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        raise BadInput(where, name, instead) from None
    if not any(path == root or root in path.parents for root in roots):
        opened = ", ".join(map(str, roots))
        files = f"a path beneath {opened}" if opened else "no path, as no folder was opened (--root)"
        raise BadInput(where, name, f"{instead}; {files}")
