"""gpt-oss (vLLM ``models/gpt_oss.py``): windows in every second layer, sinks, biases everywhere."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.positions import FULL, SLIDING, every

YARN = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}
DEFAULTS = {  # of GptOssConfig
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2880,
    "sliding_window": 128,
    "max_position_embeddings": 131072,
}


def read(config: Config, text: Config) -> Described:
    """Even layers see a window, odd ones all tokens."""
    text = text.having(**DEFAULTS)
    if not text.has("rope_scaling"):
        text = text.having(rope_parameters=YARN)
    count = text.need("num_hidden_layers")
    kinds = every(count, 2)
    if list(text.entries("layer_types") or kinds) != kinds:
        raise text.refuse("layer_types", f"{SLIDING} and {FULL} in turns")
    experts = Experts(
        count=text.need("num_local_experts"),
        topk=text.need("num_experts_per_tok", "experts_per_token"),
        inter=text.need("intermediate_size"),
        bias=True,
        router_bias=True,
    )
    norms, window = two_norms(text.need("hidden_size")), text.count("sliding_window") or None
    pair = [
        Block(
            mixer=grouped_attention(text, window=seen, bias=True, output_bias=True, sinks=True, repeats=False),
            experts=experts,
            norms=norms,
        )
        for seen in (window, None)
    ]
    return decoder(config, text, [pair[n % 2] for n in range(count)], own_head=True)
