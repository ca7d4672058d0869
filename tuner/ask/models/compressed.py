"""Compressed sparse attention of DeepSeek-V4 (vLLM 0.29, ``models/deepseek_v4/``): one key and value vector for all
heads, a window, and behind it vectors that stand for 4 or 128 tokens each."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import Cache
from tuner.ask.models.latent import INDEX_SCALE_BYTES
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors

CHOSEN, WHOLE = 4, 128  # tokens of a compressed vector: those an indexer chooses among, and those all read
FLOAT_BYTES = 4  # a compressor's sums are float32
SCALED = 64  # elements that share a scale in the fp8 cache


@dataclass(frozen=True, slots=True)
class Compressor:
    """What makes one vector of ``width`` of every ``ratio`` tokens; at ratio 4 of two overlapping runs of them."""

    ratio: int
    width: int
    place: str

    @property
    def parts(self) -> int:
        """Runs of tokens that a vector is made of."""
        return 2 if self.ratio == CHOSEN else 1

    def matrix(self, hidden: int) -> Matrix:
        """Values and gates as one, whole on every rank, never quantised."""
        names = tuple(f"{self.place}.{one}" for one in ("fused_wkv_wgate", "wkv", "wgate"))
        return Matrix(Layer.ATTENTION, names, 2 * self.parts * self.width, hidden, Cut.NOTHING, plain=True)

    @property
    def elements(self) -> int:
        """Positions within a run, and a norm."""
        return self.ratio * self.parts * self.width + self.width

    @property
    def cache(self) -> Cache:
        """Sums and gates of the running tokens."""
        state = FLOAT_BYTES * 2 * self.parts * self.width
        return Cache(heads=None, width=0, window=self.parts * self.ratio, fixed_bytes=state)


@dataclass(frozen=True, slots=True)
class CompressedIndexer:
    """What chooses ``topk`` compressed vectors by ``heads`` queries of ``width``."""

    heads: int
    width: int
    topk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedAttention(Mixer):
    """``heads`` queries of ``head_dim``, of which ``rope`` rotate, on one key that is the value too.

    All layers see the last ``window`` tokens. ``ratio``: tokens of a compressed vector, 4 with an ``indexer``, 128
    without, or 1 where there are none. The output goes through ``groups`` of rank ``out_rank``. Cached in fp8 alone.
    """

    heads: int
    head_dim: int
    rope: int
    q_rank: int
    groups: int
    out_rank: int
    window: int
    ratio: int
    indexer: CompressedIndexer | None = None
    place: str = "attn"

    @property
    def kind(self) -> str:
        """By what it reads behind the window."""
        if self.ratio == CHOSEN:
            return "compressed sparse attention"
        return "heavily compressed attention" if self.ratio == WHOLE else "sliding-window attention of one vector"

    @property
    def compressors(self) -> tuple[Compressor, ...]:
        """Of the keys, and of the indexer's."""
        if self.ratio == 1:
            return ()
        own = Compressor(self.ratio, self.head_dim, f"{self.place}.compressor")
        if self.indexer is None:
            return (own,)
        return own, Compressor(self.ratio, self.indexer.width, f"{self.place}.indexer.compressor")

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Down projections, compressors and the indexer whole on every rank; queries and the output cut by heads."""
        kind, at, wide = Layer.ATTENTION, self.place, self.heads * self.head_dim

        def named(*names: str) -> tuple[str, ...]:
            return tuple(f"{at}.{name}" for name in names)

        merged = "fused_wqa_wkv"
        found = [
            Matrix(kind, named("wq_a", merged), self.q_rank, hidden, Cut.NOTHING, merged),
            Matrix(kind, named("wkv", merged), self.head_dim, hidden, Cut.NOTHING, merged),
            Matrix(kind, named("wq_b"), wide, self.q_rank, Cut.OUTPUTS),
        ]
        found.extend(one.matrix(hidden) for one in self.compressors)
        if self.indexer is not None:
            own = self.indexer
            found.append(Matrix(kind, named("indexer.wq_b"), own.heads * own.width, self.q_rank, Cut.NOTHING))
            found.append(Matrix(kind, named("indexer.weights_proj"), own.heads, hidden, Cut.NOTHING, plain=True))
        first = Matrix(kind, named("wo_a"), self.out_rank, wide // self.groups, Cut.OUTPUTS, copies=self.groups)
        return *found, first, Matrix(kind, named("wo_b"), hidden, self.groups * self.out_rank, Cut.INPUTS)

    def vectors(self, hidden: int) -> Vectors:
        """Norms of queries and keys, sinks by head, and what compressors have."""
        own = sum(one.elements for one in self.compressors)
        return Vectors(whole=self.q_rank + self.head_dim + own, split=self.heads)

    @property
    def vector_bytes(self) -> int:
        """Bytes of a cached vector: fp8, the rotated part in 16 bits, a scale byte for each 64, padded to 8."""
        still = self.head_dim - self.rope
        return still + 2 * self.rope + still // SCALED + 1

    @property
    def caches(self) -> tuple[Cache, ...]:
        """The window; the compressed vectors and the indexer's keys; running sums. All whole on every rank."""
        found = [Cache(heads=None, width=0, window=self.window, fixed_bytes=self.vector_bytes)]
        if self.ratio > 1:
            found.append(Cache(heads=None, width=0, fixed_bytes=self.vector_bytes, every=self.ratio))
        if self.indexer is not None:
            key = self.indexer.width + INDEX_SCALE_BYTES
            found.append(Cache(heads=None, width=0, fixed_bytes=key, every=self.ratio))
        return *found, *(one.cache for one in self.compressors)

    def refuses(self, ranks: int) -> str | None:
        """Heads and groups of the output divide by the ranks."""
        if self.heads % ranks:
            return f"{self.heads} attention heads do not divide by tp={ranks}"
        return f"{self.groups} output groups do not divide by tp={ranks}" if self.groups % ranks else None
