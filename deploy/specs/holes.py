"""Documents with holes, written once and filled twice: here from values, and in a Helm template by Helm.

A hole is named by the way to its value: ``serving.head.cpu``. Values are what Helm knows, with its notion of what is
empty: ``""``, ``0``, ``{}``, ``[]``, false and null.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Hole:
    """A value as it is; with ``text``, a number as a string. May be the key of a mapping."""

    path: str
    text: bool = False


@dataclass(frozen=True, slots=True)
class When:
    """``then`` where the value at ``path`` is not empty; else ``otherwise``, by default nothing: no key, no item.

    Of several paths, one that is not empty is enough. With a ``word`` it has to be the value of one.
    """

    path: str | tuple[str, ...]
    then: Any
    otherwise: Any = None
    word: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """One or several."""
        return (self.path,) if isinstance(self.path, str) else self.path


@dataclass(frozen=True, slots=True)
class Kind:
    """What the table at one path has under the value at another, called ``name``; ``optional`` keys may be missing."""

    name: str
    table: str
    key: str
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Each:
    """In a list, ``item`` for each element of the list at ``path``; in it, ``name`` is where the element is found.

    What is ``optional`` in an element may be missing, and is empty then. Each element may be of a ``kind``.
    """

    path: str
    name: str
    item: Any
    optional: tuple[str, ...] = ()
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """One mapping made of several, each a path or a mapping of strings and holes: where two say a key, the first."""

    parts: tuple[str | Mapping[str, str | Hole], ...]


def filled(document: Any, values: Mapping[str, Any]) -> Any:
    """The document with its holes filled; raises KeyError for a value that is missing."""
    if isinstance(document, Hole):
        value = _at(document.path, values)
        return str(value) if document.text else copy.deepcopy(value)
    if isinstance(document, When):
        return filled(document.then if _holds(document, values) else document.otherwise, values)
    if isinstance(document, Merged):
        found = [_at(part, values) or {} if isinstance(part, str) else filled(part, values) for part in document.parts]
        merged = {key: value for part in reversed(found) for key, value in part.items()}
        return dict(sorted(merged.items()))
    if isinstance(document, Mapping):
        pairs = ((filled(key, values), filled(value, values)) for key, value in document.items())
        return {key: value for key, value in pairs if value is not None}
    if isinstance(document, list):
        items = [item for entry in document for item in _items(entry, values)]
        return [item for item in items if item is not None]
    return document


def _items(entry: Any, values: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(entry, Each):
        for element in _at(entry.path, values):
            inner = {**values, entry.name: _with(entry.optional, element)}
            if (kind := entry.kind) is not None:
                found = _at(kind.table, inner).get(_at(kind.key, inner), {})
                inner[kind.name] = _with(kind.optional, found)
            yield filled(entry.item, inner)
    else:
        yield filled(entry, values)


def _with(optional: tuple[str, ...], value: Any) -> Any:
    return {**dict.fromkeys(optional, ""), **value} if optional else value


def _at(path: str, values: Mapping[str, Any]) -> Any:
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found


def _holds(choice: When, values: Mapping[str, Any]) -> bool:
    found = [_at(path, values) for path in choice.paths]  # all of them: one that is missing is an error
    return choice.word in found if choice.word else any(found)


def paths(document: Any) -> set[str]:
    """All that a document asks for."""
    if isinstance(document, Hole):
        return {document.path}
    if isinstance(document, When):
        return {*document.paths} | paths(document.then) | paths(document.otherwise)
    if isinstance(document, Each):
        kind = {document.kind.table, document.kind.key} if document.kind else set()
        return {document.path} | kind | paths(document.item)
    if isinstance(document, Merged):
        return {path for part in document.parts for path in ({part} if isinstance(part, str) else paths(part))}
    if isinstance(document, Mapping):
        return {path for pair in document.items() for part in pair for path in paths(part)}
    return {path for entry in document for path in paths(entry)} if isinstance(document, list) else set()


def helm_template(document: Mapping[Any, Any]) -> str:
    """The document as the text of a Helm template, in which each path begins with a variable (``$serving``)."""
    return "".join(f"{line}\n" for line in _mapping(document, 0))


def _mapping(document: Mapping[Any, Any], depth: int) -> Iterator[str]:
    for key, value in document.items():
        yield from _entry(f"{_indent(depth)}{_key(key)}:", value, depth)


def _entry(start: str, value: Any, depth: int) -> Iterator[str]:
    """A key with its value; ``depth`` is the key's."""
    if isinstance(value, When):
        yield from _choice(value, depth, lambda branch: _entry(start, branch, depth))
    elif isinstance(value, Mapping) and value:
        yield start
        yield from _mapping(value, depth + 1)
    elif isinstance(value, list) and value:
        yield start
        for entry in value:
            yield from _item(entry, depth + 1)
    else:
        yield f"{start} {_scalar(value)}"


def _item(entry: Any, depth: int) -> Iterator[str]:
    if isinstance(entry, When):
        yield from _choice(entry, depth, lambda branch: _item(branch, depth))
    elif isinstance(entry, Each):
        yield f"{_indent(depth)}{{{{- range ${entry.name} := ${entry.path} }}}}"
        if (kind := entry.kind) is not None:
            found = f'get (${kind.table} | default dict) (${kind.key} | default "") | default dict'
            yield f"{_indent(depth)}{{{{- ${kind.name} := {found} }}}}"
        yield from _item(entry.item, depth)
        yield f"{_indent(depth)}{{{{- end }}}}"
    elif isinstance(entry, Mapping):
        first, *rest = _mapping(entry, depth + 1)
        yield f"{_indent(depth)}- {first.lstrip()}"
        yield from rest
    else:
        yield f"{_indent(depth)}- {_scalar(entry)}"


def _choice(choice: When, depth: int, write: Callable[[Any], Iterator[str]]) -> Iterator[str]:
    said = [f"(eq ${path} {json.dumps(choice.word)})" if choice.word else f"${path}" for path in choice.paths]
    condition = f"or {' '.join(said)}" if len(said) > 1 else said[0]
    yield f"{_indent(depth)}{{{{- if {condition} }}}}"
    yield from write(choice.then)
    if choice.otherwise is not None:
        yield f"{_indent(depth)}{{{{- else }}}}"
        yield from write(choice.otherwise)
    yield f"{_indent(depth)}{{{{- end }}}}"


def _scalar(value: Any) -> str:
    if isinstance(value, Hole):
        return f"{{{{ ${value.path} | {'toString | quote' if value.text else 'toJson'} }}}}"
    if isinstance(value, Merged):
        return f"{{{{ merge (dict) {' '.join(_part(part) for part in value.parts)} | toJson }}}}"
    return json.dumps(value, ensure_ascii=False)  # JSON is YAML


def _part(part: str | Mapping[str, str | Hole]) -> str:
    if isinstance(part, str):
        return f"(${part} | default dict)"
    words = [word for key, value in part.items() for word in (json.dumps(key), _word(value))]
    return f"(dict {' '.join(words)})"


def _word(value: str | Hole) -> str:
    return f"${value.path}" if isinstance(value, Hole) else json.dumps(value)


def _key(key: str | Hole) -> str:
    return _scalar(key) if isinstance(key, Hole) else key


def _indent(depth: int) -> str:
    return "  " * depth
