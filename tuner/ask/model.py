"""A model's shape, read from a Hugging Face ``config.json`` or from the registry of known models.

Only what costs bytes or time is kept: blocks of a few kinds (``tuner.ask.models``), in what they are stored, and what
lies around them. An architecture without a reader is refused by name, as is what a reader does not understand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.ask.checkpoint_head import with_own_head
from tuner.ask.dtype import PRECISIONS, engine_dtype, require_runs
from tuner.ask.formats.document import QuantizationDocument, find_document
from tuner.ask.formats.reading import read_quantization, stored_weights
from tuner.ask.formats.weights import ALL_BF16, USUAL, Storage, Weights
from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Experts, Mixer
from tuner.ask.models.compressed import CompressedAttention
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.factorized import FactorizedAttention
from tuner.ask.models.families.index import ARCHITECTURES, readable, reader_of
from tuner.ask.models.latent import LatentAttention
from tuner.ask.models.matrices import NO_VECTORS, Matrix, Vectors, stored_elements
from tuner.ask.models.vocabulary import padded
from tuner.ask.registry import known_config, unknown_model
from tuner.ask.registry import known_models as known_models
from tuner.errors import BadInput

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_THINKER = "thinker_config"  # where Qwen's Omni models have all but what speaks
_TEXT_PARTS = ("text_config", "language_config", "llm_config")  # where files of multimodal models have the decoder


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder as it is served; counts are elements, heads or layers of the whole, unsharded model.

    ``kinds`` are its different blocks, ``order`` which of them each layer is. ``weights`` says how each kind of matrix
    is stored; ``precision`` is what is computed in where no weights are quantised, ``bf16`` (or float16, which costs
    the same) or ``fp32``. ``kv_cache`` is what keys and values are stored in where nobody asks for more: ``fp8`` where
    the checkpoint says so or the engine has no other, else ``auto``, that precision. The rest is as in ``Described``.
    """

    name: str
    architecture: str
    hidden: int
    vocab: int
    kinds: tuple[Block, ...]
    order: tuple[int, ...]
    max_position: int
    tied_embeddings: bool
    pipeline_tensors: int = 2
    weights: Weights = ALL_BF16
    precision: str = "bf16"
    kv_cache: str = "auto"
    vectors: Vectors = NO_VECTORS
    outside: tuple[Matrix, ...] = ()
    towers: tuple[Tower, ...] = ()
    head_bias: bool = False
    embedding_width: int | None = None
    nested: bool = False
    head_names: tuple[str, ...] = ("lm_head",)
    embedding_names: tuple[str, ...] = ("model.embed_tokens",)
    not_priced: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, architecture: str, found: Described, nested: bool = False) -> ModelShape:
        """What a reader described, under a name."""
        kinds = tuple(dict.fromkeys(found.layers))
        place = {block: index for index, block in enumerate(kinds)}
        return cls(
            name=name,
            architecture=architecture,
            hidden=found.hidden,
            vocab=found.vocab,
            kinds=kinds,
            order=tuple(place[block] for block in found.layers),
            max_position=found.max_position,
            tied_embeddings=found.tied,
            pipeline_tensors=found.pipeline_tensors,
            vectors=found.vectors,
            outside=found.outside,
            towers=found.towers,
            head_bias=found.head_bias,
            embedding_width=found.embedding_width,
            nested=nested,
            head_names=found.head_names,
            embedding_names=found.embedding_names,
            not_priced=found.not_priced,
        )

    def with_layers(self, layers: Mapping[Block, int]) -> ModelShape:
        """The same with other layers: so many of each block, one sort after the other."""
        counts = enumerate(layers.values())
        return replace(self, kinds=tuple(layers), order=tuple(i for i, count in counts for _ in range(count)))

    @property
    def layers(self) -> int:
        """Layers, as pipeline parallelism splits them."""
        return len(self.order)

    @property
    def counted(self) -> tuple[tuple[Block, int], ...]:
        """Each kind of block with its number of layers."""
        return tuple((block, self.order.count(index)) for index, block in enumerate(self.kinds))

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """One of each kind of mixer."""
        return tuple(dict.fromkeys(block.mixer for block in self.kinds if block.mixer is not None))

    @property
    def padded_vocab(self) -> int:
        """Vocabulary rows as vLLM stores them."""
        return padded(self.vocab)

    @property
    def table_width(self) -> int:
        """Width of embedding and LM head."""
        return self.hidden if self.embedding_width is None else self.embedding_width

    @property
    def element_bytes(self) -> int:
        """Bytes of an activation."""
        return self.weights.plain.bits // 8

    @property
    def attention_dtype(self) -> str:
        """The precision by which attention's projections are priced: that of most of their weights."""
        return self.weights.attention.main.kind

    @property
    def linear_dtype(self) -> str:
        """The precision of dense MLPs."""
        return self.weights.dense.main.kind

    @property
    def expert_dtype(self) -> str:
        """The precision of routed experts."""
        return self.weights.experts.main.kind

    @property
    def cached_dtype(self) -> str:
        """The precision of the KV cache where the layout leaves it to the engine."""
        return self.kv_cache if self.kv_cache != "auto" else self.precision

    @property
    def attention(self) -> Attention | None:
        """Attention over heads as most of its layers have it; None in a model without."""
        parts = [(n, part) for block, n in self.counted if block.mixer is not None for part in block.mixer.parts]
        found = [(count, one) for count, one in parts if isinstance(one, Attention)]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    @property
    def latent(self) -> LatentAttention | None:
        """Latent attention, where it has that."""
        return next((one for one in self.mixers if isinstance(one, LatentAttention)), None)

    @property
    def factorized(self) -> FactorizedAttention | None:
        """Attention over one key of all heads, where it has that."""
        return next((one for one in self.mixers if isinstance(one, FactorizedAttention)), None)

    @property
    def caches_latent(self) -> bool:
        """True where the engine caches latent vectors (``use_mla``), not keys and values that they expand to."""
        return any(isinstance(one, LatentAttention) and not one.expanded for one in self.mixers)

    @property
    def asserts_cache(self) -> bool:
        """True where the engine asserts a KV cache in fp8 and does not choose it by itself: DeepSeek-V4 on the kernels
        that it takes by default (``_resolve_dsv4_kv_cache_dtype`` of vLLM 0.29)."""
        return any(isinstance(one, CompressedAttention) for one in self.mixers)

    @property
    def attends(self) -> bool:
        """True where some layer keeps keys and values of tokens."""
        return any(one.caches for one in self.mixers)

    @property
    def heads(self) -> int:
        """Query heads: the fewest of any layer; 1 in a model without attention."""
        parts = [part for one in self.mixers for part in one.parts]
        found = [one.heads for one in parts if isinstance(one, Attention | LatentAttention | FactorizedAttention)]
        return min(found, default=1)

    @property
    def kv_heads(self) -> int:
        """KV heads as most layers have them; all heads of latent attention."""
        if self.attention:
            return self.attention.kv_heads
        return self.heads if self.factorized is None else 1

    @property
    def head_dim(self) -> int:
        """Width of a key as most layers have it."""
        if self.attention:
            return self.attention.head_dim
        if self.factorized:
            return self.factorized.head_dim
        return self.latent.qk_nope + self.latent.qk_rope if self.latent else 1

    @property
    def windowed(self) -> bool:
        """True where some layer sees a bounded part of the sequence."""
        return any(cache.window is not None for one in self.mixers for cache in one.caches)

    @property
    def recurrent(self) -> bool:
        """True where some layer carries a state."""
        return any(one.state is not None for one in self.mixers)

    @property
    def inter(self) -> int:
        """Width of the widest dense MLP; 0 without one."""
        return max((block.mlp.inter for block in self.kinds if block.mlp is not None), default=0)

    @property
    def experts(self) -> Experts | None:
        """Its mixture of experts, the same in all layers that have one."""
        return next((block.experts for block in self.kinds if block.experts is not None), None)

    @property
    def moe_layers(self) -> int:
        """Layers with a mixture of experts."""
        return sum(count for block, count in self.counted if block.experts is not None)

    @property
    def parameters(self) -> int:
        """Elements of the whole model, towers included, the vocabulary as published."""
        rows = self.vocab * (1 if self.tied_embeddings else 2)
        total = rows * self.table_width + self.head_bias * self.vocab + self.around(1)
        return round(total + sum(count * block.elements(self.hidden) for block, count in self.counted))

    @property
    def active_parameters(self) -> int:
        """Those that take part in a token of text: of the experts those chosen, of the embedding one row."""
        head = self.vocab * self.table_width + self.head_bias * self.vocab + self.vectors.on_rank(1)
        return round(head + sum(count * block.active_elements(self.hidden) for block, count in self.counted))

    def held_elements(self, ranks: int = 1) -> float:
        """Elements that one of so many tensor-parallel ranks holds, the vocabulary as padded, experts cut."""
        rows = self.padded_vocab * (1 if self.tied_embeddings else 2)
        total = (rows * self.table_width + self.head_bias * self.padded_vocab) / ranks + self.around(ranks)
        return total + sum(count * block.elements(self.hidden, ranks) for block, count in self.counted)

    def around(self, ranks: int) -> float:
        """Elements of one rank outside layers, embedding and head: last norm, positions, towers."""
        total = self.vectors.on_rank(ranks) + stored_elements(self.outside, ranks)
        return total + sum(tower_elements(tower, ranks) for tower in self.towers)


