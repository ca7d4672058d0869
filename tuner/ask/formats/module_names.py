"""Which modules a checkpoint's lists name: whole names, parts of them, wildcards, and expressions after ``re:``.

Checkpoints list what is not quantised (``ignore``, ``modules_to_not_convert``, ``exclude_modules``) or what is
(``targets``). An entry without a wildcard stands for the modules in whose name it occurs as whole parts: ``lm_head``,
``self_attn``, ``model.layers.0``; so it holds whatever prefix a wrapper puts before the name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tuner.ask.models.matrices import Layer, Matrix
from tuner.errors import BadInput


@dataclass(frozen=True, slots=True)
class Module:
    """One matrix of the checkpoint, under every name that it may have there."""

    layer: Layer
    names: tuple[str, ...]


def in_layer(matrix: Matrix, prefix: str, index: int, nested: bool) -> Module:
    """A matrix of layer ``index`` of the list of layers ``prefix``; ``nested`` in a multimodal model."""
    inner = tuple(f"{prefix}.{index}.{name}" for name in matrix.names)
    return Module(matrix.layer, _wrapped(inner) if nested else inner)


def outside(layer: Layer, names: tuple[str, ...], nested: bool) -> Module:
    """The LM head or the embedding, which checkpoints call one of ``names``."""
    return Module(layer, _wrapped(names) if nested else names)


def of_tower(names: tuple[str, ...]) -> Module:
    """A matrix of a vision or audio encoder: as the engine names it, and inside ``model.`` as newer checkpoints do."""
    plain = tuple(name.removeprefix("model.") for name in names)
    return Module(Layer.TOWER, (*plain, *(f"model.{name}" for name in plain)))


def _wrapped(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a text model, by themselves and inside a multimodal one."""
    inside = tuple(name.replace("model.", "model.language_model.", 1) for name in names if name.startswith("model."))
    return (*names, *(f"language_model.{name}" for name in names), *inside)


class ModuleList:
    """A compiled list of entries; raises BadInput at ``where`` for one that is no text, or no regular expression."""

    def __init__(self, entries: Iterable[object], where: str) -> None:
        self._plain: dict[str, set[str]] = {}  # by their first part
        globs: list[str] = []
        self._expressions: list[re.Pattern[str]] = []
        for entry in entries:
            if not isinstance(entry, str) or not entry:
                raise BadInput(where, entry, "names of modules")
            if entry.startswith("re:"):
                self._expressions.append(expression(entry.removeprefix("re:"), where))
            elif any(sign in entry for sign in "*?["):
                globs.append(fnmatch.translate(entry))
            else:
                self._plain.setdefault(entry.partition(".")[0], set()).add(entry)
        if globs:
            self._expressions.append(re.compile("|".join(globs)))

    def has(self, module: Module) -> bool:
        """True where an entry stands for the module."""
        return any(self._names(name) for name in module.names)

    def _names(self, name: str) -> bool:
        parts = name.split(".") if self._plain else []
        for i, part in enumerate(parts):
            if entries := self._plain.get(part):
                runs = (".".join(parts[i:j]) for j in range(i + 1, len(parts) + 1))
                if not entries.isdisjoint(runs):
                    return True
        return any(one.match(name) for one in self._expressions)


def expression(text: str, where: str) -> re.Pattern[str]:
    """A regular expression of a checkpoint; raises BadInput at ``where`` for what is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise BadInput(where, text, f"a regular expression ({error})") from None
