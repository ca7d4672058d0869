"""Llama 4 with images (vLLM ``models/mllama4.py``): an encoder whose patches are shuffled into fewer, wider ones."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import llama4
from tuner.ask.models.matrices import Cut, Vectors
from tuner.ask.models.towers import TowerNames, block, linear, two_layers, with_towers

DEFAULTS = {  # of Llama4VisionConfig of Transformers 5
    "hidden_size": 768,
    "num_hidden_layers": 34,
    "num_attention_heads": 16,
    "num_channels": 3,
    "intermediate_size": 5632,
    "vision_output_dim": 7680,
    "image_size": 448,
    "patch_size": 14,
    "projector_input_dim": 4096,
    "projector_output_dim": 4096,
}
_NAMES = TowerNames("self_attn", "mlp", ProjectionNames(), MlpNames(up="fc1", down="fc2"))


def read(config: Config, text: Config) -> Described:
    """The price is of one tile; a larger image has several."""
    found = llama4.read(config, text)
    return with_towers(found, [_tower(config.part("vision_config").having(**DEFAULTS), found.hidden)])


def _tower(vision: Config, outputs: int) -> Tower:
    hidden, inter, patch = vision.need("hidden_size"), vision.need("intermediate_size"), vision.need("patch_size")
    one = block(hidden, vision.need("num_attention_heads"), inter, prefix="vision_model.model.layers", names=_NAMES)
    side, at = vision.need("image_size"), "vision_model.vision_adapter.mlp"
    middle, out = vision.need("projector_input_dim"), vision.need("projector_output_dim")
    patches, bias = (side // patch) ** 2, vision.flag("multi_modal_projector_bias")
    wide = vision.need("num_channels") * patch**2
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * vision.need("num_hidden_layers"),
        around=(
            linear("vision_model.patch_embedding.linear", hidden, wide, Cut.OUTPUTS, bias=False),
            *two_layers(f"{at}.fc1", f"{at}.fc2", inter, middle, out, bias=bias),
            linear(
                "multi_modal_projector.linear_1", outputs, vision.need("vision_output_dim"), Cut.OUTPUTS, bias=False
            ),
        ),
        vectors=Vectors(whole=(patches + 1 + 1 + 4) * hidden),  # positions, class, two norms
        patches=patches + 1,
        tokens=round(patches * vision.share("pixel_shuffle_ratio", 0.5) ** 2),
        image=side,
    )
