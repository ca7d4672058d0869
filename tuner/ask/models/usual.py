"""What most decoders' configurations have in common: lengths, tied embeddings, attention of the usual keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors

LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)  # in vLLM's order (``transformers_utils/model_arch_config_convertor.py``): the least of them counts
NO_LENGTH = 2048  # tokens that vLLM takes at most where no key says how many
UNSCALED = ("su", "longrope", "llama3")  # rotary embeddings whose ``factor`` lengthens nothing
SILU = ("silu", "swish")


def longest(text: Config, whole: Config | None = None) -> int:
    """Tokens that vLLM takes at most (``_get_and_verify_max_len``): the least of the lengths, stretched by the rotary
    embedding's factor; with YaRN from what it was trained on; with LongRoPE that length itself."""
    stated = [text.need(key) for key in LENGTHS if text.has(key)]
    length = float(text.need("model_max_length") if text.has("model_max_length") else min(stated, default=NO_LENGTH))
    factor, long = 1.0, False
    for rope in ropes(text):
        kind = rope.word("rope_type") or rope.word("type", "default")
        long = long or kind in ("su", "longrope")
        if kind not in UNSCALED:
            factor = rope.share("factor", factor)
            if kind == "yarn":
                length = float(rope.count("original_max_position_embeddings") or stated[0])
    if long and text.has("original_max_position_embeddings"):
        return text.need("original_max_position_embeddings")
    return int(length * factor)


def ropes(text: Config) -> Iterator[Config]:
    """Settings of rotary embeddings, one or one for each kind of layers."""
    part = text.part("rope_parameters" if text.has("rope_parameters") else "rope_scaling")
    nested = [key for key, value in part.values.items() if isinstance(value, Mapping)]
    if nested:
        yield from (part.part(key) for key in nested)
    elif part.values:
        yield part


def tied(config: Config, text: Config, absent: bool = False) -> bool:
    """Embedding and head are one matrix: as the whole configuration says, that of the text where it says nothing."""
    key = "tie_word_embeddings"
    return config.flag(key) if config.has(key) else text.flag(key, absent)


def window_of_all(text: Config) -> int | None:
    """The sliding window where it holds for every layer; 0 and null are none."""
    return (text.count("sliding_window") if "sliding_window" in text.values else 0) or None


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


def of_kinds(text: Config, key: str, *allowed: str) -> Sequence[str]:
    """A list with a word for each layer; refuses others, and other lengths."""
    listed, layers = text.entries(key), text.need("num_hidden_layers")
    if len(listed) != layers or any(one not in allowed for one in listed):
        raise text.refuse(key, f"{layers} of {', '.join(allowed)}")
    return listed


def decoder(
    config: Config, text: Config, layers: Sequence[Block], *, same: bool | None = None, **more: Any
) -> Described:
    """A decoder of usual embeddings and one last norm; ``same``: embedding and head are one matrix (None: as said)."""
    hidden = text.need("hidden_size")
    found: dict[str, Any] = {"vectors": Vectors(whole=hidden), "max_position": longest(text)} | more
    if same is None:
        same = tied(config, text)
    return Described(hidden=hidden, vocab=text.need("vocab_size"), layers=layers, tied=same, **found)
