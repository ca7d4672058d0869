"""The matrices of a model's layers: their sizes, what they are called in checkpoints, and how tensor parallelism cuts
them (``QKVParallelLinear``, ``MergedColumnParallelLinear`` and ``RowParallelLinear`` of vLLM 0.29)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.ask.model import ModelShape


class Layer(StrEnum):
    """Kinds of layers; the names of the fields of ``Weights``."""

    ATTENTION = "attention"
    DENSE = "dense"
    SHARED = "shared"
    EXPERTS = "experts"
    HEAD = "head"
    EMBEDDING = "embedding"


_MLP = (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2"))


class Cut(StrEnum):
    """What tensor-parallel ranks divide among themselves."""

    OUTPUTS = "outputs"
    INPUTS = "inputs"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Projection:
    """One matrix [``outputs``, ``inputs``] of a layer, whole.

    ``names`` are its own (``q_proj``, ``qkv_proj``), as checkpoints and vLLM spell it. ``fused`` names the matrix that
    vLLM merges it into, in the order of the list. Of more than ``most`` ranks several have the same part.
    """

    layer: Layer
    names: tuple[str, ...]
    outputs: int
    inputs: int
    cut: Cut
    fused: str | None = None
    most: int | None = None

    def parts(self, ranks: int) -> int:
        """Into how many parts so many ranks cut it."""
        if self.cut is Cut.NOTHING:
            return 1
        return ranks if self.most is None else min(ranks, self.most)

    def shard(self, ranks: int) -> tuple[int, int]:
        """Outputs and inputs of a rank, rounded down."""
        outputs = self.outputs // self.parts(ranks) if self.cut is Cut.OUTPUTS else self.outputs
        inputs = self.inputs // ranks if self.cut is Cut.INPUTS else self.inputs
        return outputs, inputs


def attention(model: ModelShape) -> Sequence[Projection]:
    """Projections of one attention layer."""
    hidden, kind = model.hidden, Layer.ATTENTION
    if (lat := model.latent) is None:
        query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
        qkv = [("q_proj", query, None), ("k_proj", key, model.kv_heads), ("v_proj", key, model.kv_heads)]
        merged = [
            Projection(kind, (name, "qkv_proj"), outputs, hidden, Cut.OUTPUTS, "qkv_proj", most)
            for name, outputs, most in qkv
        ]
        return [*merged, Projection(kind, ("o_proj",), hidden, query, Cut.INPUTS)]
    up, compressed = model.heads * (lat.qk_nope + lat.qk_rope), lat.kv_rank + lat.qk_rope
    kv_a = ("kv_a_proj_with_mqa", "fused_qkv_a_proj")
    found = [Projection(kind, ("q_proj",), up, hidden, Cut.OUTPUTS)]
    if lat.q_rank:
        names = ("q_a_proj", "fused_qkv_a_proj")
        found = [
            Projection(kind, names, lat.q_rank, hidden, Cut.NOTHING, "fused_qkv_a_proj"),
            Projection(kind, ("q_b_proj",), up, lat.q_rank, Cut.OUTPUTS),
        ]
    fused, down = "fused_qkv_a_proj" if lat.q_rank else None, model.heads * (lat.qk_nope + lat.v_head)
    return [
        *found,
        Projection(kind, kv_a, compressed, hidden, Cut.NOTHING, fused),
        Projection(kind, ("kv_b_proj",), down, lat.kv_rank, Cut.OUTPUTS),
        Projection(kind, ("o_proj",), hidden, model.heads * lat.v_head, Cut.INPUTS),
    ]


def mlp(layer: Layer, hidden: int, width: int) -> Sequence[Projection]:
    """Gate, up and down projection of a dense MLP, of the shared experts or of one routed expert."""
    routed = layer is Layer.EXPERTS
    gate, up, down = (((name, short) if routed else (name,)) for name, short in _MLP)
    return (
        Projection(layer, (*gate, "gate_up_proj"), width, hidden, Cut.OUTPUTS, "gate_up_proj"),
        Projection(layer, (*up, "gate_up_proj"), width, hidden, Cut.OUTPUTS, "gate_up_proj"),
        Projection(layer, down, hidden, width, Cut.INPUTS),
    )


def head(model: ModelShape) -> Projection:
    """The LM head, or with the same sizes the embedding, as vLLM pads it."""
    return Projection(Layer.HEAD, ("lm_head",), model.padded_vocab, model.hidden, Cut.OUTPUTS)
