"""Milliseconds of what lets tokens see each other, apart from its projections: one layer on one rank, by kind of mixer.

``core_ms`` is the only place that knows which kernel a kind of mixer runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tuner.ask.layout import ParallelLayout
from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Mixer
from tuner.ask.models.latent import LatentAttention
from tuner.ask.profile import HardwareProfile
from tuner.cost import compute
from tuner.cost.step_batch import Floats, StepShape
from tuner.errors import BadInput

Pricer = Callable[[Any, HardwareProfile, ParallelLayout, StepShape, str], Floats]


def core_ms(mixer: Mixer, profile: HardwareProfile, layout: ParallelLayout, step: StepShape, kv_dtype: str) -> Floats:
    """Attention of one layer, or what it has in its place, in ms; ``kv_dtype`` of the cache."""
    pricer = _PRICERS.get(type(mixer))
    if pricer is None:
        raise BadInput("model", mixer.kind, "layers of " + ", ".join(sorted(kind.__name__ for kind in _PRICERS)))
    return pricer(mixer, profile, layout, step, kv_dtype)


def _attention(
    mixer: Attention, profile: HardwareProfile, layout: ParallelLayout, step: StepShape, kv_dtype: str
) -> Floats:
    heads, kv_heads = max(1, mixer.heads // layout.tp), max(1, mixer.kv_heads // layout.tp)
    window = mixer.window if mixer.chunk is None else mixer.chunk
    return _by_heads(
        profile, layout, step, kv_dtype, heads=heads, kv_heads=kv_heads, head_dim=mixer.head_dim,
        value_dim=mixer.values, window=window,
    )  # fmt: skip


def _latent(
    mixer: LatentAttention, profile: HardwareProfile, layout: ParallelLayout, step: StepShape, kv_dtype: str
) -> Floats:
    heads = max(1, mixer.heads // layout.tp)
    if step.phase == "decode" and not mixer.expanded:  # every head reads the one latent vector of each token
        wide, values, kv_heads = mixer.kv_rank + mixer.qk_rope, mixer.kv_rank, 1
    else:
        wide, values, kv_heads = mixer.qk_nope + mixer.qk_rope, mixer.v_head, heads
    return _by_heads(
        profile, layout, step, kv_dtype, heads=heads, kv_heads=kv_heads, head_dim=wide, value_dim=values, window=None
    )


def _by_heads(
    profile: HardwareProfile,
    layout: ParallelLayout,
    step: StepShape,
    kv_dtype: str,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    value_dim: int,
    window: int | None,
) -> Floats:
    """Attention kernels over keys and values of heads; context parallelism cuts the keys or the queries."""
    if step.phase == "decode":
        context = np.maximum(step.context_tokens / layout.dcp, 1.0)
        return np.asarray(
            compute.decode_attention_ms(
                profile, batch=step.sequences, context_tokens=context, heads=heads * layout.dcp, kv_heads=kv_heads,
                head_dim=head_dim, value_dim=value_dim, window=window, kv_dtype=kv_dtype,
            )
        )  # fmt: skip
    new = np.maximum(step.new_tokens / layout.pcp, 1.0)
    context = step.context_tokens + (step.new_tokens - new) / 2
    return np.asarray(
        compute.prefill_attention_ms(
            profile, new_tokens=new, context_tokens=context, batch=step.sequences, heads=heads, kv_heads=kv_heads,
            head_dim=head_dim, value_dim=value_dim, window=window, kv_dtype=kv_dtype,
        )
    )  # fmt: skip


_PRICERS: dict[type[Mixer], Pricer] = {Attention: _attention, LatentAttention: _latent}