def tower_elements(tower: Tower, ranks: int) -> float:
    """Elements of a vision or audio encoder on one rank."""
    return tower.elements(ranks)


def load_model(name: str, dtype: str = "auto") -> ModelShape:
    """Shape of a model given as a directory with ``config.json`` or as a registry name, computed in ``dtype``.

    Of a request it is made by ``tuner.ask.requested_model``. Raises BadInput for a directory without a (readable)
    config, an unknown name, an architecture without a price, or weights that are not understood.
    """
    directory = Path(name)
    if directory.is_dir():
        return _from_directory(directory, dtype)
    config = known_config(name)
    if config is not None:
        return from_config(config, name, dtype)
    if not _HUB_NAME.fullmatch(name):
        raise BadInput("model", name, "an existing directory with a config.json, or a model name")
    raise unknown_model(name)


def _from_directory(directory: Path, dtype: str) -> ModelShape:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise BadInput("model", str(directory), "a directory that holds a config.json") from None
    except ValueError as error:
        raise BadInput(str(path), str(error), "well-formed JSON") from None
    if not isinstance(config, dict):
        raise BadInput(str(path), type(config).__name__, "a JSON object")
    return from_config(config, str(directory), dtype, directory)


def from_config(config: Mapping[str, Any], name: str, dtype: str = "auto", directory: Path | None = None) -> ModelShape:
    """Shape from a decoded ``config.json``; multimodal configs are read at their language model's part.

    ``directory`` is where the checkpoint lies: its quantisation may stand in another file there.
    """
    whole = Config(config, name)
    architecture = next(iter(whole.items("architectures")), ARCHITECTURES.get(whole.word("model_type")))
    reader = reader_of(architecture) if isinstance(architecture, str) else None
    if reader is None or not isinstance(architecture, str):
        raise BadInput(whole.place("architectures"), architecture, readable())
    inner = whole.part(_THINKER) if whole.has(_THINKER) else whole
    nested = next((key for key in _TEXT_PARTS if inner.has(key)), None)
    text = inner if nested is None else inner.part(nested)
    if directory is not None:
        whole = with_own_head(whole, text, directory)
    described = reader(whole, text)
    shape = ModelShape.of(name, architecture, described, nested is not None)
    document = find_document(config, text.values, name, directory)
    shape = _stored(shape, document, engine_dtype(config, text.values, dtype, name))
    fixed = {layer.value: Storage.of(USUAL[kind]) for layer, kind in described.fixed_formats}
    return replace(shape, weights=shape.weights.having(fixed))


def _stored(shape: ModelShape, document: QuantizationDocument | None, dtype: str) -> ModelShape:
    """The shape with the formats of its weights and its cache."""
    precision = PRECISIONS[dtype]
    if document is None:
        cache = "fp8" if shape.asserts_cache else "auto"
        return replace(shape, weights=Weights.plainly(precision), precision=precision, kv_cache=cache)
    found = read_quantization(document)
    require_runs(dtype, found.activations, document.method)
    weights = stored_weights(shape, found, precision, document.where)
    chosen = found.latent_cache if shape.latent else found.kv_cache
    cache = "fp8" if shape.asserts_cache else chosen
    return replace(shape, weights=weights, precision=precision, kv_cache=cache)
