"""PLaMo 3: norms before and after both halves of a layer, windows in most (vLLM ``models/plamo3.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors


def read(config: Config, text: Config) -> Described:
    """``interleaved_sliding_window`` has the window of each layer, null for none."""
    size = sizes(text)
    windows = text.entries("interleaved_sliding_window")
    if len(windows) < size.layers or any(one is not None and (not isinstance(one, int) or one < 1) for one in windows):
        raise text.refuse("interleaved_sliding_window", f"a window or null for each of {size.layers} layers")

    def layer(window: int | None) -> Block:
        attention = grouped_attention(
            text,
            window=window,
            norm_elements=2 * size.head_dim,
            place="mixer",
        )
        mlp = Mlp(inter=text.need("intermediate_size"))
        return Block(mixer=attention, mlp=mlp, norms=Vectors(whole=4 * size.hidden), prefix="model.layers.layers")

    return decoder(config, text, [layer(window) for window in windows[: size.layers]])
