"""Mamba, FalconMamba and Mamba-2 (vLLM ``models/mamba.py``, ``mamba2.py``): no attention, no MLP."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mixer
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder
from tuner.ask.models.described import Described
from tuner.ask.models.keys import called
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.recurrent import Mamba1, Mamba2

_FIRST = {  # of MambaConfig and FalconMambaConfig
    "vocab_size": 50280,
    "hidden_size": 768,
    "num_hidden_layers": 32,
    "state_size": 16,
    "conv_kernel": 4,
    "expand": 2,
    "tie_word_embeddings": True,
}
_SECOND = {  # of Mamba2Config
    "vocab_size": 32768,
    "hidden_size": 4096,
    "num_hidden_layers": 64,
    "state_size": 128,
    "conv_kernel": 4,
    "expand": 2,
    "num_heads": 128,
    "head_dim": 64,
    "n_groups": 8,
    "chunk_size": 256,
}


def read(config: Config, text: Config) -> Described:
    """All layers are alike; positions are not counted, so the length is what the engine takes of such models."""
    second = "mamba2" in called(config, text)
    text = text.having(**(_SECOND if second else _FIRST))
    hidden = text.need("hidden_size")
    mixer: Mixer = _second(text) if second else _first(text)
    layer = Block(mixer=mixer, norms=Vectors(whole=hidden), prefix="backbone.layers")
    layers = [layer] * text.need("num_hidden_layers")
    return decoder(text, text, layers, embedding_names=("backbone.embeddings",))


def _first(text: Config) -> Mixer:
    hidden, rank = text.need("hidden_size"), text.get("time_step_rank")
    return Mamba1(
        inner=text.count("intermediate_size") or text.need("expand") * hidden,
        state_size=text.need("state_size"),
        conv=text.need("conv_kernel"),
        time_rank=-(-hidden // 16) if rank in (None, "auto") else text.need("time_step_rank"),
        conv_bias=text.flag("use_conv_bias", True),
        bias=text.flag("use_bias"),
    )


def _second(text: Config) -> Mixer:
    heads, dim = text.need("num_heads"), text.need("head_dim")
    if heads * dim != text.need("expand") * text.need("hidden_size"):
        raise text.refuse("head_dim", "expand * hidden_size / num_heads")
    return Mamba2(
        heads=heads,
        head_dim=dim,
        groups=text.need("n_groups"),
        state_size=text.need("state_size"),
        conv=text.need("conv_kernel"),
        chunk=text.need("chunk_size"),
        conv_bias=text.flag("use_conv_bias", True),
        bias=text.flag("use_bias"),
    )
