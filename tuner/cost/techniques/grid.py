"""Tensor parallelism on a grid: every weight matrix cut by rows and by columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.cost.techniques.base import Operations, Technique
from tuner.cost.volume import PassOperation
from tuner.errors import BadInput

_NORM_BYTES = 4  # a row's sum of squares, fp32


@dataclass(frozen=True, slots=True)
class GridParallel(Technique):
    """2D tensor parallelism: R × C ranks, of which the C of one row are neighbours; collectives run along one axis.

    The hidden state is cut over rows. A product that spreads it (QKV, gate and up) leaves partial sums over the R rows,
    one that gathers it (attention output, MLP output) over the C columns. Attention keeps its heads on single ranks:
    QKV is reduce-scattered over rows and the heads' outputs are gathered again, which moves what an all-reduce would.
    """

    name: ClassVar[str] = "tp2d"
    setting: ClassVar[str] = "tp2d=RxC with R rows and C columns from 1, such as tp2d=2x8"
    source: ClassVar[str] = "YALIS, Singhania et al., arXiv 2511.09557; the grid of AxoNN, arXiv 2305.13525"
    acts_on: ClassVar[str] = "layouts with tp = R·C"
    priced: ClassVar[str] = (
        "per layer and token: all-reduces of h/R over C twice and of 2·inter/C over R, reduce-scatter and all-gather "
        "of the heads over R, one fp32 per norm over R; products of h/R by columns/C"
    )
    exact: ClassVar[bool] = True
    outputs: ClassVar[str] = "outputs stay the same but for the order of a floating-point sum"
    missing: ClassVar[str] = "vLLM's linear layers are cut along one axis only"
    rows: int = 1
    columns: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise BadInput("--what-if", str(self), self.setting)

    def __str__(self) -> str:
        return f"tp2d={self.rows}x{self.columns}"

    def check(self, model: ModelShape, cluster: Cluster) -> None:
        """Dense models with plain attention whose widths the grid divides."""
        if model.experts or model.latent or model.recurrent:
            allowed = "a dense model with KV heads in every layer"
            raise BadInput("--what-if", str(self), f"{allowed}; not {model.name}")
        widths = {"hidden size": (model.hidden, self.rows), "MLP width": (model.inter, self.columns)}
        for name, (width, parts) in widths.items():
            if width % parts:
                raise BadInput("--what-if", str(self), f"a grid that divides the {name} of {width}")

    def grid(self, layout: ParallelLayout) -> tuple[int, int] | None:
        """Only the layouts of so many tensor-parallel ranks, without context parallelism."""
        fits = layout.tp == self.rows * self.columns and layout.dcp == layout.pcp == 1
        return (self.rows, self.columns) if fits else None

    def operations(self, model: ModelShape, layout: ParallelLayout, operations: Operations) -> Operations:
        """Every tensor-parallel message, along the axes of the grid."""
        if self.rows == 1 or self.grid(layout) is None:
            return operations
        found = [one for op in operations for one in (self._on_grid(model, op) if op.group == "tp" else (op,))]
        return tuple(op for op in found if op.ranks > 1)

    def _on_grid(self, model: ModelShape, op: PassOperation) -> Iterable[PassOperation]:
        over_rows = replace(op, group="tp-rows", ranks=self.rows)
        if op.where == "logits":  # the final hidden state is made whole, then the LM head works as ever
            yield op
            yield replace(over_rows, operation="allgather", columns=model.hidden, where="final hidden state")
        else:
            yield replace(op, group="tp-columns", ranks=self.columns, columns=model.hidden / self.rows)
        if op.where == "attention output":
            heads = max(1, model.heads // self.columns) * model.head_dim
            whole = heads + 2 * max(1, model.kv_heads // self.columns) * model.head_dim
            yield replace(over_rows, operation="reducescatter", columns=whole, where="QKV")
            yield replace(over_rows, operation="allgather", columns=heads, where="heads")
        if op.where == "MLP output":
            yield replace(over_rows, columns=2 * model.inter / self.columns, where="gate and up")
        if op.where in ("attention output", "MLP output", "logits"):
            yield replace(over_rows, operation="allreduce", columns=1, element_bytes=_NORM_BYTES, where="norm")
