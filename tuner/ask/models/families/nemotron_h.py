"""Nemotron-H and Nemotron-3 (vLLM ``models/nemotron_h.py``): each mixer, attention, MLP or mixture is a layer
by itself, in the order that a pattern says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.cache import STATE_BYTES
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import FULL, everywhere
from tuner.ask.models.recurrent import Mamba2

DEFAULTS = {  # of NemotronHConfig
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 21504,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "chunk_size": 128,
    "mamba_ssm_cache_dtype": "float32",
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 7688,
    "moe_shared_expert_intermediate_size": 7688,
    "max_position_embeddings": 4096,
}
_OLDER = {"mamba_n_groups": "n_groups", "mamba_d_conv": "conv_kernel", "mamba_chunk_size": "chunk_size"}
_OLDER |= {"mamba_conv_bias": "use_conv_bias"}  # names that the class renames
_WORDS = {"mamba": "M", "linear_attention": "M", "attention": "*", FULL: "*", "mlp": "-", "moe": "E"}


def read(config: Config, text: Config) -> Described:
    """Layers as listed (``layers_block_type``), or by the letters of ``hybrid_override_pattern``."""
    renamed = {new: text.values[old] for old, new in _OLDER.items() if old in text.values}
    text = Config({**text.values, **renamed}, text.name).having(**DEFAULTS)
    text.only("block_configs", None)
    text.only("mlp_hidden_act", "relu2")
    makers: dict[str, Callable[[Config], Block]] = {"M": _mamba, "*": _attention, "-": _dense, "E": _routed}
    made = cache(lambda letter: makers[letter](text))
    return decoder(
        config,
        text,
        [made(letter) for letter in _pattern(text)],
        own_head=True,
        embedding_names=("model.embed_tokens", "backbone.embeddings"),
    )


def _pattern(text: Config) -> str:
    if text.has("layers_block_type") or text.has("layer_types"):
        key = "layers_block_type" if text.has("layers_block_type") else "layer_types"
        if any(word not in _WORDS for word in text.entries(key)):
            raise text.refuse(key, ", ".join(_WORDS))
        return "".join(_WORDS[word] for word in text.entries(key))
    pattern = text.word("hybrid_override_pattern")
    if not pattern or set(pattern) - set("M*-E"):
        raise text.refuse("hybrid_override_pattern", "a text of M, *, - and E, or a list in layers_block_type")
    return pattern


def _norm(text: Config) -> Vectors:
    return Vectors(whole=text.need("hidden_size"))


def _mamba(text: Config) -> Block:
    state = text.word("mamba_ssm_cache_dtype")
    if state not in STATE_BYTES:
        raise text.refuse("mamba_ssm_cache_dtype", ", ".join(STATE_BYTES))
    mixer = Mamba2(
        heads=text.need("mamba_num_heads"),
        head_dim=text.need("mamba_head_dim"),
        groups=text.need("n_groups"),
        state_size=text.need("ssm_state_size"),
        conv=text.need("conv_kernel"),
        chunk=text.need("chunk_size"),
        conv_bias=text.flag("use_conv_bias", True),
        bias=text.flag("use_bias"),
        state_dtype=state,
    )
    return Block(mixer=mixer, norms=_norm(text), prefix=PREFIX)


def _attention(text: Config) -> Block:
    return Block(
        mixer=grouped_attention(text, window=everywhere(text), place="mixer"), norms=_norm(text), prefix=PREFIX
    )


def _dense(text: Config) -> Block:
    mlp = Mlp(inter=text.need("intermediate_size"), gated=False, bias=text.flag("mlp_bias"), place="mixer")
    return Block(mixer=None, mlp=mlp, norms=_norm(text), prefix=PREFIX)


def _routed(text: Config) -> Block:
    text.only("mlp_bias", False)
    shared = text.count("n_shared_experts") if text.values.get("n_shared_experts", 1) else 0
    experts = Experts(
        count=text.need("n_routed_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("moe_intermediate_size"),
        shared_inter=shared * text.need("moe_shared_expert_intermediate_size"),
        gated=False,
        router_bias=True,
        width=text.count("moe_latent_size") or None,
        place="mixer",
        shared_place="mixer.shared_experts",
    )
    return Block(mixer=None, experts=experts, norms=_norm(text), prefix=PREFIX)


PREFIX = "backbone.layers"
