"""How long a sequence the engine takes, and which tokens its attention sees (vLLM 0.29)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuner.ask.models.config import Config

UNSTATED = 2048  # where no key says how long (``_get_and_verify_max_len`` of ``config/model.py``)

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""The shortest of them counts (``transformers_utils/model_arch_config_convertor``)."""

FULL, SLIDING = "full_attention", "sliding_attention"


def longest(text: Config, scaled: bool = True) -> int:
    """Tokens of a sequence at most, by default: the lengths of the configuration, times what the positions are scaled
    by, unless they were ``scaled`` to begin with (False)."""
    lengths = [text.need(key) for key in _LENGTHS if text.has(key)]
    length = text.count("model_max_length") or min(lengths, default=UNSTATED)
    if not scaled:
        return length
    factor, long_rope = 1.0, False
    for rope in _ropes(text):
        kind = rope.word("rope_type") or rope.word("type") or "default"
        if kind in ("su", "longrope"):
            long_rope = True
        elif kind != "llama3":
            factor = rope.share("factor", factor)
        if kind == "yarn":
            stated = text.count("original_max_position_embeddings") or rope.count("original_max_position_embeddings")
            length = stated or text.count("max_position_embeddings") or length
    if long_rope and text.has("original_max_position_embeddings"):
        return text.need("original_max_position_embeddings")
    return int(length * factor)


def _ropes(text: Config) -> Iterator[Config]:
    """How positions are rotated: one setting, or one for each kind of layer."""
    key = "rope_scaling" if text.get("rope_scaling") else "rope_parameters"
    rope = text.part(key)
    nested = [one for one in rope.values if one.endswith("_attention")]
    if not nested:
        yield rope
    for one in nested:
        yield rope.part(one)


def everywhere(text: Config) -> int | None:
    """The window that a configuration gives to a class that knows none of its own: of all layers or of none."""
    kinds = text.entries("layer_types")
    if kinds and any(one != SLIDING for one in kinds):
        return None
    return text.count("sliding_window") or None


def kinds(text: Config, count: int, absent: Sequence[str]) -> Sequence[str]:
    """Which of so many layers attend to all tokens and which to a window; refuses other kinds."""
    found = text.entries("layer_types") or absent
    if len(found) < count or any(one not in (FULL, SLIDING) for one in found[:count]):
        raise text.refuse("layer_types", f"{FULL} or {SLIDING} for each of {count} layers")
    return found[:count]


def every(count: int, period: int) -> Sequence[str]:
    """Kinds of so many layers where one in ``period`` attends to all tokens, the last of each; 0: all of them do."""
    return [SLIDING if period and (at + 1) % period else FULL for at in range(count)]
