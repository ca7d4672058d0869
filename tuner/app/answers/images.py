"""What a plan says of images: that requests of text do not need the encoder, and what one image would cost."""

from __future__ import annotations

from tuner.ask.cluster import Cluster, requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.described import Tower
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.cost.towers import image_ms
from tuner.plan.prune import Plan

_BILLION = 1e9


def image_notes(request: TuneRequest, plan: Plan) -> list[str]:
    """A sentence on each encoder of the model; empty for one of text. Prices are those of the best layout."""
    model = requested_model(request)
    if not model.towers:
        return []
    best = next((candidate.layout for candidate in plan.ranked), None)
    cluster = None if best is None else requested_cluster(request).group(best)
    return [_note(model, tower, cluster, best) for tower in model.towers]


def _note(model: ModelShape, tower: Tower, cluster: Cluster | None, layout: ParallelLayout | None) -> str:
    size = f"{tower.elements() / _BILLION:.2f} billion parameters, counted in memory"
    said = f"requests of text skip the {tower.kind} encoder ({size})"
    if tower.image is None or tower.tokens is None or cluster is None or layout is None:
        return f"{said}; what it reads is not priced."
    ms = image_ms(model, tower, cluster, layout)
    cost = "a time that is not priced" if ms is None else f"{ms:.3g} ms of prefill"
    device = cluster.profile.name
    if "encoder_attention" not in cluster.profile.measured:
        device += ", where attention within images was never measured"
    return (
        f"{said}; one image of {tower.image} × {tower.image} pixels adds {cost} and {tower.tokens:,} tokens of prompt "
        f"({layout} on {device})."
    )
