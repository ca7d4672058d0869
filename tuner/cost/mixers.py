"""Milliseconds of what lets tokens see each other, apart from its projections: one layer on one rank, by kind of mixer.

``core_ms`` alone knows which kernel a kind of mixer runs, ``absorbed_ms`` how latent vectors are expanded, and
``sections_of`` on which sections of a device's profile a kind stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.ask.layout import ParallelLayout
from tuner.ask.linear_fits import LINEAR
from tuner.ask.models.attention import Attention
from tuner.ask.models.beside import Beside
from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import STATE_BYTES, Piece
from tuner.ask.models.compressed import CompressedAttention
from tuner.ask.models.factorized import FactorizedAttention
from tuner.ask.models.latent import LatentAttention
from tuner.ask.models.lightning import Lightning
from tuner.ask.models.recurrent import GatedDelta, KimiDelta, Mamba1, Mamba2, ShortConvolution
from tuner.ask.profile import HardwareProfile
from tuner.cost import compute
from tuner.cost.step_batch import Floats, StepShape
from tuner.errors import BadInput


@dataclass(frozen=True, slots=True)
class Where:
    """On which device, as which rank of which layout, in which step; ``kv_dtype`` of the cache."""

    profile: HardwareProfile
    layout: ParallelLayout
    step: StepShape
    kv_dtype: str

    @property
    def decodes(self) -> bool:
        """One new token per sequence."""
        return self.step.phase == "decode"

    def share(self, count: int) -> int:
        """What of so many heads or channels a rank has, one at least."""
        return max(1, count // self.layout.tp)

    @property
    def new(self) -> Floats:
        """New tokens of a sequence on a rank of prefill context parallelism."""
        return np.asarray(np.maximum(self.step.new_tokens / self.layout.pcp, 1.0))

    @property
    def past(self) -> Floats:
        """Tokens that a new one finds in the cache: on a rank of context parallelism, of decode its own share."""
        if self.decodes:
            return np.asarray(np.maximum(self.step.context_tokens / self.layout.dcp, 1.0))
        return np.asarray(self.step.context_tokens + (self.step.new_tokens - self.new) / 2)

    @property
    def carried(self) -> dict[str, Any]:
        """What prices of states take: they know no context."""
        return {"new_tokens": 1.0 if self.decodes else self.new, "sequences": self.step.sequences}


Pricer = Callable[[Any, Where], Floats]


def core_ms(mixer: Mixer, where: Where) -> Floats:
    """Attention of one layer, or what it has in its place, in ms."""
    pricer = _PRICERS.get(type(mixer))
    if pricer is None:
        raise BadInput("model", mixer.kind, "layers of " + ", ".join(sorted(kind.__name__ for kind in _PRICERS)))
    return np.asarray(pricer(mixer, where))


def _attention(mixer: Attention, where: Where) -> Floats:
    heads, kv_heads = where.share(mixer.heads), where.share(mixer.kv_heads)
    if mixer.index is not None:
        return _block_sparse(mixer, where, heads, kv_heads)
    window = mixer.window if mixer.chunk is None else mixer.chunk
    return _by_heads(where, heads, kv_heads, mixer.head_dim, mixer.values, window)


def _block_sparse(mixer: Attention, where: Where, heads: int, kv_heads: int) -> Floats:
    assert mixer.index is not None
    sizes: dict[str, Any] = {
        "batch": where.step.sequences,
        "context_tokens": where.past,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": mixer.head_dim,
        "index_dim": mixer.index.width,
        "block_tokens": mixer.index.block,
        "blocks": mixer.index.topk,
        "kv_dtype": where.kv_dtype,
    }
    if where.decodes:
        return compute.block_sparse_decode_terms(where.profile, **sizes).total_ms
    return compute.block_sparse_prefill_terms(where.profile, new_tokens=where.new, **sizes).total_ms


def _latent(mixer: LatentAttention, where: Where) -> Floats:
    """Dense latent attention by the kernels over heads, with which the engine's constants were fitted."""
    heads = where.share(mixer.heads)
    if mixer.indexer is not None:
        return _sparse_latent(mixer, where, heads)
    if where.decodes and not mixer.expanded:  # every head reads the one latent vector of each token
        return _by_heads(where, heads, 1, mixer.kv_rank + mixer.qk_rope, mixer.kv_rank, None)
    return _by_heads(where, heads, heads, mixer.qk_nope + mixer.qk_rope, mixer.v_head, None)


