"""What a sequence takes of the KV cache's memory: what grows with it, what a window bounds, what a state holds.

vLLM 0.29 deals memory out in pages of equal size from one pool, to groups of layers of one kind
(``v1/core/kv_cache_utils.py``): full attention takes a page more for every block of tokens, a window gives back what
has left it, a state takes its pages once. Here all are counted in tokens of full attention, so that a model of full
attention alone counts what it always did. Scope: the fullest rank of one replica.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.cost.stages import Stage, stage_blocks

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SequenceMemory:
    """``unit_bytes``: of one token where something grows with every token, else of one token within the windows, else
    of one sequence. Of these a sequence takes one per token (``grows``), in each of ``windows`` a share per token up to
    so many, and ``state`` once. A block of the cache holds at least ``block_tokens``: where layers with a state lie
    beside attention, a page of attention is as large as one state (``HybridAttentionMambaModelConfig``)."""

    unit_bytes: float
    grows: bool
    windows: tuple[tuple[float, int], ...] = ()
    state: float = 0.0
    block_tokens: int = 0

    def tokens_of(self, tokens: ArrayLike, block_tokens: int = 1) -> Floats:
        """Units that a sequence of so many tokens takes: whole blocks of ``block_tokens`` or more of what grows, of
        each window and of the states, as the simulator deals them out."""
        length, block = np.asarray(tokens, dtype=float), max(block_tokens, self.block_tokens)
        if not self.grows and not self.windows:
            return np.ones_like(length)
        blocks = self.grows * np.ceil(length / block) + np.ceil(self.state / block)
        for share, window in self.windows:
            blocks = blocks + np.ceil(share * np.minimum(length, window) / block)
        return np.asarray(blocks * block)

    def bytes_of(self, tokens: ArrayLike, block_tokens: int = 1) -> Floats:
        """The same in bytes."""
        return np.asarray(self.tokens_of(tokens, block_tokens) * self.unit_bytes)


def sequence_memory(model: ModelShape, layout: ParallelLayout, element_bytes: float) -> SequenceMemory:
    """That of the stage on which a long sequence takes most; ``element_bytes`` of an element of the cache."""
    found = [_of_stage(model, blocks, layout, element_bytes) for blocks in stage_blocks(model, layout.pp)]
    longest = min(model.max_position, _LONG)
    return max(found, key=lambda one: float(one.bytes_of(longest)))


_ALIGNED = 16  # tokens of which a block is a multiple
_LONG = 2**20  # tokens of a long sequence, where a model knows no limit


def _of_stage(model: ModelShape, blocks: Stage, layout: ParallelLayout, element_bytes: float) -> SequenceMemory:
    growing, state, page, token = 0.0, 0.0, 0.0, 0.0
    bounded: dict[int, float] = {}
    for block, count in blocks:
        if block.mixer is None:
            continue
        for cache in block.mixer.caches:
            added = count * cache.token_bytes(element_bytes, layout.tp) / layout.dcp
            if cache.window is None:
                growing += added
                token = max(token, added / count)
            else:
                bounded[cache.window] = bounded.get(cache.window, 0.0) + added
        if block.mixer.state is not None:
            one = block.mixer.state.sequence_bytes(model.element_bytes, layout.tp)
            state, page = state + count * one, max(page, one)
    unit = growing or sum(bounded.values()) or state or 1.0
    windows = tuple((held / unit, window) for window, held in sorted(bounded.items()))
    block_tokens = math.ceil(page / token / _ALIGNED) * _ALIGNED if page and token else 0
    return SequenceMemory(unit, growing > 0, windows, state / unit, block_tokens)
