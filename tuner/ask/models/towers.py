"""Encoders of images and sounds, as vLLM builds them: stacks of attention within an image and an MLP, with patches cut
before them and a projector behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Block, Mlp, MlpNames
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors

SIDE = 1024  # pixels of the image that is priced where a tower takes images as they are


@dataclass(frozen=True, slots=True)
class TowerNames:
    """What checkpoints call the matrices of a block: of its attention at ``attention``, of its MLP at ``mlp``."""

    attention: str
    mlp: str
    of_attention: ProjectionNames
    of_mlp: MlpNames


SIGLIP = TowerNames("self_attn", "mlp", ProjectionNames(output="out_proj"), MlpNames(up="fc1", down="fc2"))
"""Of SigLIP, CLIP, Whisper and those after them."""


def merged(name: str, output: str) -> ProjectionNames:
    """Of checkpoints that have queries, keys and values in one matrix."""
    return ProjectionNames(name, name, name, name, output)


def block(
    hidden: int,
    heads: int,
    inter: int,
    *,
    prefix: str,
    names: TowerNames = SIGLIP,
    head_dim: int | None = None,
    kv_heads: int | None = None,
    gated: bool = False,
    bias: bool = True,
    mlp_bias: bool | None = None,
    output_bias: bool | None = None,
    norms: int = 4,
    head_norms: int = 0,
    more: int = 0,
    chunk: int | None = None,
    whole: bool = False,
    extra: tuple[Matrix, ...] = (),
) -> Block:
    """One of a tower. ``norms``: vectors of norms (4: two with biases); ``head_norms``: elements of norms of queries
    and keys; ``more`` numbers beside; ``chunk``: rows that see each other, where that is not the image; ``whole``: the
    attention is on every rank."""
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads or heads,
        head_dim=head_dim or hidden // heads,
        chunk=chunk,
        bias=bias,
        output_bias=bias if output_bias is None else output_bias,
        norm_elements=head_norms,
        whole=whole,
        apart=whole,
        place=names.attention,
        names=names.of_attention,
    )
    mlp = Mlp(
        inter=inter, gated=gated, bias=bias if mlp_bias is None else mlp_bias, place=names.mlp, names=names.of_mlp
    )
    return Block(mixer=attention, mlp=mlp, norms=Vectors(whole=norms * hidden + more), prefix=prefix, extra=extra)


def linear(
    name: str, outputs: int, inputs: int, cut: Cut = Cut.NOTHING, *, bias: bool = True, plain: bool = False
) -> Matrix:
    """A matrix before or behind the blocks."""
    return Matrix(Layer.TOWER, (name,), outputs, inputs, cut, bias=bias, plain=plain)


def patch_embedding(name: str, hidden: int, inputs: int, *, bias: bool = True) -> Matrix:
    """A convolution without overlap of so many pixels (times channels): never quantised, on every rank."""
    return linear(name, hidden, inputs, bias=bias, plain=True)


def two_layers(
    first: str, second: str, inputs: int, middle: int, outputs: int, *, bias: bool = True, whole: bool = False
) -> tuple[Matrix, Matrix]:
    """A projector of two matrices, cut like an MLP unless it is ``whole`` on every rank."""
    cuts = (Cut.NOTHING, Cut.NOTHING) if whole else (Cut.OUTPUTS, Cut.INPUTS)
    return (
        linear(first, middle, inputs, cuts[0], bias=bias),
        linear(second, outputs, middle, cuts[1], bias=bias),
    )


def rows(image: int, patch: int, merge: int = 1) -> int:
    """Patches of a square image, whose sides are rounded to whole merged ones (``smart_resize``)."""
    return (max(round(image / (patch * merge)), 1) * merge) ** 2


def with_towers(found: Described, towers: Sequence[Tower], *not_priced: str) -> Described:
    """The language model with encoders beside it."""
    return replace(found, towers=(*found.towers, *towers), not_priced=(*found.not_priced, *not_priced))
