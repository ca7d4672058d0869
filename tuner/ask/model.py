"""A model's shape, read from a Hugging Face ``config.json`` or from the registry of well-known models.

Only what costs bytes or time is kept. An architecture whose operations we do not know is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tuner.ask.dtype import PRECISIONS, engine_dtype, require_runs
from tuner.ask.formats.document import QuantizationDocument, find_document
from tuner.ask.formats.reading import LayerPlan, read_quantization, stored_weights
from tuner.ask.formats.weights import ALL_BF16, Weights
from tuner.errors import BadInput

VOCAB_PADDING = 64  # vLLM pads embedding and LM head rows to a multiple of this (vocab_parallel_embedding.py)
_REGISTRY = Path(__file__).with_name("models.yaml")
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")

# architecture → tensors that vLLM passes between pipeline stages: hidden states and residual, or hidden states alone
# (make_empty_intermediate_tensors_factory in vLLM 0.29 model files).
_PIPELINE_TENSORS = {
    "LlamaForCausalLM": 2,
    "MistralForCausalLM": 2,
    "Qwen2ForCausalLM": 2,
    "Qwen3ForCausalLM": 2,
    "MixtralForCausalLM": 2,
    "Qwen2MoeForCausalLM": 2,
    "Qwen3MoeForCausalLM": 2,
    "DeepseekV2ForCausalLM": 2,
    "DeepseekV3ForCausalLM": 2,
    "KimiK25ForConditionalGeneration": 2,
    "MiniMaxM2ForCausalLM": 2,
    "GptOssForCausalLM": 2,
}


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture-of-experts part: ``count`` routed experts of width ``inter``, ``topk`` of them per token."""

    count: int
    topk: int
    inter: int
    shared_inter: int
    layers: int


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): ranks and head sizes, in elements."""

    kv_rank: int
    q_rank: int | None
    qk_nope: int
    qk_rope: int
    v_head: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a decoder-only model; counts are elements, heads or layers of the whole, unsharded model.

    ``window_layers`` of the ``layers`` attend to at most ``window`` tokens, all others to everything.
    ``weights`` says how each kind of layer is stored; ``precision`` is what is computed in where no weights are
    quantised, ``bf16`` (or float16, which costs the same) or ``fp32``. ``kv_cache`` is what the engine stores keys and
    values in by itself: ``fp8`` where the checkpoint says so, else ``auto``, that precision.
    ``norm_spans_heads``: queries and keys are normalised over all heads, so tensor-parallel ranks add up variances.
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inter: int
    vocab: int
    max_position: int
    tied_embeddings: bool
    pipeline_tensors: int
    weights: Weights = ALL_BF16
    precision: str = "bf16"
    kv_cache: str = "auto"
    experts: Experts | None = None
    latent: LatentAttention | None = None
    window: int | None = None
    window_layers: int = 0
    norm_spans_heads: bool = False

    @property
    def padded_vocab(self) -> int:
        """Vocabulary rows as vLLM stores them."""
        return -(-self.vocab // VOCAB_PADDING) * VOCAB_PADDING

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
    def moe_layers(self) -> int:
        """Layers whose MLP is a mixture of experts."""
        return self.experts.layers if self.experts else 0

    @property
    def kv_elements_per_token_layer(self) -> int:
        """KV-cache elements of one token in one attention layer, over all heads."""
        if self.latent:
            return self.latent.kv_rank + self.latent.qk_rope
        return 2 * self.kv_heads * self.head_dim

    @property
    def attention_weights(self) -> int:
        """Weights of one attention layer's projections."""
        if self.latent:
            lat = self.latent
            qk = lat.qk_nope + lat.qk_rope
            query = self.hidden * self.heads * qk
            if lat.q_rank:
                query = lat.q_rank * (self.hidden + self.heads * qk)
            kv = self.hidden * (lat.kv_rank + lat.qk_rope) + lat.kv_rank * self.heads * (lat.qk_nope + lat.v_head)
            return query + kv + self.heads * lat.v_head * self.hidden
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def parameters(self) -> int:
        """Weights of the whole model (norms and router included, biases not)."""
        dense = 3 * self.hidden * self.inter
        total = self.layers * (self.attention_weights + 2 * self.hidden)
        total += (self.layers - self.moe_layers) * dense
        if self.experts:
            per_expert = 3 * self.hidden * self.experts.inter
            shared = 3 * self.hidden * self.experts.shared_inter
            total += self.experts.layers * (self.experts.count * (per_expert + self.hidden) + shared)
        return total + self.vocab * self.hidden * (1 if self.tied_embeddings else 2) + self.hidden


def known_models() -> tuple[str, ...]:
    """Names in the registry."""
    return tuple(sorted(_registry()))


