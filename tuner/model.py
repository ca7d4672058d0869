"""A model's shape, read from a Hugging Face ``config.json`` or from the registry of well-known models.

Only what costs bytes or time is kept. An architecture whose operations we do not know is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in _PIPELINE_TENSORS:
        raise BadInput(f"{name}: architectures", architecture, "one of " + ", ".join(sorted(_PIPELINE_TENSORS)))
    text = config.get("text_config", config)
    heads, hidden = _need(text, "num_attention_heads", name), _need(text, "hidden_size", name)
    layers = _need(text, "num_hidden_layers", name)
    experts = _experts(text, layers, name)
    dtypes = _dtypes(text, config, experts is not None, name)
    window, window_layers = _attention_kinds(text, layers)
    return ModelShape(
        name=name,
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or hidden // heads),
        inter=_need(text, "intermediate_size", name),
        vocab=_need(text, "vocab_size", name),
        max_position=int(text.get("max_position_embeddings") or 2**31),
        tied_embeddings=bool(text.get("tie_word_embeddings", False)),
        pipeline_tensors=_PIPELINE_TENSORS[architecture],
        attention_dtype=dtypes[0],
        linear_dtype=dtypes[1],
        expert_dtype=dtypes[2],
        experts=experts,
        latent=_latent(text, name),
        window=window,
        window_layers=window_layers,
    )


def _need(text: Mapping[str, Any], key: str, name: str) -> int:
    value = text.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{name}: {key}", value, "a whole number of at least 1")
    return value


def _experts(text: Mapping[str, Any], layers: int, name: str) -> Experts | None:
    count = text.get("n_routed_experts") or text.get("num_local_experts") or text.get("num_experts")
    if not count:
        return None
    inter = text.get("moe_intermediate_size") or text["intermediate_size"]
    shared = int(text.get("shared_expert_intermediate_size") or text.get("shared_intermediate_size") or 0)
    shared = shared or int(text.get("n_shared_experts") or 0) * int(inter)
    first_dense = int(text.get("first_k_dense_replace") or 0)
    every = int(text.get("moe_layer_freq") or text.get("decoder_sparse_step") or 1)
    moe_layers = sum(1 for i in range(first_dense, layers) if every == 1 or (i + 1) % every == 0)
    moe_layers -= len(text.get("mlp_only_layers") or ())
    topk = text.get("num_experts_per_tok") or text.get("experts_per_token")
    if not isinstance(topk, int):
        raise BadInput(f"{name}: num_experts_per_tok", topk, "a whole number of at least 1")
    return Experts(int(count), topk, int(inter), shared, moe_layers)


def _latent(text: Mapping[str, Any], name: str) -> LatentAttention | None:
    if not text.get("kv_lora_rank"):
        return None
    q_rank = text.get("q_lora_rank")
    sizes = (_need(text, key, name) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    return LatentAttention(int(text["kv_lora_rank"]), int(q_rank) if q_rank else None, *sizes)


def _attention_kinds(text: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    """(window in tokens, layers that have it)."""
    kinds = text.get("layer_types") or ()
    window = text.get("sliding_window")
    if not window:
        return None, 0
    if kinds:
        sliding = sum(1 for kind in kinds if kind == "sliding_attention")
        return (int(window), sliding) if sliding else (None, 0)
    return (int(window), layers) if text.get("use_sliding_window", True) else (None, 0)


def _dtypes(text: Mapping[str, Any], config: Mapping[str, Any], moe: bool, name: str) -> tuple[str, str, str]:
    """Weight precisions of (attention projections, dense MLPs, experts)."""
    plain = {"float32": "fp32", "bfloat16": "bf16", "float16": "bf16"}
    declared = str(text.get("torch_dtype") or text.get("dtype") or config.get("torch_dtype") or "bfloat16")
    if declared not in plain:
        raise BadInput(f"{name}: torch_dtype", declared, ", ".join(plain))
    base = plain[declared]
    quantization = text.get("quantization_config") or config.get("quantization_config")
    if not quantization:
        return base, base, base
    weights = _quantized_dtype(quantization, name)
    ignored = " ".join(quantization.get("modules_to_not_convert") or quantization.get("ignore") or ())
    attention = base if "self_attn" in ignored else weights
    linear = base if moe and re.search(r"shared_experts|mlp\\\.\(gate", ignored) else weights
    return attention, linear, weights


def _quantized_dtype(quantization: Mapping[str, Any], name: str) -> str:
    method = str(quantization.get("quant_method"))
    if method == "fp8":
        return "fp8_block" if quantization.get("weight_block_size") else "fp8"
    if method in ("gptq", "awq") and int(quantization.get("bits") or quantization.get("w_bit") or 0) == 4:
        return "int4"
    if method == "mxfp4":
        return "mxfp4"
    if method == "compressed-tensors":
        groups = quantization.get("config_groups") or {}
        first: Mapping[str, Any] = next(iter(groups.values()), {})
        weights = first.get("weights") or {}
        by_kind: dict[tuple[str, int], str] = {
            ("int", 4): "int4",
            ("int", 8): "int8",
            ("float", 8): "fp8",
            ("float", 4): "nvfp4",
        }
        found = by_kind.get((str(weights.get("type")), int(weights.get("num_bits") or 0)))
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
