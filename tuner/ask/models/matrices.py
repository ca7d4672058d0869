"""Matrices and vectors of a model's blocks: sizes, names in checkpoints, and how tensor parallelism cuts them
(``QKVParallelLinear``, ``MergedColumnParallelLinear``, ``RowParallelLinear``, ``ReplicatedLinear`` of vLLM 0.29)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Layer(StrEnum):
    """Kinds of layers that checkpoints store alike; the names of the fields of ``Weights``."""

    ATTENTION = "attention"
    LINEAR = "linear"  # linear attention, state spaces and short convolutions
    DENSE = "dense"
    SHARED = "shared"
    EXPERTS = "experts"
    HEAD = "head"
    EMBEDDING = "embedding"
    TOWER = "tower"  # vision and audio


class Cut(StrEnum):
    """What tensor-parallel ranks divide among themselves."""

    OUTPUTS = "outputs"
    INPUTS = "inputs"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix [``outputs``, ``inputs``] of a block, whole.

    ``names`` are its own inside the block (``self_attn.q_proj``, ``self_attn.qkv_proj``), as checkpoints and vLLM spell
    it. ``fused`` names the matrix that vLLM merges it into, in the order of the list. Of more than ``most`` ranks
    several have the same part. ``bias``: a number per output beside it (of inputs that are cut: on every rank).
    ``plain``: the engine never quantises it. ``recut``: it widens each rank's part and quantises that anew, so that no
    group is cut. ``copies``: of so many sequences of heads, each multiplied by itself
    (block-diagonal), 1 for an ordinary matrix.
    """

    layer: Layer
    names: tuple[str, ...]
    outputs: int
    inputs: int
    cut: Cut
    fused: str | None = None
    most: int | None = None
    bias: bool = False
    plain: bool = False
    copies: int = 1
    recut: bool = False

    @property
    def weights(self) -> int:
        """Elements of the whole matrix, without its bias."""
        return self.copies * self.outputs * self.inputs

    def parts(self, ranks: int) -> int:
        """Into how many parts so many ranks cut it."""
        if self.cut is Cut.NOTHING:
            return 1
        return ranks if self.most is None else min(ranks, self.most)

    def shard(self, ranks: int) -> tuple[int, int]:
        """Outputs and inputs of a rank, rounded down."""
        outputs = self.outputs // self.parts(ranks) if self.cut is Cut.OUTPUTS else self.outputs
        inputs = self.inputs // self.parts(ranks) if self.cut is Cut.INPUTS else self.inputs
        return outputs, inputs

    def biases(self, ranks: int) -> int:
        """Elements of a rank's bias."""
        if not self.bias:
            return 0
        return self.outputs // self.parts(ranks) if self.cut is Cut.OUTPUTS else self.outputs


@dataclass(frozen=True, slots=True)
class Vectors:
    """Elements that belong to no matrix (norms, convolutions, decay rates, positions): ``split`` are divided by the
    tensor-parallel ranks, ``whole`` are on every one."""

    whole: int = 0
    split: int = 0

    def on_rank(self, ranks: int) -> float:
        """Elements of one rank."""
        return self.whole + self.split / ranks

    def __add__(self, other: Vectors) -> Vectors:
        return Vectors(self.whole + other.whole, self.split + other.split)


NO_VECTORS = Vectors()


def stored_elements(matrices: Iterable[Matrix], ranks: int = 1) -> float:
    """Elements of one rank of so many, biases included."""
    return sum(one.weights / one.parts(ranks) + one.biases(ranks) for one in matrices)


def merged(matrices: Iterable[Matrix]) -> tuple[tuple[Matrix, ...], ...]:
    """In groups that the engine multiplies by as one."""
    found: dict[object, list[Matrix]] = {}
    for one in matrices:
        found.setdefault((one.layer, one.fused or one.names), []).append(one)
    return tuple(tuple(group) for group in found.values())
