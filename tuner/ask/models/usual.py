"""What mixtures and hybrids have in common beside ``decoder``: attention of the usual keys, and lists by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.ask.models.attention import Attention
from tuner.ask.models.config import Config
from tuner.ask.models.matrices import Vectors

SILU = ("silu", "swish")


def called(config: Config, text: Config) -> str:
    """What the file calls the language model, in small letters: its own architecture, else the whole one's, and its
    type."""
    own = text.entries("architectures")[:1] or config.entries("architectures")[:1]
    return " ".join(str(one) for one in (*own, text.word("model_type"))).lower()


def grouped(text: Config, **more: Any) -> Attention:
    """Grouped-query attention of the usual keys; ``more`` of what they do not say, which wins."""
    heads = text.need("num_attention_heads")
    found: dict[str, Any] = {
        "heads": heads,
        "kv_heads": text.count("num_key_value_heads") or heads,
        "head_dim": text.count("head_dim") or text.need("hidden_size") // heads,
    }
    return Attention(**(found | more))


def two_norms(hidden: int) -> Vectors:
    """One norm before each half of a layer."""
    return Vectors(whole=2 * hidden)


def number(text: Config, key: str, absent: int) -> int:
    """A number that may be 0 in the file, where the class has another."""
    return absent if text.values.get(key) is None else text.count(key)


def of_kinds(text: Config, key: str, *allowed: str) -> Sequence[str]:
    """A list with a word for each layer; refuses others, and other lengths."""
    listed, layers = text.entries(key), text.need("num_hidden_layers")
    if len(listed) != layers or any(one not in allowed for one in listed):
        raise text.refuse(key, f"{layers} of {', '.join(allowed)}")
    return listed
