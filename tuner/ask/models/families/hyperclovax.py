"""HyperCLOVA X: Llama, with two more norms a layer by default (vLLM ``models/hyperclovax.py``, its own config)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import DEFAULTS, grouped


def read(config: Config, text: Config) -> Described:
    """Norms after both halves of a layer, where the file does not say no."""
    text = text.having(**DEFAULTS)
    text.only("dual_chunk_attention_config", None)
    return grouped(config, text, norms=4 if text.flag("use_post_norm", True) else 2)
