"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and Qwen3.6 with images (vLLM ``models/qwen2_vl.py``, ``qwen2_5_vl.py``,
``qwen3_vl.py``, ``qwen3_5.py``)."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Reader
from tuner.ask.models.families import qwen2, qwen3, qwen_moe, qwen_next
from tuner.ask.models.qwen_towers import second, second_and_a_half, third
from tuner.ask.models.towers import with_towers

_TEXT: Mapping[str, Reader] = {
    "Qwen2VL": qwen2.read,
    "Qwen2_5_VL": qwen2.read,
    "OpenCUA": qwen2.read,
    "Qwen3VLMoe": qwen_moe.read,
    "Qwen3VL": qwen3.read,
    "Qwen3_5": qwen_next.read,
}


def read(config: Config, text: Config) -> Described:
    """The first generations have the language model's keys at the top."""
    config = config.having(tie_word_embeddings=False)
    architecture = next(str(one) for one in config.entries("architectures"))
    family = next(one for one in _TEXT if architecture.startswith(one))
    found = _TEXT[family](config, text)
    vision = config.part("vision_config")
    if family == "Qwen2VL":
        return with_towers(found, [second(vision)])
    if family in ("Qwen2_5_VL", "OpenCUA"):
        return with_towers(found, [second_and_a_half(vision)])
    return with_towers(found, [third(vision, deep=family != "Qwen3_5")])