def absorbed_ms(mixer: LatentAttention, where: Where, plain_ms: Floats, expanded_ms: Floats) -> Floats:
    """Milliseconds of what expands latent vectors: ``expanded_ms``, one product of all tokens; in decode ``plain_ms``,
    the same in what the model computes in; for keys that an indexer chose two products per head in its place."""
    if mixer.indexer is None:
        return plain_ms if where.decodes else expanded_ms
    tokens = np.maximum(where.step.tokens / where.layout.pcp, 1.0)
    return compute.latent_products_ms(
        where.profile, tokens, heads=where.share(mixer.heads), kv_rank=mixer.kv_rank, qk_nope=mixer.qk_nope,
        v_head=mixer.v_head,
    )  # fmt: skip


def _sparse_latent(mixer: LatentAttention, where: Where, heads: int) -> Floats:
    assert mixer.indexer is not None
    sizes: dict[str, Any] = {
        "batch": where.step.sequences,
        "context_tokens": where.past,
        "heads": heads * (where.layout.dcp if where.decodes else 1),
        "kv_rank": mixer.kv_rank,
        "qk_rope": mixer.qk_rope,
        "index_heads": mixer.indexer.heads if mixer.indexer.own else 0,
        "index_dim": mixer.indexer.width,
        "top_k": mixer.indexer.topk,
        "kv_dtype": where.kv_dtype,
    }
    if where.decodes:
        return compute.sparse_decode_terms(where.profile, **sizes).total_ms
    return compute.sparse_prefill_terms(where.profile, new_tokens=where.new, **sizes).total_ms


def _compressed(mixer: CompressedAttention, where: Where) -> Floats:
    sizes: dict[str, Any] = {
        "batch": where.step.sequences,
        "context_tokens": where.past,
        "heads": where.share(mixer.heads),
        "ratio": 0 if mixer.ratio == 1 else mixer.ratio,
        "head_dim": mixer.head_dim,
        "window": mixer.window,
    }
    if mixer.indexer is not None:
        own = mixer.indexer
        sizes |= {"chosen": own.topk, "index_heads": own.heads, "index_dim": own.width}
    if where.decodes:
        return compute.compressed_decode_terms(where.profile, **sizes).total_ms
    return compute.compressed_prefill_terms(where.profile, new_tokens=where.new, **sizes).total_ms


def _gated_delta(mixer: GatedDelta, where: Where) -> Floats:
    return compute.gated_delta_terms(
        where.profile, where.step.phase, **where.carried, key_heads=where.share(mixer.key_heads),
        value_heads=where.share(mixer.value_heads), key_dim=mixer.key_dim, value_dim=mixer.value_dim,
        conv_kernel=mixer.conv, state_bytes=_width(mixer.state.pieces[-1]),
    ).total_ms  # fmt: skip


def _kimi_delta(mixer: KimiDelta, where: Where) -> Floats:
    return compute.kimi_delta_terms(
        where.profile, where.step.phase, **where.carried, heads=where.share(mixer.heads), head_dim=mixer.head_dim,
        conv_kernel=mixer.conv, bounded_gate=mixer.bounded_gate,
    ).total_ms  # fmt: skip


def _mamba2(mixer: Mamba2, where: Where) -> Floats:
    return compute.mamba2_terms(
        where.profile, where.step.phase, **where.carried, heads=where.share(mixer.heads), head_dim=mixer.head_dim,
        groups=where.share(mixer.groups), state_size=mixer.state_size, conv_kernel=mixer.conv,
        chunk_size=mixer.chunk, state_bytes=_width(mixer.state.pieces[-1]),
    ).total_ms  # fmt: skip


