"""EXAONE 4: norms after both halves of a layer and of queries and keys; windows in three of four layers of the large
one (vLLM ``models/exaone4.py``, Exaone4Config of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped
from tuner.ask.models.positions import every

DEFAULTS = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
}
WINDOW = 4096


def read(config: Config, text: Config) -> Described:
    """A period in letters (``LLLG``) comes with ``layer_types``."""
    text = text.having(**DEFAULTS)
    windowed = text if text.stated("sliding_window") else text.having(sliding_window=WINDOW)
    if not text.entries("layer_types"):
        period = text.count("sliding_window_pattern") or 4 if windowed.has("sliding_window") else 0
        windowed = windowed.having(layer_types=every(text.need("num_hidden_layers"), period))
    return grouped(config, windowed, head_norms=True)
