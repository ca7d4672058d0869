"""openPangu Embedded: Llama's layers (vLLM ``models/openpangu.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped


def read(config: Config, text: Config) -> Described:
    """Dense, without latent attention or sinks; four norms a layer where they are sandwiched."""
    for key in ("n_routed_experts", "kv_lora_rank"):
        text.only(key, None)
    text.only("param_sink_number", 0)
    return grouped(config, text, norms=4 if text.flag("sandwich_norm") else 2)
