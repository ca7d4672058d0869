"""The language model inside a multimodal one: which reader it has, by its own architecture or its type."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Reader

TYPES: Mapping[str, str] = {
    "cohere": "cohere",
    "cohere2": "cohere2",
    "deepseek": "deepseek",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "ernie4_5": "ernie45",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "glm": "glm",
    "glm4": "glm4",
    "glm4_moe": "glm_moe",
    "glm4v_moe_text": "glm_moe",
    "glm4v_text": "glm4",
    "gpt_oss": "gpt_oss",
    "granite": "granite",
    "internlm2": "internlm2",
    "kimi_linear": "kimi_linear",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2",
    "llama": "llama",
    "llama4_text": "llama4",
    "ministral3": "ministral3",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "nemotron_h": "nemotron_h",
    "phi": "phi",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen_moe",
    "qwen3": "qwen3",
    "qwen3_5_moe_text": "qwen_next",
    "qwen3_5_text": "qwen_next",
    "qwen3_moe": "qwen_moe",
    "qwen3_next": "qwen_next",
}
"""Files of ``families`` by the ``model_type`` of a nested configuration."""


def language_model(config: Config, text: Config, absent: str = "") -> Described:
    """What the reader of the nested configuration makes of it; ``absent`` is its type where the file does not say.
    Raises BadInput for a type that has no reader."""
    kind = text.word("model_type") or absent
    file = TYPES.get(kind)
    if file is None:
        raise text.refuse("model_type", "one of " + ", ".join(TYPES))
    found: Reader = import_module(f"tuner.ask.models.families.{file}").read
    return found(config, text)
