"""The chart as tests read it: rendered by a real Helm, as documents, and what differs between two renderings."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests import tools

CHART = Path(__file__).parents[1] / "helm" / "parlay"
KUBERNETES = ("1.25", "1.29", "1.33", "1.37")
Document = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(*words: str, binary: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One call of Helm 3, or of another one."""
    return subprocess.run([str(binary or tools.helm()), *words], capture_output=True, text=True, timeout=60)


def render(
    values: Mapping[str, Any], folder: Path, *words: str, release: str = "parlay", binary: Path | None = None
) -> str:
    """What ``helm template`` prints for values; ``folder`` is for a file of them. Raises AssertionError if refused."""
    done = template(values, folder, *words, release=release, binary=binary)
    assert done.returncode == 0, done.stderr
    return done.stdout


def template(
    values: Mapping[str, Any], folder: Path, *words: str, release: str = "parlay", binary: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """As ``render``, whether Helm refuses or not."""
    path = folder / f"values-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    words = ("--namespace", "models", "--values", str(path), *words)
    return helm("template", release, str(CHART), *words, binary=binary)


def documents(text: str) -> list[Document]:
    """All documents of a rendering, ordered by kind and name."""
    found = [document for document in yaml.load_all(text, Loader=_LOADER) if document]
    return sorted(found, key=lambda document: (document["kind"], document["metadata"]["name"]))


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in a document that holds nothing else."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(document, list) and document:
        for place, value in enumerate(document):
            yield from leaves(value, f"{path}/{place}")
    else:
        yield path, document


def flat(text: str) -> dict[str, Any]:
    """A rendering as one mapping: ``Kind/name/path/to/leaf`` → value."""
    return {
        path: value
        for document in documents(text)
        for path, value in leaves(document, f"{document['kind']}/{document['metadata']['name']}")
    }


def changed(before: str, after: str) -> set[str]:
    """The paths at which two renderings differ."""
    old, new = flat(before), flat(after)
    absent = object()
    return {path for path in old.keys() | new.keys() if old.get(path, absent) != new.get(path, absent)}


def templates(document: Document) -> Iterator[Document]:
    """The pods of a document, with their metadata."""
    if document["kind"] in ("Deployment", "Job"):
        yield document["spec"]["template"]
    elif document["kind"] == "RayService":
        cluster = document["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            yield group["template"]


def pods(document: Document) -> Iterator[Document]:
    """The pod specifications of a document."""
    for template in templates(document):
        yield template["spec"]
