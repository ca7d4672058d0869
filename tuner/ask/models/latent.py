"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), dense or sparse by an indexer (DeepSeek-V3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import Cache
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors

INDEX_SCALE_BYTES = 4  # of an indexer's key in fp8 (``models/deepseek_v32/``)


@dataclass(frozen=True, slots=True)
class Indexer:
    """What chooses tokens (DeepSeek sparse attention): ``topk`` of them, by ``heads`` queries of ``width``. ``own`` is
    false in layers that take an earlier layer's choice: no weights, no cache."""

    heads: int
    width: int
    topk: int
    own: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention(Mixer):
    """Ranks and head sizes in elements. ``expanded``: the engine caches keys and values of heads, not the latent one
    (MiniCPM3); keys and values are then as wide as the wider of both. ``output_gate``: the heads' output is multiplied
    by a projection of the input (Kimi-K3)."""

    heads: int
    kv_rank: int
    q_rank: int | None
    qk_nope: int
    qk_rope: int
    v_head: int
    indexer: Indexer | None = None
    expanded: bool = False
    bias: bool = False
    output_gate: bool = False
    place: str = "self_attn"

    @property
    def kind(self) -> str:
        """Dense, or sparse."""
        return "multi-head latent attention" if self.indexer is None else "sparse latent attention"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Down projections whole on every rank; up projections and the output cut by heads."""
        kind, at = Layer.ATTENTION, self.place
        up, compressed = self.heads * (self.qk_nope + self.qk_rope), self.kv_rank + self.qk_rope
        merged = "fused_qkv_a_proj" if self.q_rank else None
        names = (f"{at}.kv_a_proj_with_mqa", f"{at}.fused_qkv_a_proj")
        found = [Matrix(kind, (f"{at}.q_proj",), up, hidden, Cut.OUTPUTS)]
        if self.q_rank:
            down = (f"{at}.q_a_proj", f"{at}.fused_qkv_a_proj")
            found = [
                Matrix(kind, down, self.q_rank, hidden, Cut.NOTHING, merged, bias=self.bias),
                Matrix(kind, (f"{at}.q_b_proj",), up, self.q_rank, Cut.OUTPUTS),
            ]
        found.append(Matrix(kind, names, compressed, hidden, Cut.NOTHING, merged, bias=self.bias))
        found.extend(self._index_matrices(hidden))
        expand = self.heads * (self.qk_nope + self.v_head)
        out = self.heads * self.v_head
        if self.output_gate:
            found.append(Matrix(kind, (f"{at}.g_proj",), out, hidden, Cut.OUTPUTS))
        return (
            *found,
            Matrix(kind, (f"{at}.kv_b_proj",), expand, self.kv_rank, Cut.OUTPUTS),
            Matrix(kind, (f"{at}.o_proj",), hidden, out, Cut.INPUTS, bias=self.bias),
        )

    def _index_matrices(self, hidden: int) -> tuple[Matrix, ...]:
        own = self.indexer
        if own is None or not own.own:
            return ()
        at = f"{self.place}.indexer"
        return (
            Matrix(Layer.ATTENTION, (f"{at}.wq_b",), own.heads * own.width, self.q_rank or hidden, Cut.NOTHING),
            Matrix(Layer.ATTENTION, (f"{at}.wk",), own.width, hidden, Cut.NOTHING, plain=True),
            Matrix(Layer.ATTENTION, (f"{at}.weights_proj",), own.heads, hidden, Cut.NOTHING, plain=True),
        )

    def vectors(self, hidden: int) -> Vectors:
        """Norms of what is projected down; an indexer's norm with its bias."""
        own = self.indexer is not None and self.indexer.own
        index = 2 * self.indexer.width if self.indexer is not None and own else 0
        return Vectors(whole=self.kv_rank + (self.q_rank or 0) + index)

    @property
    def caches(self) -> tuple[Cache, ...]:
        """One latent vector a token, whole on every rank; an indexer's key in fp8."""
        if self.expanded:
            return (Cache(heads=self.heads, width=2 * (self.qk_nope + self.qk_rope)),)
        latent = Cache(heads=None, width=self.kv_rank + self.qk_rope)
        if self.indexer is None or not self.indexer.own:
            return (latent,)
        return latent, Cache(heads=None, width=0, fixed_bytes=self.indexer.width + INDEX_SCALE_BYTES)

    def refuses(self, ranks: int) -> str | None:
        """Heads divide by the ranks."""
        return f"{self.heads} attention heads do not divide by tp={ranks}" if self.heads % ranks else None
