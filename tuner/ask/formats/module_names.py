"""Which modules a checkpoint's lists name: whole names, parts of them, wildcards, and expressions after ``re:``.

Checkpoints list what is not quantised (``ignore``, ``modules_to_not_convert``, ``exclude_modules``) or what is
(``targets``). An entry without a wildcard stands for the modules in whose name it occurs as whole parts: ``lm_head``,
``self_attn``, ``model.layers.0``; so it holds whatever prefix a wrapper puts before the name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.ask.formats.projections import Layer, Projection
from tuner.errors import BadInput

_SPARSE_BLOCKS = ("MixtralForCausalLM", "MiniMaxM2ForCausalLM")  # whose experts sit in a ``block_sparse_moe``
_PREFIXES = ("", "language_model.", "model.language_model.")  # of a text model inside a multimodal one


@dataclass(frozen=True, slots=True)
class Module:
    """One matrix of the checkpoint, under every name that it may have there."""

    layer: Layer
    names: tuple[str, ...]


def in_layer(projection: Projection, index: int, architecture: str, nested: bool) -> Module:
    """A projection of layer ``index`` of a model of that ``architecture``; ``nested`` in a multimodal model. Routed
    experts are spoken for by the first of them."""
    prefixes = ("model.", "language_model.model.", "model.language_model.") if nested else ("model.",)
    places = _places(projection.layer, architecture)
    inner = [f"layers.{index}.{place}.{name}" for place in places for name in projection.names]
    return Module(projection.layer, tuple(f"{prefix}{name}" for prefix in prefixes for name in inner))


def outside(layer: Layer, nested: bool) -> Module:
    """The LM head or the embedding."""
    inner = ("lm_head",) if layer is Layer.HEAD else ("model.embed_tokens",)
    return Module(layer, tuple(f"{prefix}{name}" for prefix in _PREFIXES[: 2 if nested else 1] for name in inner))


def _places(layer: Layer, architecture: str) -> Sequence[str]:
    """Where a kind of layer sits inside its layer."""
    if layer is Layer.ATTENTION:
        return ("self_attn",)
    if layer is Layer.DENSE:
        return ("mlp",)
    if layer is Layer.SHARED:
        return ("mlp.shared_expert",) if architecture == "Qwen2MoeForCausalLM" else ("mlp.shared_experts",)
    block = "block_sparse_moe" if architecture in _SPARSE_BLOCKS else "mlp"
    return (f"{block}.experts.0", f"{block}.experts")


class ModuleList:
    """A compiled list of entries; raises BadInput at ``where`` for one that is no text, or no regular expression."""

    def __init__(self, entries: Iterable[object], where: str) -> None:
        self._plain: set[str] = set()
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
                self._plain.add(entry)
        if globs:
            self._expressions.append(re.compile("|".join(globs)))

    def has(self, module: Module) -> bool:
        """True where an entry stands for the module."""
        return any(self._names(name) for name in module.names)

    def _names(self, name: str) -> bool:
        if self._plain:
            parts = name.split(".")
            runs = (".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))
            if any(run in self._plain for run in runs):
                return True
        return any(one.match(name) for one in self._expressions)


def expression(text: str, where: str) -> re.Pattern[str]:
    """A regular expression of a checkpoint; raises BadInput at ``where`` for what is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise BadInput(where, text, f"a regular expression ({error})") from None