def load_model(name: str, dtype: str = "auto") -> ModelShape:
    """Shape of a model given as a directory with ``config.json`` or as a registry name, computed in ``dtype``.

    Of a request it is made by ``tuner.ask.requested_model``. Raises BadInput for a directory without a (readable)
    config, an unknown name, an architecture without a price, or weights that are not understood.
    """
    directory = Path(name)
    if directory.is_dir():
        return _from_directory(directory, dtype)
    config = _registry().get(name)
    if config is not None:
        return from_config(config, name, dtype)
    if not _HUB_NAME.fullmatch(name):
        raise BadInput("model", name, "an existing directory with a config.json, or a model name")
    raise BadInput("model", name, "a directory with a config.json, or one of " + ", ".join(known_models()))


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
    """Shape from a decoded ``config.json``; multimodal configs are read at their ``text_config``.

    ``directory`` is where the checkpoint lies: its quantisation may stand in another file there.
    """
    architecture = next(iter(_list(config, "architectures", name)), None)
    if not isinstance(architecture, str) or architecture not in _PIPELINE_TENSORS:
        raise BadInput(f"{name}: architectures", architecture, "one of " + ", ".join(sorted(_PIPELINE_TENSORS)))
    text = _object(config, "text_config", name) or config
    heads, hidden = _need(text, "num_attention_heads", name), _need(text, "hidden_size", name)
    layers = _need(text, "num_hidden_layers", name)
    expert_layers = _expert_layers(text, layers, name)
    window, window_layers = _attention_kinds(text, layers, name)
    shape = ModelShape(
        name=name,
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_count(text, "num_key_value_heads", name) or heads,
        head_dim=_count(text, "head_dim", name) or hidden // heads,
        inter=_need(text, "intermediate_size", name),
        vocab=_need(text, "vocab_size", name),
        max_position=_count(text, "max_position_embeddings", name) or 2**31,
        tied_embeddings=bool(text.get("tie_word_embeddings", False)),
        pipeline_tensors=_PIPELINE_TENSORS[architecture],
        experts=_experts(text, len(expert_layers), name),
        latent=_latent(text, name),
        window=window,
        window_layers=window_layers,
        norm_spans_heads=bool(text.get("use_qk_norm")) and text.get("qk_norm_type") == "per_layer",
    )
    plan = LayerPlan(expert_layers, nested=text is not config)
    return _stored(shape, find_document(config, text, name, directory), plan, engine_dtype(config, text, dtype, name))


def _stored(shape: ModelShape, document: QuantizationDocument | None, plan: LayerPlan, dtype: str) -> ModelShape:
    """The shape with the formats of its weights and its cache."""
    precision = PRECISIONS[dtype]
    if document is None:
        return replace(shape, weights=Weights.plainly(precision), precision=precision)
    found = read_quantization(document)
    require_runs(dtype, found.activations, document.method)
    weights = stored_weights(shape, found, plan, precision, document.where)
    cache = found.latent_cache if shape.latent else found.kv_cache
    return replace(shape, weights=weights, precision=precision, kv_cache=cache)


def _need(text: Mapping[str, Any], key: str, name: str) -> int:
    value = text.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{name}: {key}", value, "a whole number of at least 1")
    return value


def _count(text: Mapping[str, Any], key: str, name: str) -> int:
    """A number that a config may leave out: absent, null and 0 mean 0."""
    return _need(text, key, name) if text.get(key) else 0


def _object(text: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    value = text.get(key) or {}
    if not isinstance(value, Mapping):
        raise BadInput(f"{name}: {key}", value, "an object, or nothing")
    return value


def _list(text: Mapping[str, Any], key: str, name: str) -> Sequence[Any]:
    value = text.get(key) or ()
    if not isinstance(value, list | tuple):
        raise BadInput(f"{name}: {key}", value, "a list, or nothing")
    return value


def _experts(text: Mapping[str, Any], layers: int, name: str) -> Experts | None:
    count = _expert_count(text, name)
    if not count:
        return None
    inter = _count(text, "moe_intermediate_size", name) or _need(text, "intermediate_size", name)
    shared = _count(text, "shared_expert_intermediate_size", name) or _count(text, "shared_intermediate_size", name)
    shared = shared or _count(text, "n_shared_experts", name) * inter
    topk = _count(text, "experts_per_token", name) or _need(text, "num_experts_per_tok", name)
    return Experts(count, topk, inter, shared, layers)


def _expert_count(text: Mapping[str, Any], name: str) -> int:
    keys = ("n_routed_experts", "num_local_experts", "num_experts")
    return next((found for key in keys if (found := _count(text, key, name))), 0)


def _expert_layers(text: Mapping[str, Any], layers: int, name: str) -> frozenset[int]:
    """Layers whose MLP is a mixture of experts, by index."""
    if not _expert_count(text, name):
        return frozenset()
    every = _count(text, "moe_layer_freq", name) or _count(text, "decoder_sparse_step", name) or 1
    dense = [one for one in _list(text, "mlp_only_layers", name) if isinstance(one, int)]
    first = _count(text, "first_k_dense_replace", name)
    return frozenset(i for i in range(first, layers) if every == 1 or (i + 1) % every == 0) - frozenset(dense)


def _latent(text: Mapping[str, Any], name: str) -> LatentAttention | None:
    kv_rank = _count(text, "kv_lora_rank", name)
    if not kv_rank:
        return None
    sizes = (_need(text, key, name) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    return LatentAttention(kv_rank, _count(text, "q_lora_rank", name) or None, *sizes)


def _attention_kinds(text: Mapping[str, Any], layers: int, name: str) -> tuple[int | None, int]:
    """(window in tokens, layers that have it)."""
    kinds, window = _list(text, "layer_types", name), _count(text, "sliding_window", name)
    if not window:
        return None, 0
    if kinds:
        sliding = sum(1 for kind in kinds if kind == "sliding_attention")
        return (window, sliding) if sliding else (None, 0)
    return (window, layers) if text.get("use_sliding_window", True) else (None, 0)


@lru_cache(maxsize=1)
def _registry() -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = yaml.load(_REGISTRY.read_text(encoding="utf-8"), Loader=_yaml_loader())
    return document


def _yaml_loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
