"""LongCat-Flash (vLLM ``models/longcat_flash.py``): two latent attentions and two MLPs a layer, a mixture beside the
first MLP, some of whose experts only pass on what they get."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.families.deepseek import latent
from tuner.ask.models.keys import number
from tuner.ask.models.matrices import Vectors

DEFAULTS = {  # of LongcatFlashConfig
    "vocab_size": 131072,
    "hidden_size": 6144,
    "num_layers": 28,
    "num_attention_heads": 64,
    "max_position_embeddings": 131072,
    "ffn_hidden_size": 12288,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_topk": 12,
    "n_routed_experts": 512,
    "expert_ffn_hidden_size": 2048,
}


def read(config: Config, text: Config) -> Described:
    """A layer of the file is two blocks here."""
    text = text.having(**DEFAULTS)
    text.only("zero_expert_type", "identity")
    text.only("router_bias", False)
    zero = number(text, "zero_expert_num", 256)
    experts = Experts(
        count=text.need("n_routed_experts"),
        topk=text.need("moe_topk", "num_experts_per_tok"),
        inter=text.need("moe_intermediate_size", "expert_ffn_hidden_size"),
        router_bias=True,
        zero_experts=zero,
    )
    hidden, attention = text.need("hidden_size"), latent(text, 0)
    dense = Mlp(inter=text.need("ffn_hidden_size", "intermediate_size"), place="mlps")
    first = Block(mixer=attention, mlp=dense, experts=experts, norms=two_norms(hidden) + Vectors(whole=zero))
    second = Block(mixer=attention, mlp=dense, norms=two_norms(hidden))
    return decoder(config, text, [first, second] * _pairs(text), own_head=True)


def _pairs(text: Config) -> int:
    """Transformers' class takes ``num_hidden_layers`` for twice the layers."""
    if text.has("num_hidden_layers"):
        return max(1, text.need("num_hidden_layers") // 2)
    return text.need("num_layers")