def _mamba1(mixer: Mamba1, where: Where) -> Floats:
    return compute.mamba1_terms(
        where.profile, where.step.phase, **where.carried, inner=where.share(mixer.inner),
        state_size=mixer.state_size, conv_kernel=mixer.conv, state_bytes=_width(mixer.state.pieces[-1]),
    ).total_ms  # fmt: skip


def _short_convolution(mixer: ShortConvolution, where: Where) -> Floats:
    channels = where.share(mixer.width)
    return compute.short_convolution_terms(
        where.profile, where.step.phase, **where.carried, channels=channels, conv_kernel=mixer.conv
    ).total_ms


def _factorized(mixer: FactorizedAttention, where: Where) -> Floats:
    """Every rank has the one key and value that all heads share."""
    return _by_heads(where, where.share(mixer.heads), 1, mixer.head_dim, mixer.head_dim, None)


def _lightning(mixer: Lightning, where: Where) -> Floats:
    return compute.lightning_terms(
        where.profile, where.step.phase, **where.carried, heads=where.share(mixer.heads), head_dim=mixer.head_dim,
        state_bytes=_width(mixer.state.pieces[-1]),
    ).total_ms  # fmt: skip


def _beside(mixer: Beside, where: Where) -> Floats:
    return np.asarray(sum(core_ms(one, where) for one in mixer.mixers))


def _width(piece: Piece) -> float:
    """Bytes of an element of a state; 16 bits where it is the model's own."""
    return float(STATE_BYTES[piece.dtype]) if piece.dtype else 2.0


def _by_heads(where: Where, heads: int, kv_heads: int, head_dim: int, value_dim: int, window: int | None) -> Floats:
    """Attention kernels over keys and values of heads; context parallelism cuts the keys or the queries."""
    sizes: dict[str, Any] = {
        "batch": where.step.sequences,
        "context_tokens": where.past,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "value_dim": value_dim,
        "window": window,
        "kv_dtype": where.kv_dtype,
    }
    if where.decodes:
        return compute.decode_attention_ms(where.profile, heads=heads * where.layout.dcp, **sizes)
    return compute.prefill_attention_ms(where.profile, new_tokens=where.new, heads=heads, **sizes)


_PRICERS: dict[type[Mixer], Pricer] = {
    Attention: _attention,
    FactorizedAttention: _factorized,
    LatentAttention: _latent,
    CompressedAttention: _compressed,
    GatedDelta: _gated_delta,
    KimiDelta: _kimi_delta,
    Mamba2: _mamba2,
    Mamba1: _mamba1,
    ShortConvolution: _short_convolution,
    Lightning: _lightning,
    Beside: _beside,
}
_BY_HEADS = ("attention_prefill", "attention_decode")
_SECTIONS: dict[type[Mixer], tuple[str, ...]] = {  # none: no table of any device has the kernels
    Attention: _BY_HEADS,
    FactorizedAttention: _BY_HEADS,
    CompressedAttention: ("compressed",),
    GatedDelta: (LINEAR,),
    KimiDelta: (LINEAR,),
    Mamba2: (),
    Mamba1: (),
    ShortConvolution: (),
    Lightning: (),
}


def sections_of(mixer: Mixer) -> tuple[str, ...]:
    """Sections of a profile on which ``core_ms`` of a mixer (not of several side by side) stands; empty where no table
    of any device has its kernels, so that physics alone prices them."""
    if isinstance(mixer, Attention) and mixer.index is not None:
        return ("block_sparse",)
    if isinstance(mixer, LatentAttention):
        if mixer.indexer is not None:
            return "sparse_prefill", "sparse_decode"
        return _BY_HEADS if mixer.expanded else ("latent_prefill", "latent_decode")
    return _SECTIONS[type(mixer)]
