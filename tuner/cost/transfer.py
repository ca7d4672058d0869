"""What disaggregated serving hands over: the KV cache of a prompt, from a prefill pool to a decode pool.

Both pools have the same layout, so each rank sends what it holds to the rank of its own index. Source: vLLM 0.29's KV
connectors, which register each rank's cache as it is: KV heads are replicated where tp exceeds them, and the latent
cache of MLA is whole on every tensor-parallel rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.cost.switches import AS_SHIPPED, EngineSwitches
from tuner.cost.volume import stage_layers


@dataclass(frozen=True, slots=True)
class KvLink:
    """One kind of link: ``links`` pairs of ranks of a stage, each carrying ``link_bytes`` per request."""

    stage: int
    links: int
    link_bytes: int


def kv_transfer_bytes(
    model: ModelShape, layout: ParallelLayout, prompt_tokens: int, switches: EngineSwitches = AS_SHIPPED
) -> int:
    """KV cache of one prompt without copies, in bytes over the whole model. A layer with a window keeps the window."""
    elements = _cached_tokens(model, prompt_tokens) * model.kv_elements_per_token_layer
    return round(elements * switches.on(layout, model).kv_element_bytes)


def kv_links(
    model: ModelShape, layout: ParallelLayout, prompt_tokens: int, switches: EngineSwitches = AS_SHIPPED
) -> tuple[KvLink, ...]:
    """Bytes per request on each link from a prefill rank to its decode rank, stage by stage, copies included.

    Layers of both kinds (with and without a window) are taken as spread evenly over the stages.
    """
    share = 1.0 if model.latent else max(1.0, model.kv_heads / layout.tp) / model.kv_heads
    per_layer = _cached_tokens(model, prompt_tokens) / model.layers * model.kv_elements_per_token_layer
    held = per_layer * share * switches.on(layout, model).kv_element_bytes / layout.dcp
    ranks = layout.tp * layout.pcp
    layers = stage_layers(model.layers, layout.pp)
    return tuple(KvLink(stage, ranks, round(count * held)) for stage, count in enumerate(layers))


def _cached_tokens(model: ModelShape, prompt_tokens: int) -> int:
    """Cached tokens of a prompt, summed over the layers."""
    windowed = model.window_layers * min(prompt_tokens, model.window or prompt_tokens)
    return (model.layers - model.window_layers) * prompt_tokens + windowed
