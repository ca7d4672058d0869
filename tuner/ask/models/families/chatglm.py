"""ChatGLM 2 and 3, and GLM-4 in its own format (vLLM ``models/chatglm.py``, ``configs/chatglm.py``)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors

DEFAULTS = {
    "padded_vocab_size": 65024,
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "num_layers": 28,
    "num_attention_heads": 32,
    "seq_length": 2048,
}


def read(config: Config, text: Config) -> Described:
    """Heads divide the width, whatever ``kv_channels`` says. Norms with a bias where they are no RMS norms."""
    if text.has("vision_config"):
        raise text.refuse("vision_config", "no vision: the class refuses it")
    text = text.having(**DEFAULTS)
    text = text.renamed(num_hidden_layers="num_layers", vocab_size="padded_vocab_size").having(
        max_position_embeddings=text.need("seq_length")
    )
    hidden, heads, every = text.need("hidden_size"), text.need("num_attention_heads"), text.flag("add_bias_linear")
    attention = Attention(
        heads=heads,
        kv_heads=text.count("multi_query_group_num") or 1 if text.flag("multi_query_attention") else heads,
        head_dim=hidden // heads,
        bias=every or text.flag("add_qkv_bias"),
        output_bias=every,
        place="self_attention",
        names=ProjectionNames(merged="query_key_value", output="dense"),
    )
    names = MlpNames(gate="dense_h_to_4h", up="dense_h_to_4h", merged="dense_h_to_4h", down="dense_4h_to_h")
    norm = 1 if text.flag("rmsnorm", True) else 2
    return uniform(
        config,
        text,
        attention,
        Mlp(inter=text.need("ffn_hidden_size"), bias=every, names=names),
        norms=2 * norm,
        prefix="transformer.encoder.layers",
        vocab=text.need("padded_vocab_size"),
        vectors=Vectors(whole=norm * hidden if text.flag("post_layer_norm", True) else 0),
        embedding_names=("transformer.embedding", "transformer.embedding.word_embeddings"),
        head_names=("transformer.output_layer",),
        pipeline_tensors=1,
    )
