"""Which layers each pipeline stage has, as vLLM splits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tuner.ask.model import ModelShape
from tuner.ask.models.blocks import Block

Stage = tuple[tuple[Block, int], ...]
"""Each kind of block on a stage, with how many layers are of it."""


def stage_layers(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each stage: the remainder goes to stages counted from the last but one backwards.

    Source: vLLM ``get_pp_indices`` (distributed/utils.py).
    """
    split = [layers // stages] * stages
    for i in range(2, layers % stages + 2):
        split[-i] += 1
    return tuple(split)


def stage_blocks(model: ModelShape, stages: int) -> tuple[Stage, ...]:
    """What each stage has, kinds in the order in which the model has them."""
    found, first = [], 0
    for count in stage_layers(model.layers, stages):
        held = Counter(model.order[first : first + count])
        found.append(tuple((model.kinds[kind], held[kind]) for kind in sorted(held)))
        first += count
    return tuple(found)


def layers_of(stage: Stage) -> int:
    """Layers of a stage."""
    return sum(count for _, count in stage)


def launched_layers(blocks: Iterable[tuple[Block, int]]) -> float:
    """The same in layers of a mixer and an MLP, as the host launches their kernels: of a model whose layers are one or
    the other, half as many."""
    return sum(count * block.halves for block, count in blocks) / 2


def moe_layers_of(stage: Stage) -> int:
    """Those with a mixture of experts."""
    return sum(count for block, count in stage if block.experts is not None)
