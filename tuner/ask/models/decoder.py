"""What most families share: sizes, one kind of layer or one of two windows, and what lies around the layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.latent import LatentAttention
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import SLIDING, longest

SILU = ("silu", "swish")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a decoder: layers, width, heads of queries and of keys, their size."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int


def sizes(text: Config) -> Sizes:
    """Under the keys of most families. KV heads are as many as heads where they are not given."""
    return Sizes(hidden=text.need("hidden_size"), layers=text.need("num_hidden_layers"), **_heads(text))


def _heads(text: Config) -> dict[str, int]:
    heads = text.need("num_attention_heads")
    return {
        "heads": heads,
        "kv_heads": text.count("num_key_value_heads") or heads,
        "head_dim": text.count("head_dim") or text.need("hidden_size") // heads,
    }


def grouped_attention(text: Config, **more: Any) -> Attention:
    """Grouped-query attention of the usual keys; ``more`` of what they do not say, which wins."""
    found: dict[str, Any] = dict(_heads(text))
    return Attention(**(found | more))


def latent_attention(text: Config, **more: Any) -> LatentAttention:
    """Multi-head latent attention of the usual keys; ``more`` of what they do not say, which wins."""
    found: dict[str, Any] = {
        "heads": text.need("num_attention_heads"),
        "kv_rank": text.need("kv_lora_rank"),
        "q_rank": text.count("q_lora_rank") or None,
        "qk_nope": text.need("qk_nope_head_dim"),
        "qk_rope": text.need("qk_rope_head_dim"),
        "v_head": text.need("v_head_dim"),
    }
    return LatentAttention(**(found | more))


def two_norms(hidden: int) -> Vectors:
    """One norm before each half of a layer."""
    return Vectors(whole=2 * hidden)


def is_tied(config: Config, text: Config, absent: bool) -> bool:
    """Whether embedding and LM head are one matrix: the word of the whole, else the language model's own
    (``VllmConfig.with_hf_config`` hands it down)."""
    found = config if config.get("tie_word_embeddings") is not None else text
    return found.flag("tie_word_embeddings", absent)


def alternating(kinds: Sequence[str], window: int | None, layer: Callable[[int | None], Block]) -> Sequence[Block]:
    """Layers of two kinds: ``layer`` of a window, and of None for all tokens."""
    full, windowed = layer(None), layer(window)
    return [windowed if kind == SLIDING else full for kind in kinds]


def decoder(
    config: Config,
    text: Config,
    layers: Sequence[Block],
    *,
    tied: bool = False,
    headless: bool = False,
    own_head: bool = False,
    norm: int = 1,
    **more: Any,
) -> Described:
    """The whole of it, by the keys of most families; ``tied`` where the file does not say; ``headless``: the class
    knows no head beside the embedding; ``own_head``: it always has one; ``norm``: vectors of the last norm (2 with a
    bias). ``more`` are other fields of ``Described``."""
    hidden = text.need("hidden_size")
    given: dict[str, Any] = {
        "hidden": hidden,
        "vocab": text.need("vocab_size"),
        "layers": layers,
        "tied": headless or (not own_head and is_tied(config, text, tied)),
        "max_position": longest(text),
        "vectors": Vectors(whole=norm * hidden),
    }
    return Described(**(given | more))


def uniform(
    config: Config,
    text: Config,
    attention: Attention,
    mlp: Mlp,
    *,
    norms: int,
    joined: bool = False,
    prefix: str = "model.layers",
    **more: Any,
) -> Described:
    """A decoder of equal layers with so many vectors of norms each (2 for one with a bias)."""
    layer = Block(
        mixer=attention, mlp=mlp, norms=Vectors(whole=norms * text.need("hidden_size")), joined=joined, prefix=prefix
    )
    return decoder(config, text, [layer] * text.need("num_hidden_layers"), **more)
