"""What disaggregated serving hands over: the KV cache of a prompt, from a prefill pool to a decode pool.

Both pools have the same layout, so each rank sends what it holds to the rank of its own index. Source: vLLM 0.29's KV
connectors, which register each rank's cache as it is: KV heads are replicated where tp exceeds them, and the latent
cache of MLA is whole on every tensor-parallel rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.blocks import Block
from tuner.cost.stages import stage_blocks
from tuner.cost.switches import AS_SHIPPED, EngineSwitches


@dataclass(frozen=True, slots=True)
class KvLink:
    """One kind of link: ``links`` pairs of ranks of a stage, each carrying ``link_bytes`` per request."""

    stage: int
    links: int
    link_bytes: int


def kv_transfer_bytes(
    model: ModelShape, layout: ParallelLayout, prompt_tokens: int, switches: EngineSwitches = AS_SHIPPED
) -> int:
    """What one prompt leaves behind, without copies, in bytes over the whole model. A layer with a window keeps the
    window, one with a state the state."""
    element_bytes = switches.on(layout, model).kv_element_bytes
    return round(sum(n * _kept_bytes(block, model, prompt_tokens, element_bytes, 1) for block, n in model.counted))


def kv_links(
    model: ModelShape, layout: ParallelLayout, prompt_tokens: int, switches: EngineSwitches = AS_SHIPPED
) -> tuple[KvLink, ...]:
    """Bytes per request on each link from a prefill rank to its decode rank, stage by stage, copies included."""
    element_bytes = switches.on(layout, model).kv_element_bytes
    found = []
    for stage, blocks in enumerate(stage_blocks(model, layout.pp)):
        held = sum(
            n * _kept_bytes(block, model, prompt_tokens, element_bytes, layout.tp, layout.dcp) for block, n in blocks
        )
        found.append(KvLink(stage, layout.tp * layout.pcp, round(held)))
    return tuple(found)


def _kept_bytes(
    block: Block, model: ModelShape, tokens: int, element_bytes: float, ranks: int, shares: int = 1
) -> float:
    """Bytes of a sequence of so many tokens in one layer of one rank, which has one of so many ``shares`` of every
    cache and all of its state."""
    mixer = block.mixer
    if mixer is None:
        return 0.0
    state = mixer.state.sequence_bytes(model.element_bytes, ranks) if mixer.state else 0.0
    kept = sum(cache.kept_tokens(tokens) * cache.token_bytes(element_bytes, ranks) for cache in mixer.caches)
    return state + kept / shares
