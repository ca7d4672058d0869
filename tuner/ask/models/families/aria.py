"""Aria (vLLM ``models/aria.py``): a mixture in every layer behind SigLIP, and queries that read from its patches."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts
from tuner.ask.models.clip import SIGLIP, tower
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.families.idefics3 import IDEFICS
from tuner.ask.models.matrices import Cut
from tuner.ask.models.towers import linear, with_towers

TEXT = {  # of AriaTextConfig of Transformers 5
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "moe_num_experts": 8,
    "moe_topk": 2,
    "moe_num_shared_experts": 2,
}
QUERIES = {"1225": 128, "4900": 256}  # by patches


def read(config: Config, text: Config) -> Described:
    """An image of the encoder's own size has as many queries as its patches get."""
    text = text.having(**TEXT)
    text.only("hidden_act", *SILU)
    text.only("mlp_bias", False)
    text.only("attention_bias", False)
    inter, norms = text.need("intermediate_size"), two_norms(text.need("hidden_size"))
    experts = Experts(
        count=text.need("moe_num_experts"),
        topk=text.need("moe_topk"),
        inter=inter,
        shared_inter=inter * text.need("moe_num_shared_experts"),
    )
    layer = Block(mixer=grouped_attention(text), experts=experts, norms=norms)
    found = decoder(config, text, [layer] * text.need("num_hidden_layers"), own_head=True)
    vision = config.part("vision_config").filled(**IDEFICS)
    queries = config.part("projector_patch_to_query_dict").values or QUERIES
    width, out, at = vision.need("hidden_size"), found.hidden, "multi_modal_projector"
    patches = (vision.need("image_size") // vision.need("patch_size")) ** 2
    most = max(int(one) for one in queries.values())
    projector = (
        *(linear(f"{at}.cross_attn.{one}_proj", width, width, bias=False) for one in "qkv"),
        linear(f"{at}.cross_attn.multihead_attn.in_proj", 3 * width, width, plain=True),
        linear(f"{at}.cross_attn.multihead_attn.out_proj", width, width, plain=True),
        linear(f"{at}.cross_attn.linear", width, width),
        linear(f"{at}.feed_forward.linear_in", out, width, Cut.OUTPUTS, bias=False),
        linear(f"{at}.feed_forward.linear_out", out, out, Cut.INPUTS, bias=False),
    )
    seen = tower(
        vision,
        SIGLIP,
        last_norm=False,
        projector=projector,
        vectors=(most + 6) * width,  # three norms
        tokens=int(queries.get(str(patches), most)),
    )
    return with_towers(found, [seen])
