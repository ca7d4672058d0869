"""DeepSeek-V4 (vLLM ``models/deepseek_v4/``): compressed sparse attention, a residual of several streams."""

from __future__ import annotations

from tuner.ask.models.blocks import Block
from tuner.ask.models.compressed import CHOSEN, WHOLE, CompressedAttention, CompressedIndexer
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder
from tuner.ask.models.described import Described
from tuner.ask.models.families.deepseek import mixture
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors

DEFAULTS = {"max_position_embeddings": 1048576}  # of vLLM's DeepseekV4Config

_EXPERTS = {"fp4": "mxfp4", "fp8": "fp8_block"}  # of ``expert_dtype`` (``quant_config.py``)


def read(config: Config, text: Config) -> Described:
    """Every layer has a mixture; the first few route by a table of token ids instead of biases."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    ratios, count = text.entries("compress_ratios"), text.need("num_hidden_layers")
    if len(ratios) < count or any(one not in (0, 1, CHOSEN, WHOLE) for one in ratios):
        raise text.refuse("compress_ratios", f"at least {count} of 0, {CHOSEN} and {WHOLE}")
    layers = [_layer(text, number, max(1, ratio)) for number, ratio in enumerate(ratios[:count])]
    hidden, streams = text.need("hidden_size"), text.need("hc_mult")
    head = Matrix(Layer.DENSE, ("hc_head_fn",), streams, streams * hidden, Cut.NOTHING, plain=True)
    return decoder(
        config,
        text,
        layers,
        own_head=True,
        pipeline_tensors=streams,
        outside=(head,),
        vectors=Vectors(whole=hidden + streams + 1),
        embedding_names=("model.embed_tokens", "embed"),
        head_names=("lm_head", "head"),
        fixed_formats=_experts_in(text),
    )


def _experts_in(text: Config) -> tuple[tuple[Layer, str], ...]:
    """The format of routed experts where the file has it; else they are as all others are."""
    return ((Layer.EXPERTS, text.one_of("expert_dtype", _EXPERTS)),) if text.has("expert_dtype") else ()


def _layer(text: Config, number: int, ratio: int) -> Block:
    hidden, streams = text.need("hidden_size"), text.need("hc_mult")
    mixes = (2 + streams) * streams  # of all streams into one and back, and among themselves
    hyper = tuple(
        Matrix(Layer.DENSE, (name,), mixes, streams * hidden, Cut.NOTHING, plain=True)
        for name in ("hc_attn_fn", "hc_ffn_fn")
    )
    table, routed = 0, text
    if number < text.count("num_hash_layers"):
        table = text.need("vocab_size") * text.need("num_experts_per_tok")
        routed = Config({**text.values, "topk_method": "hash"}, text.name)
    return Block(
        mixer=_attention(text, ratio),
        experts=mixture(routed, "ffn"),
        norms=Vectors(whole=2 * hidden + 2 * mixes + 6 + table),
        streams=streams,
        extra=hyper,
    )


def _attention(text: Config, ratio: int) -> CompressedAttention:
    indexer = CompressedIndexer(text.need("index_n_heads"), text.need("index_head_dim"), text.need("index_topk"))
    return CompressedAttention(
        heads=text.need("num_attention_heads"),
        head_dim=text.need("head_dim"),
        rope=text.need("qk_rope_head_dim"),
        q_rank=text.need("q_lora_rank"),
        groups=text.need("o_groups"),
        out_rank=text.need("o_lora_rank"),
        window=text.need("sliding_window"),
        ratio=ratio,
        indexer=indexer if ratio == CHOSEN else None,
    )
