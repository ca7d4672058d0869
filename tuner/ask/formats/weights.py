"""How weights are stored, apart from which kernel multiplies them: bits, and the scales and zero points beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum


class Scheme(StrEnum):
    """Whose rules hold where a matrix is cut: the quantization class of vLLM that creates its parameters."""

    PLAIN = "unquantised"
    SCALED = "a scale per tensor or output"  # nothing is shared along the inputs: cut anywhere
    AWQ = "AWQ"
    GPTQ = "GPTQ"
    PACKED = "compressed-tensors"  # integers of 4 or 8 bits in 32-bit words
    BLOCK = "block fp8"
    BLOCK_COMPRESSED = "block fp8 of compressed-tensors"
    BLOCK_MODELOPT = "block fp8 of ModelOpt"
    NVFP4 = "NVFP4"
    MXFP4 = "MXFP4"
    MXFP8 = "MXFP8"


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """One way to store a matrix.

    ``kind`` names the kernel that multiplies it (``tuner.cost.compute.kinds``), ``scheme`` whose shard rules hold.
    Each weight takes ``bits``; the weights of a ``block`` of so many outputs × inputs (0: all of them) share a scale of
    ``scale_bytes`` and a zero point of ``zero_bits``; ``index_bytes`` are kept per input (GPTQ's group index).
    ``act_order``: groups follow the order of activations, so the scales of all groups are on every rank. One number per
    matrix and scales of activations are left out where there are blocks beside them.
    """

    kind: str
    scheme: Scheme = Scheme.PLAIN
    bits: int = 16
    block: tuple[int, int] = (0, 0)
    scale_bytes: int = 0
    zero_bits: int = 0
    index_bytes: int = 0
    act_order: bool = False

    @property
    def group(self) -> int:
        """Inputs that share a scale; 0: all of them."""
        return self.block[1]

    def bytes(self, outputs: int, inputs: int) -> float:
        """Stored bytes of a matrix of ``outputs`` × ``inputs`` weights."""
        rows = -(-outputs // self.block[0]) if self.block[0] else 1
        columns = -(-inputs // self.block[1]) if self.block[1] else 1
        shared = rows * columns * (self.scale_bytes + self.zero_bits / 8)
        return outputs * inputs * self.bits / 8 + shared + inputs * self.index_bytes


PLAIN = {"bf16": WeightFormat("bf16"), "fp32": WeightFormat("fp32", bits=32)}  # by compute precision

# What a precision alone stands for, where no checkpoint says more: the groups that its published checkpoints have.
USUAL: Mapping[str, WeightFormat] = {
    **PLAIN,
    "fp8": WeightFormat("fp8", Scheme.SCALED, 8),
    "fp8_block": WeightFormat("fp8_block", Scheme.BLOCK, 8, (128, 128), 4),
    "int8": WeightFormat("int8", Scheme.SCALED, 8),
    "int4": WeightFormat("int4", Scheme.PACKED, 4, (1, 32), 2),
    "mxfp4": WeightFormat("mxfp4", Scheme.MXFP4, 4, (1, 32), 1),  # 8-bit scales: OCP MX specification
    "mxfp4_fp8": WeightFormat("mxfp4_fp8", Scheme.MXFP4, 4, (1, 32), 1),
    "nvfp4": WeightFormat("nvfp4", Scheme.NVFP4, 4, (1, 16), 1),
}


@dataclass(frozen=True, slots=True)
class Storage:
    """One kind of layer: its formats, each with its share of the kind's weights, the largest first; ``places``: which
    matrices, by their names inside a block, are in which of them in some layer, where not all are in every one."""

    parts: tuple[tuple[WeightFormat, float], ...]
    places: frozenset[tuple[tuple[str, ...], WeightFormat]] = frozenset()

    @classmethod
    def of(cls, one: WeightFormat) -> Storage:
        """All layers alike."""
        return cls(((one, 1.0),))

    @property
    def main(self) -> WeightFormat:
        """The format of most weights, by which the kind of layer is priced."""
        return self.parts[0][0]

    @property
    def formats(self) -> tuple[WeightFormat, ...]:
        """All formats, that of most weights first."""
        return tuple(one for one, _ in self.parts)

    def has(self, names: tuple[str, ...], one: WeightFormat) -> bool:
        """Whether the matrix of these names is in that format in some layer."""
        return not self.places or (names, one) in self.places

    def bytes(self, outputs: int, inputs: int) -> float:
        """Stored bytes of a matrix of ``outputs`` × ``inputs``, the mean over the layers of this kind."""
        return sum(share * one.bytes(outputs, inputs) for one, share in self.parts)


_BF16 = Storage.of(PLAIN["bf16"])


@dataclass(frozen=True, slots=True)
class Weights:
    """How a model's weights are stored, by kind of layer; norms and routers are as ``plain`` says."""

    attention: Storage = _BF16
    linear: Storage = _BF16
    dense: Storage = _BF16
    shared: Storage = _BF16
    experts: Storage = _BF16
    head: Storage = _BF16
    embedding: Storage = _BF16
    tower: Storage = _BF16
    plain: WeightFormat = PLAIN["bf16"]

    @property
    def grouped(self) -> bool:
        """True where weights share scales along their inputs, so that they cannot be cut anywhere."""
        kinds = (self.attention, self.linear, self.dense, self.shared, self.experts, self.head)
        return any(one.scheme not in (Scheme.PLAIN, Scheme.SCALED) for kind in kinds for one in kind.formats)

    def having(self, kinds: Mapping[str, Storage]) -> Weights:
        """The same with other storage of some kinds of layers, by their names."""
        stored = {field.name: kinds.get(field.name, getattr(self, field.name)) for field in fields(self)}
        return Weights(**stored)

    @classmethod
    def plainly(cls, precision: str) -> Weights:
        """Nothing quantised: everything in ``bf16`` (or float16, which is as wide) or ``fp32``."""
        one = Storage.of(PLAIN[precision])
        kinds = {field.name: one for field in fields(cls) if field.name != "plain"}
        return cls(**kinds, plain=PLAIN[precision])


ALL_BF16 = Weights()
