"""MiniCPM-V 2.5 to 4.5 (vLLM ``models/minicpmv.py``): SigLIP, and queries that read some 64 tokens from its patches."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.ask.models.clip import SIGLIP, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Reader
from tuner.ask.models.families import llama, qwen2, qwen3
from tuner.ask.models.towers import linear, with_towers

VISION = {  # of SigLIP as its files have it
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 980,
    "patch_size": 14,
}
SLICE = 448  # pixels of a piece of an image
_TEXT: Mapping[str, Reader] = {
    "": llama.read,
    "2.5": llama.read,
    "2.6": qwen2.read,
    "4.0": llama.read,
    "4": llama.read,
    "4.5": qwen3.read,
}


def read(config: Config, text: Config) -> Described:
    """Which language model there is follows from the version; 2.0 has another encoder. The price is of one slice."""
    version = config.get("version")
    reader = _TEXT.get("" if version is None else str(version))
    if reader is None or (version is None and config.need("hidden_size") == 2304):
        raise config.refuse("version", "2.5, 2.6, 4.0 or 4.5")
    found = reader(config, text)
    vision = config.part("vision_config").filled(**VISION)
    out, width, at = found.hidden, vision.need("hidden_size"), "resampler"
    queries, patch = config.count("query_num") or 64, vision.need("patch_size")
    resampler = (
        linear(f"{at}.kv_proj", out, width, bias=False),
        linear(f"{at}.attn.in_proj", 3 * out, out, plain=True),
        linear(f"{at}.attn.out_proj", out, out, plain=True),
        linear(f"{at}.proj", out, out, bias=False, plain=True),
    )
    count = vision.need("num_hidden_layers") - config.flag("drop_vision_last_layer", True)
    seen = tower(
        vision,
        SIGLIP,
        layers=count,
        last_norm=True,
        prefix="vpm",
        projector=resampler,
        vectors=(queries + 6) * out,  # and three norms
        tokens=queries,
        image=SLICE,
        rows_seen=(SLICE // patch) ** 2,
    )
    return with_towers(found, [seen])
