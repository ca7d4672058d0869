"""What ``parlay collective --json`` prints: the algorithm of one collective, its time and the terms of it."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer, where_it_applies
from tuner.cost.collectives import CollectiveReport


class CollectiveAnswer(Answer):
    """One collective. Profile, fabric and implementation are left out for the plain Hockney form, which has none."""

    operation: str = Field(description="The operation.")
    bytes: int = Field(description="The whole buffer of one rank, bytes.")
    ranks: int = Field(description="Ranks of the communicator.")
    nodes: int = Field(description="Nodes that they span.")
    profile: str | None = where_it_applies("The GPU's profile.")
    fabric: str | None = where_it_applies("The network between nodes.")
    algorithm: str = Field(description="What the engine would pick, or was told to.")
    implementation: str | None = where_it_applies("Whose it is: nccl, the engine's own kernel, gloo.")
    latency_us: float = Field(description="Time of one call, µs.")
    terms: dict[str, float] = Field(description="What adds up to it, µs.")
    why: str = Field(description="Why this algorithm.")
    device_notes: list[str] | None = where_it_applies("What of the GPU was not measured, in sentences.")


def collective_answer(report: CollectiveReport) -> CollectiveAnswer:
    """One collective."""
    return CollectiveAnswer(
        operation=report.operation,
        bytes=report.message_bytes,
        ranks=report.ranks,
        nodes=report.nodes,
        profile=report.profile,
        fabric=report.fabric,
        algorithm=report.algorithm,
        implementation=report.implementation,
        latency_us=report.latency_us,
        terms=dict(report.terms_us),
        why=report.why,
        device_notes=list(report.notes) or None,
    )
