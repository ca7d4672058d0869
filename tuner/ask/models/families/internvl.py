"""InternVL, InternS1 and those with their encoder (vLLM ``models/internvl.py``, ``intern_vit.py``, ``interns1.py``,
``interns1_vit.py``): four patches to a token, and a projector that is whole on every rank."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import TowerNames, block, merged, patch_embedding, two_layers, with_towers

OLDER = {  # of OpenGVLab's InternVisionConfig
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_attention_heads": 25,
    "num_hidden_layers": 48,
    "patch_size": 14,
    "image_size": 224,
    "norm_type": "rms_norm",
}
NEWER = {  # of InternVLVisionConfig of Transformers 5
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "image_size": 448,
    "norm_type": "layer_norm",
}
_PLAINLY = ("InternVLForConditionalGeneration", "InternS1ForConditionalGeneration")  # classes of Transformers
_NORMS = {"layer_norm": 2, "rms_norm": 1}  # vectors of one
_CHAT = TowerNames("attn", "mlp", merged("qkv", "proj"), MlpNames(up="fc1", down="fc2"))
_PLAIN = TowerNames("attention", "mlp", ProjectionNames(output="projection_layer"), MlpNames(up="fc1", down="fc2"))


def read(config: Config, text: Config) -> Described:
    """The price is of one tile; a larger image has several, and itself once more."""
    chat = str(next(iter(config.entries("architectures")))) not in _PLAINLY
    if not chat:  # as the class of the whole says
        config = config.having(tie_word_embeddings=True)
    found = language_model(config, text)
    vision = config.part("vision_config").having(**(OLDER if chat else NEWER))
    return with_towers(found, [_tower(config, vision, found.hidden, chat)])


def _square(vision: Config, key: str) -> int:
    """A number, or the same twice in a list."""
    value = vision.get(key)
    if isinstance(value, list | tuple):
        if len(set(vision.entries(key))) != 1:
            raise vision.refuse(key, "one number, or the same twice")
        return Config({key: value[0]}, vision.name, "vision_config.").need(key)
    return vision.need(key)


def _tower(config: Config, vision: Config, outputs: int, chat: bool) -> Tower:
    hidden, count = vision.need("hidden_size"), vision.need("num_hidden_layers")
    norm = vision.one_of("norm_type", _NORMS)
    normed = vision.flag("qk_normalization", True) if chat else vision.flag("use_qk_norm")
    bias = vision.flag("qkv_bias") if chat else vision.flag("attention_bias")
    one = block(
        hidden,
        vision.need("num_attention_heads"),
        vision.need("intermediate_size"),
        prefix="vision_model.encoder.layers" if chat else "vision_tower.encoder.layer",
        names=_CHAT if chat else _PLAIN,
        bias=bias,
        output_bias=True,
        mlp_bias=True,
        norms=2 * norm + 2,  # and a scale of each half
        head_norms=2 * hidden if normed else 0,
        whole=not chat,
    )
    image = config.count("force_image_size") or _square(vision, "image_size")
    patch, places = _square(vision, "patch_size"), (_square(vision, "image_size") // _square(vision, "patch_size")) ** 2
    ratio = config.share("downsample_ratio", 0.5)
    width, patches = hidden * int(1 / ratio) ** 2, (image // patch) ** 2
    chosen = config.whole("select_layer" if chat else "vision_feature_layer", count)
    built = chosen if chosen >= 0 else count + chosen + 1
    mean = chat or vision.flag("use_mean_pooling", True)
    own = hidden * (1 + places + 1) + (0 if mean else 2 * hidden) + (hidden if vision.flag("use_mask_token") else 0)
    names = ("mlp1.1", "mlp1.3") if chat else ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2")
    at = "vision_model.embeddings.patch_embedding" if chat else "vision_tower.embeddings.patch_embeddings.projection"
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * built,
        around=(
            patch_embedding(at, hidden, 3 * patch**2),
            *two_layers(*names, width, outputs, outputs, whole=True),
        ),
        vectors=Vectors(whole=own + 2 * width),
        patches=patches + 1,
        tokens=round(patches * ratio**2),
        image=image,
    )
