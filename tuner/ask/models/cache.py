"""What a layer remembers of a sequence: entries of a cache, one for each token or so, or a state of fixed size."""

from __future__ import annotations

from dataclasses import dataclass

STATE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Entries of one layer (``v1/kv_cache_interface.py`` of vLLM 0.29): one for every ``every`` tokens.

    An entry has ``width`` elements of the cache's precision for each of ``heads`` (keys and values together), which
    tensor-parallel ranks divide and, beyond their number, repeat; ``heads`` None: one vector, whole on every rank.
    ``fixed_bytes`` come on top whatever the precision (an indexer's keys in fp8 with their scales). Of a sequence at
    most the last ``window`` tokens are kept (None: all); ``chunked``: those of the running chunk of so many.
    """

    heads: int | None
    width: int
    window: int | None = None
    chunked: bool = False
    fixed_bytes: float = 0.0
    every: int = 1

    def token_bytes(self, element_bytes: float, ranks: int = 1) -> float:
        """Bytes that one token adds on one rank while it is kept."""
        heads = 1.0 if self.heads is None else max(1.0, self.heads / ranks)
        return (heads * self.width * element_bytes + self.fixed_bytes) / self.every

    def kept_tokens(self, tokens: float) -> float:
        """Tokens of a sequence of so many that are kept."""
        return tokens if self.window is None else min(tokens, float(self.window))


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of a state: ``elements`` over all ranks, of a ``dtype`` (None: the model's); ``whole``: so many more on
    every rank, for what is repeated."""

    elements: int
    dtype: str | None = None
    whole: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What a layer keeps of each sequence however long it is (``model_executor/layers/mamba/mamba_utils.py``)."""

    pieces: tuple[Piece, ...]

    def sequence_bytes(self, model_bytes: int, ranks: int = 1) -> float:
        """Bytes of one sequence on one rank; ``model_bytes`` of an element of the model's own precision."""
        return sum(
            (one.elements / ranks + one.whole) * (STATE_BYTES[one.dtype] if one.dtype else model_bytes)
            for one in self.pieces
        )
