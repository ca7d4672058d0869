"""OPT and Galactica: learned positions, biases, an ungated MLP (vLLM ``models/opt.py``, OPTConfig of Transformers
5)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors

DEFAULTS = {
    "vocab_size": 50272,
    "hidden_size": 768,
    "ffn_dim": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 2048,
}
OFFSET = 2  # positions more than the file says


def read(config: Config, text: Config) -> Described:
    """The embedding may be narrower than the layers, with a projection in and one out."""
    text = text.having(**DEFAULTS)
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    narrow, bias = text.count("word_embed_proj_dim") or hidden, text.flag("enable_bias", True)
    norm = 2 if text.flag("layer_norm_elementwise_affine", True) else 0
    last = text.flag("do_layer_norm_before", True) and not text.flag("_remove_final_layer_norm")
    names = ("model.decoder.project_in", "model.decoder.project_out")
    around = (
        Matrix(Layer.EMBEDDING, names[:1], hidden, narrow, Cut.NOTHING),
        Matrix(Layer.EMBEDDING, names[1:], narrow, hidden, Cut.NOTHING),
    )
    positions = (text.need("max_position_embeddings") + OFFSET) * hidden
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        bias=bias,
        output_bias=bias,
        names=ProjectionNames(output="out_proj"),
    )
    mlp = Mlp(inter=text.need("ffn_dim"), gated=False, bias=bias, place="", names=MlpNames(up="fc1", down="fc2"))
    return uniform(
        config,
        text,
        attention,
        mlp,
        norms=2 * norm,
        prefix="model.decoder.layers",
        tied=True,
        vectors=Vectors(whole=positions + (norm * hidden if last else 0)),
        outside=() if narrow == hidden else around,
        embedding_width=None if narrow == hidden else narrow,
        embedding_names=("model.decoder.embed_tokens",),
        pipeline_tensors=1,
    )
