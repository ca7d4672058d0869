"""Bytes of the weights that a rank holds, as the checkpoint stores them, by format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tuner.ask.formats.weights import Storage
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.blocks import Block
from tuner.ask.models.described import Tower
from tuner.ask.models.matrices import Matrix
from tuner.cost.stages import stage_blocks


def weight_bytes(model: ModelShape, layout: ParallelLayout, stage: int) -> float:
    """Weights of one rank of a stage; see ``weight_bytes_by_format``."""
    return sum(weight_bytes_by_format(model, layout, stage).values())


def weight_bytes_by_format(model: ModelShape, layout: ParallelLayout, stage: int) -> dict[str, float]:
    """Weights of one rank of a stage: projections and MLPs by TP shard (KV heads replicated when tp exceeds them),
    experts by shard or whole by expert-parallel rank, embedding and towers on the first stage, LM head on the last.
    Layers that are stored otherwise than most of their kind are taken as spread evenly."""
    t, found = layout.tp, _Sum(model)
    for block, layers in stage_blocks(model, layout.pp)[stage]:
        found.add_block(block, layout, layers)
    rows, width, first, last = model.padded_vocab, model.table_width, stage == 0, stage == layout.pp - 1
    if first:
        found.add_storage(model.weights.embedding, rows, width, 1 / t)
        found.add_matrices(model.outside, t)
        for tower in model.towers:
            found.add_tower(tower, t)
    if last:
        found.add_plain(model.vectors.on_rank(t) + model.head_bias * rows / t)
        if not (first and model.tied_embeddings):
            found.add_storage(model.weights.head, rows, width, 1 / t)
    return dict(found.formats)


def expert_bytes(model: ModelShape) -> float:
    """One routed expert of one layer, whole."""
    assert model.experts is not None
    found = _Sum(model)
    found.add_matrices(model.experts.expert(model.hidden), 1)
    return sum(found.formats.values())


class _Sum:
    """Bytes by format, as they come together."""

    def __init__(self, model: ModelShape) -> None:
        self.formats: dict[str, float] = {}
        self._model = model

    def add_block(self, block: Block, layout: ParallelLayout, layers: int) -> None:
        """So many equal layers of one rank."""
        model = self._model
        self.add_matrices(block.dense_matrices(model.hidden), layout.tp, layers)
        self.add_plain(layers * block.vectors(model.hidden).on_rank(layout.tp))
        if block.experts is None:
            return
        ranks = layout.tp * layout.pcp * layout.dp if layout.ep else layout.tp
        held = -(-block.experts.count // ranks) if layout.ep else block.experts.count / layout.tp
        cut = 1 if layout.ep else layout.tp
        self.add_matrices(block.experts.expert(model.hidden, cut), 1, layers * held)

    def add_matrices(self, matrices: Iterable[Matrix], ranks: int, times: float = 1.0) -> None:
        """Matrices of one of so many ranks, biases included."""
        for one in matrices:
            self._add_matrix(one, getattr(self._model.weights, one.layer), ranks, times)

    def add_tower(self, tower: Tower, ranks: int) -> None:
        """A vision or audio encoder: matrices in the mean of its formats, the rest as it is computed in."""
        parts, weights = tower.parts(ranks), self._model.weights.tower
        for block, layers in Counter(tower.layers).items():
            for one in block.dense_matrices(tower.hidden):
                self._add_matrix(one, weights, parts, layers)
            self.add_plain(layers * block.vectors(tower.hidden).on_rank(parts))
        for one in tower.around:
            self._add_matrix(one, weights, parts, 1.0)
        self.add_plain(tower.vectors.on_rank(parts))

    def _add_matrix(self, one: Matrix, storage: Storage, ranks: int, times: float) -> None:
        share = times * one.copies / one.parts(ranks)
        if one.plain:
            self.add_plain(share * one.outputs * one.inputs)
        else:
            self.add_storage(storage, one.outputs, one.inputs, share)
        self.add_plain(times * one.biases(ranks))

    def add_storage(self, storage: Storage, outputs: int, inputs: int, times: float) -> None:
        """A matrix, in the formats of its kind of layer."""
        for one, share in storage.parts:
            self._add(one.kind, times * share * one.bytes(outputs, inputs))

    def add_plain(self, elements: float) -> None:
        """What is never quantised."""
        one = self._model.weights.plain
        self._add(one.kind, elements * one.bits / 8)

    def _add(self, kind: str, stored: float) -> None:
        if stored:
            self.formats[kind] = self.formats.get(kind, 0.0) + stored
