"""Attention over keys and values of heads: all tokens, a window, an aligned chunk, or chosen blocks of them."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import Cache
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """What chooses blocks of keys (MiniMax-M3, ``models/minimax_m3/``): ``topk`` blocks of ``block`` tokens, by index
    queries of ``heads`` and one index key per token, both of ``width``."""

    heads: int
    width: int
    block: int
    topk: int


@dataclass(frozen=True, slots=True)
class ProjectionNames:
    """What checkpoints and vLLM call the matrices of an attention: apart, merged, and the output."""

    query: str = "q_proj"
    key: str = "k_proj"
    value: str = "v_proj"
    merged: str = "qkv_proj"
    output: str = "o_proj"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Mixer):
    """``heads`` queries on ``kv_heads`` keys of ``head_dim`` and values of ``value_dim`` (None: the same).

    A query sees the last ``window`` tokens, those of its own aligned ``chunk``, or all (both None). ``gated``: the
    query projection is doubled by an output gate. ``bias`` of q, k, v, ``output_bias`` of the output;
    ``norm_elements`` of norms on queries and keys, ``norm_spans_heads``: over all heads, so that tensor-parallel ranks
    add up variances; ``norm_gathers_heads``: so too, but they gather queries and keys whole, and values that are
    projected ``apart``. ``reuses_cache``: no keys and values of its own, it reads those of an earlier layer;
    ``projects_anyway``: the engine multiplies and drops them all the same. ``one_projection``: the checkpoint has one
    matrix for keys and values. ``sinks``: a logit per head that takes no part in the sum. ``index``: what chooses
    blocks. ``repeats``: more ranks than KV heads may have the same ones.

    Two ways of classes of Transformers, with caches divided as ever. ``whole``, where they have no plan for tensor
    parallelism: every rank has and multiplies all of the projections. ``apart``, where they have one: queries, keys and
    values are multiplied one by one, and cut through heads where ranks are more.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int | None = None
    window: int | None = None
    chunk: int | None = None
    gated: bool = False
    bias: bool = False
    output_bias: bool = False
    norm_elements: int = 0
    norm_spans_heads: bool = False
    norm_gathers_heads: bool = False
    reuses_cache: bool = False
    projects_anyway: bool = False
    one_projection: bool = False
    sinks: bool = False
    index: BlockIndex | None = None
    repeats: bool = True
    whole: bool = False
    apart: bool = False
    recut: bool = False
    place: str = "self_attn"
    names: ProjectionNames = ProjectionNames()

    @property
    def kind(self) -> str:
        """Full, windowed, chunked or block-sparse."""
        if self.index is not None:
            return "block-sparse attention"
        if self.window is not None:
            return "sliding-window attention"
        return "full attention" if self.chunk is None else "chunked attention"

    @property
    def reductions(self) -> int:
        """None where every rank has the whole output."""
        return int(not self.whole)

    @property
    def values(self) -> int:
        """Width of a value."""
        return self.head_dim if self.value_dim is None else self.value_dim

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries, keys and values as one, the output."""

        def projected(name: str, outputs: int, most: int | None) -> Matrix:
            names = (self._named(name), self._named(called.merged))
            merged, parts = (None, None) if self.apart else (called.merged, most)
            return Matrix(Layer.ATTENTION, names, outputs, hidden, cut, merged, parts, self.bias, recut=self.recut)

        called, cut = self.names, Cut.NOTHING if self.whole else Cut.OUTPUTS
        found = [projected(called.query, self.heads * self.head_dim * (1 + self.gated), None)]
        if not self.reuses_cache or self.projects_anyway:
            found.append(projected(called.key, self.kv_heads * self.head_dim, self.kv_heads))
            found.append(projected(called.value, self.kv_heads * self.values, self.kv_heads))
        if self.index is not None:
            own = self.index
            names = tuple(f"{self.place}.{one}" for one in ("index_q_proj", "qkv_proj"))
            width = own.heads * own.width
            found.append(Matrix(Layer.ATTENTION, names, width, hidden, Cut.OUTPUTS, "qkv_proj", own.heads, self.bias))
            names = tuple(f"{self.place}.{one}" for one in ("index_k_proj", "qkv_proj"))
            found.append(Matrix(Layer.ATTENTION, names, own.width, hidden, Cut.NOTHING, "qkv_proj"))
        out = (self._named(called.output),)
        inputs = self.heads * self.values
        output_cut = Cut.NOTHING if self.whole else Cut.INPUTS
        return *found, Matrix(Layer.ATTENTION, out, hidden, inputs, output_cut, bias=self.output_bias)

    def _named(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name

    def vectors(self, hidden: int) -> Vectors:
        """Norms of queries and keys, sinks."""
        sinks = Vectors(split=self.heads if self.sinks else 0)
        if self.norm_spans_heads:
            return sinks + Vectors(split=self.norm_elements)
        return sinks + Vectors(whole=self.norm_elements)

    @property
    def caches(self) -> tuple[Cache, ...]:
        """Keys and values; index keys."""
        if self.reuses_cache:
            return ()
        kept = self.window if self.chunk is None else self.chunk
        chunked = self.chunk is not None
        found = Cache(heads=self.kv_heads, width=self.head_dim + self.values, window=kept, chunked=chunked)
        if self.index is None:
            return (found,)
        return found, Cache(heads=None, width=self.index.width)

    def refuses(self, ranks: int) -> str | None:
        """Heads divide by the ranks; KV heads divide by them, or into them."""
        if self.heads % ranks:
            return f"{self.heads} attention heads do not divide by tp={ranks}"
        if not self.repeats and self.kv_heads % ranks:
            return f"{self.kv_heads} KV heads do not divide by tp={ranks}"
        if max(self.kv_heads, ranks) % min(self.kv_heads, ranks):
            return f"{self.kv_heads} KV heads neither divide by nor into tp={ranks}"
        return None
