"""What a reader of a quantisation finds out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuner.ask.formats.module_names import Module
from tuner.ask.formats.weights import WeightFormat

HALVES = ("bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Quantization:
    """``format_of`` a module (None: it is not quantised); what ``kv_cache_dtype`` auto becomes (``auto``: the model's
    own precision); the ``activations`` that the engine runs it with, as vLLM names them (``get_supported_act_dtypes``).
    ``latent_cache`` is the same as ``kv_cache`` for latent attention.
    """

    format_of: Callable[[Module], WeightFormat | None]
    kv_cache: str = "auto"
    latent_cache: str = "auto"
    activations: tuple[str, ...] = HALVES
