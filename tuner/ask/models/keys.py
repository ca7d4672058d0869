"""Keys that families read in the same way, beside those of sizes: names, numbers that may be 0, lists by layer."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.models.config import Config


def number(text: Config, key: str, absent: int) -> int:
    """A number that may be 0 in the file, where the class has another."""
    return absent if text.values.get(key) is None else text.count(key)


def of_kinds(text: Config, key: str, *allowed: str) -> Sequence[str]:
    """A list with a word for each layer; refuses others, and other lengths."""
    listed, layers = text.entries(key), text.need("num_hidden_layers")
    if len(listed) != layers or any(one not in allowed for one in listed):
        raise text.refuse(key, f"{layers} of {', '.join(allowed)}")
    return listed


def called(config: Config, text: Config) -> str:
    """What the file calls the language model, in small letters: its own architecture, else the whole one's, and its
    type."""
    own = text.entries("architectures")[:1] or config.entries("architectures")[:1]
    return " ".join(str(one) for one in (*own, text.word("model_type"))).lower()
