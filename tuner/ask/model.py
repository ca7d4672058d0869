"""A model's shape, read from a Hugging Face ``config.json`` or from the registry of well-known models.

Only what costs bytes or time is kept. An architecture whose operations we do not know is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

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
_BYTES_PER_WEIGHT = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0 + 4 / (128 * 128),  # one fp32 scale per 128 × 128 block
    "int8": 1.0,
    "int4": 0.5 + 2 / 32,  # one bf16 scale per group of 32
    "mxfp4": 0.5 + 1 / 32,  # one 8-bit scale per block of 32 (OCP MX specification)
    "mxfp4_fp8": 0.5 + 1 / 32,  # the same weights; activations are quantised to fp8
    "nvfp4": 0.5 + 1 / 16,  # one fp8 scale per block of 16
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
    ``attention_dtype``, ``linear_dtype`` (dense MLPs) and ``expert_dtype`` name weight precisions.
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
    attention_dtype: str = "bf16"
    linear_dtype: str = "bf16"
    expert_dtype: str = "bf16"
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


def bytes_per_weight(dtype: str) -> float:
    """Stored bytes of one weight, scales included; raises BadInput for a precision that cannot be priced."""
    if dtype not in _BYTES_PER_WEIGHT:
        raise BadInput("precision", dtype, ", ".join(_BYTES_PER_WEIGHT))
    return _BYTES_PER_WEIGHT[dtype]


def known_models() -> tuple[str, ...]:
    """Names in the registry."""
    return tuple(sorted(_registry()))


def load_model(name: str) -> ModelShape:
    """Shape of a model given as a directory with ``config.json`` or as a registry name.

    Raises BadInput for a directory without a (readable) config, an unknown name, or an architecture without a price.
    """
    directory = Path(name)
    if directory.is_dir():
        return _from_directory(directory)
    config = _registry().get(name)
    if config is not None:
        return from_config(config, name)
    if not _HUB_NAME.fullmatch(name):
        raise BadInput("model", name, "an existing directory with a config.json, or a model name")
    raise BadInput("model", name, "a directory with a config.json, or one of " + ", ".join(known_models()))


def _from_directory(directory: Path) -> ModelShape:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise BadInput("model", str(directory), "a directory that holds a config.json") from None
    except ValueError as error:
        raise BadInput(str(path), str(error), "well-formed JSON") from None
    if not isinstance(config, dict):
        raise BadInput(str(path), type(config).__name__, "a JSON object")
    return from_config(config, str(directory))


def from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """Shape from a decoded ``config.json``; multimodal configs are read at their ``text_config``."""
    architecture = next(iter(_list(config, "architectures", name)), None)
    if not isinstance(architecture, str) or architecture not in _PIPELINE_TENSORS:
        raise BadInput(f"{name}: architectures", architecture, "one of " + ", ".join(sorted(_PIPELINE_TENSORS)))
    text = _object(config, "text_config", name) or config
    heads, hidden = _need(text, "num_attention_heads", name), _need(text, "hidden_size", name)
    layers = _need(text, "num_hidden_layers", name)
    experts = _experts(text, layers, name)
    dtypes = _dtypes(text, config, experts is not None, name)
    window, window_layers = _attention_kinds(text, layers, name)
    return ModelShape(
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
        attention_dtype=dtypes[0],
        linear_dtype=dtypes[1],
        expert_dtype=dtypes[2],
        experts=experts,
        latent=_latent(text, name),
        window=window,
        window_layers=window_layers,
        norm_spans_heads=bool(text.get("use_qk_norm")) and text.get("qk_norm_type") == "per_layer",
    )


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
    keys = ("n_routed_experts", "num_local_experts", "num_experts")
    count = next((found for key in keys if (found := _count(text, key, name))), 0)
    if not count:
        return None
    inter = _count(text, "moe_intermediate_size", name) or _need(text, "intermediate_size", name)
    shared = _count(text, "shared_expert_intermediate_size", name) or _count(text, "shared_intermediate_size", name)
    shared = shared or _count(text, "n_shared_experts", name) * inter
    first_dense = _count(text, "first_k_dense_replace", name)
    every = _count(text, "moe_layer_freq", name) or _count(text, "decoder_sparse_step", name) or 1
    moe_layers = sum(1 for i in range(first_dense, layers) if every == 1 or (i + 1) % every == 0)
    moe_layers -= len(_list(text, "mlp_only_layers", name))
    topk = _count(text, "experts_per_token", name) or _need(text, "num_experts_per_tok", name)
    return Experts(count, topk, inter, shared, moe_layers)


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


def _dtypes(text: Mapping[str, Any], config: Mapping[str, Any], moe: bool, name: str) -> tuple[str, str, str]:
    """Weight precisions of (attention projections, dense MLPs, experts)."""
    plain = {"float32": "fp32", "bfloat16": "bf16", "float16": "bf16"}
    declared = str(text.get("torch_dtype") or text.get("dtype") or config.get("torch_dtype") or "bfloat16")
    if declared not in plain:
        raise BadInput(f"{name}: torch_dtype", declared, ", ".join(plain))
    base = plain[declared]
    quantization = _object(text, "quantization_config", name) or _object(config, "quantization_config", name)
    if not quantization:
        return base, base, base
    weights = _quantized_dtype(quantization, name)
    ignored = " ".join(str(m) for key in ("modules_to_not_convert", "ignore") for m in _list(quantization, key, name))
    attention = base if "self_attn" in ignored else weights
    linear = base if moe and re.search(r"shared_experts|mlp\\\.\(gate", ignored) else weights
    return attention, linear, weights


_COMPRESSED = {("int", 4): "int4", ("int", 8): "int8", ("float", 8): "fp8", ("float", 4): "nvfp4"}


def _quantized_dtype(quantization: Mapping[str, Any], name: str) -> str:
    method = str(quantization.get("quant_method"))
    if method == "fp8":
        return "fp8_block" if quantization.get("weight_block_size") else "fp8"
    if method in ("gptq", "awq") and 4 in (quantization.get("bits"), quantization.get("w_bit")):
        return "int4"
    if method == "mxfp4":
        return "mxfp4"
    if method == "compressed-tensors":
        groups = _object(quantization, "config_groups", name)
        weights = _object(_object(groups, next(iter(groups), ""), name), "weights", name)
        found = _COMPRESSED.get((str(weights.get("type")), _count(weights, "num_bits", name)))
        if found:
            return found
    raise BadInput(
        f"{name}: quantization_config.quant_method", method, "fp8, mxfp4, 4-bit gptq or awq, or compressed-tensors"
    )


@lru_cache(maxsize=1)
def _registry() -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = yaml.load(_REGISTRY.read_text(encoding="utf-8"), Loader=_yaml_loader())
    return document


def _yaml_loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
