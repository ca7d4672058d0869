"""VaultGemma, through the class of Transformers (VaultGemmaConfig): Gemma 2 with two norms a layer."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder
from tuner.ask.models.described import Described
from tuner.ask.models.families.gemma2 import DEFAULTS, sandwiches
from tuner.ask.models.positions import every


def read(config: Config, text: Config) -> Described:
    """Embeddings are tied by default."""
    text = text.having(**DEFAULTS)
    layers = sandwiches(text, every(text.need("num_hidden_layers"), 2), around=2, apart=True)
    return decoder(config, text, layers, tied=True, pipeline_tensors=1)
