"""What is seen of a deployment while it serves: one look at it, and the fingerprint of what it stands on.

What is not known is None, or has no entry: nothing is ever concluded from that, except that one is blind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tuner.ask.request import Metric, TargetKey
from tuner.stats.buckets import Within


class Blindness(StrEnum):
    """Why nothing, or not all, can be said of what is deployed."""

    UNREACHABLE = "unreachable"  # an address of metrics that cannot be read
    NO_METRICS = "no_metrics"  # no histogram that a target of the SLO needs
    FEW_REQUESTS = "few_requests"  # fewer than a judgement needs
    NO_CLUSTER = "no_cluster"  # neither Ray nor Kubernetes says what the cluster has


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node: its name, Parlay's name of its GPUs (``h100_sxm``; None: unknown), how many, and their driver."""

    name: str
    gpu: str | None
    gpus: int
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A fabric as it was probed: latency of a message in µs, and bandwidth in GB/s per GPU and direction."""

    alpha_us: float
    gb_per_s: float


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a decision rests on. ``nodes``: None where nobody can see them; ``versions`` by distribution (``vllm``,
    ``ray``); ``links`` by fabric; ``model_revision`` as the engine's loader names it."""

    nodes: tuple[NodeSeen, ...] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, LinkSeen] = field(default_factory=dict)
    model_revision: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens per request (of prompts, or of answers) over the requests of one interval; ``sd`` is their deviation."""

    requests: float
    mean: float
    sd: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at what serves: what came in the ``seconds`` before ``at_s`` (s since 1970).

    ``arrived`` requests came, of which ``failed`` did not succeed; ``within`` counts by target as
    ``tuner.decide.attainment`` has them; ``mean_ms`` are means over the interval; ``prefix_share`` is the part of the
    prompt tokens that a cache held; ``step_ms_by_rank`` the mean time per output token by engine or rank;
    ``waiting`` how many requests were queued at the end.
    """

    at_s: float
    seconds: float
    arrived: float | None = None
    failed: float | None = None
    within: Mapping[TargetKey, Within] = field(default_factory=dict)
    mean_ms: Mapping[Metric, float] = field(default_factory=dict)
    prompt: Tokens | None = None
    output: Tokens | None = None
    prefix_share: float | None = None
    waiting: float | None = None
    step_ms_by_rank: Mapping[str, float] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None
    blind: frozenset[Blindness] = frozenset()

    @property
    def req_per_s(self) -> float | None:
        """Requests that came per second; None where that is not known."""
        return None if self.arrived is None or self.seconds <= 0 else self.arrived / self.seconds
