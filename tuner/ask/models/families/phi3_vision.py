"""Phi-3 and Phi-3.5 with images (vLLM ``models/phi3v.py``): CLIP without its last layer, four patches to a token."""

from __future__ import annotations

from dataclasses import replace

from tuner.ask.models.clip import CLIP, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families import phi3
from tuner.ask.models.matrices import Cut, Layer, Matrix
from tuner.ask.models.towers import two_layers, with_towers
from tuner.ask.models.vocabulary import padded

LARGE = {  # of openai/clip-vit-large-patch14-336, whatever the file says
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
READ = -2  # the layer whose output is taken, unless the file names another
CROPS = 2  # of an image of the encoder's own size: itself, and the whole again
LINES = 12  # of tokens in a crop, each ended by one more


def read(config: Config, text: Config) -> Described:
    """An image of the encoder's own size is seen twice, a separator between. The engine has two embeddings."""
    found = phi3.read(config, text)
    again = Matrix(Layer.EMBEDDING, found.embedding_names, padded(found.vocab), found.hidden, Cut.OUTPUTS)
    found = replace(found, outside=(*found.outside, again))
    image = config.part("img_processor")
    config.part("embd_layer").only("use_hd_transform", True)
    width = 4 * (image.count("image_dim_out") or LARGE["hidden_size"])
    tokens = image.count("num_img_tokens") or LINES**2
    layers = LARGE["num_hidden_layers"] + 1 + image.whole("layer_idx", READ)
    at = "model.vision_embed_tokens"
    seen = tower(
        Config(LARGE, config.name, "img_processor."),
        CLIP,
        layers=layers,
        prefix=f"{at}.img_processor",
        projector=two_layers(
            f"{at}.img_projection.0", f"{at}.img_projection.2", width, found.hidden, found.hidden, whole=True
        ),
        vectors=2 * width,
        tokens=CROPS * (tokens + LINES) + 1,
        crops=CROPS,
    )
    return with_towers(found, [seen])
