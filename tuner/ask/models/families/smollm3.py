"""SmolLM3, through the class of Transformers (SmolLM3Config): Llama, some layers without rotated positions."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped
from tuner.ask.models.positions import FULL, SLIDING

DEFAULTS = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "no_rope_layer_interval": 4,
}


def read(config: Config, text: Config) -> Described:
    """Those have a window where the file says so. Embeddings are tied by default."""
    text = text.having(**DEFAULTS)
    layers, period = text.need("num_hidden_layers"), text.need("no_rope_layer_interval")
    rotated = text.entries("no_rope_layers") or [int((at + 1) % period != 0) for at in range(layers)]
    windowed = text.flag("use_sliding_window") and text.has("sliding_window")
    found = [SLIDING if windowed and not rotates else FULL for rotates in rotated]
    return grouped(config, text.having(layer_types=found), apart=True, tied=True, pipeline_tensors=1)
