"""Qwen 1.5 to 2.5, and MiMo: biases of queries, keys and values; a window in all layers or in none.

vLLM ``models/qwen2.py``, ``models/mimo.py`` (whose prediction layers are not served).
"""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import FULL, SLIDING, kinds

# Qwen2Config of Transformers 5
DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
}
WINDOW = 4096


def read(config: Config, text: Config) -> Described:
    """With the defaults of Qwen2's own class."""
    return layered(config, text.having(**DEFAULTS))


def window(text: Config) -> int | None:
    """That of every layer. The class refuses windows in some, unless ``max_window_layers`` covers all of them: then it
    has none."""
    layers = text.need("num_hidden_layers")
    stated = text.count("sliding_window") if text.stated("sliding_window") else WINDOW
    size = stated if text.flag("use_sliding_window") else 0
    first = text.whole("max_window_layers", 0)
    found = set(kinds(text, layers, [SLIDING if size and at >= first else FULL for at in range(layers)]))
    if len(found) > 1 and first != layers:
        raise text.refuse("max_window_layers", f"a window in all of {layers} layers or in none (vLLM refuses others)")
    return size or None if found == {SLIDING} else None


def layered(config: Config, text: Config, *, bias: bool = True, head_dim: int | None = None) -> Described:
    """``bias`` of queries, keys and values; the output has none. Heads divide the width without a ``head_dim``."""
    text.only("hidden_act", "silu")
    text.only("is_causal", True)
    text.only("dual_chunk_attention_config", None)
    size = sizes(text)
    width = head_dim or size.hidden // size.heads
    attention = grouped_attention(
        text,
        head_dim=width,
        window=window(text),
        bias=bias,
        norm_elements=2 * width if text.flag("qk_norm") else 0,
    )
    mlp = Mlp(inter=text.need("intermediate_size"))
    layer = Block(mixer=attention, mlp=mlp, norms=Vectors(whole=2 * size.hidden))
    return decoder(config, text, [layer] * size.layers)
