"""What the HTML report shows, as plain values. The application layer fills it from the study's store.

Absent figures are None and are shown as a dash. Latencies are in milliseconds, rates in requests/s, durations in
seconds; maps by metric have the keys of ``ShownMetric.key``, each at the percentile of its
``ShownMetric``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from deploy.report.belief_data import ShownBeliefs


class Fate(StrEnum):
    """What became of a layout."""

    WINNER = "winner"
    MEASURED = "measured"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    NOT_LAUNCHED = "not launched"
    DROPPED = "dropped"


def metric_key(name: str, percentile: float) -> str:
    """``ttft-p99``, ``ttft-p99_9``: also the end of an element's id."""
    return f"{name}-p{percentile:g}".replace(".", "_")


@dataclass(frozen=True, slots=True)
class ShownMetric:
    """A latency metric, the percentile at which it is shown, and its target in milliseconds if the SLO has one."""

    name: str
    percentile: float
    slo_ms: float | None = None

    @property
    def key(self) -> str:
        """By which its values and its charts are found: a metric may be shown at several percentiles."""
        return metric_key(self.name, self.percentile)

    def __str__(self) -> str:
        return f"{self.name.upper()} p{self.percentile:g}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the funnel: how many layouts it kept, and how many it dropped for which reason."""

    name: str
    kept: int
    dropped: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ShownStep:
    """One measured load step. ``attainment`` is a share from 0 to 1."""

    rate_req_per_s: float
    latency_ms: Mapping[str, float | None]
    goodput_req_per_s: float | None = None
    attainment: float | None = None
    sent: int | None = None
    failed: int | None = None
    meets_slo: bool | None = None


@dataclass(frozen=True, slots=True)
class ShownTrial:
    """When a launch began, counted from the start of the study, and how long it took to be ready and to end; None
    where it is not, or has not. ``phases`` are those of its start, in words, with the seconds of each."""

    number: int
    started_s: float
    ready_after_s: float | None
    seconds: float | None
    phases: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ShownLayout:
    """One layout: its fate with the reason in words and figures, and what was predicted and measured at one rate."""

    layout: str
    devices: int
    fate: Fate
    reason: str | None = None
    rate_req_per_s: float | None = None
    predicted_ms: Mapping[str, float | None] = field(default_factory=dict)
    measured_ms: Mapping[str, float | None] = field(default_factory=dict)
    predicted_goodput_req_per_s: float | None = None
    measured_goodput_req_per_s: float | None = None
    attainment: float | None = None
    meets_slo: bool | None = None
    steps: tuple[ShownStep, ...] = ()
    trial: ShownTrial | None = None


@dataclass(frozen=True, slots=True)
class ShownSpread:
    """A figure over repeated runs: its mean, and the lowest and highest of them (of one: its 95 % interval)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ShownLayoutSummary:
    """A measured layout with all its runs; ``slo_ms`` by ``ShownMetric.key``, ``at`` its place on ``ReportData.axes``.

    ``at_req_per_s`` is the rate of these figures: where the layout was seen to hold none, the lowest that it missed.
    ``attainment_at_least`` is the lower end of the 95 % interval. ``runs`` says how many there were, and whether a
    confirmation run held too.
    """

    layout: str
    devices: int
    meets_slo: bool
    runs: str
    held_req_per_s: float | None
    at_req_per_s: float | None
    slo_ms: Mapping[str, ShownSpread | None]
    attainment: float | None
    attainment_at_least: float | None
    usd_per_hour: float | None
    usd_per_million_tokens: float | None
    at: tuple[ShownSpread | None, ShownSpread | None]
    on_front: bool


@dataclass(frozen=True, slots=True)
class ShownBudget:
    """What was spent of a budget, in its unit; ``limit`` is None where none was set."""

    name: str
    spent: float
    limit: float | None


@dataclass(frozen=True, slots=True)
class ShownFile:
    """An emitted file, relative to the report: what it is and the command that uses it."""

    name: str
    what: str
    use: str | None = None


@dataclass(frozen=True, slots=True)
class ShownRank:
    """One rank: its name, and the node and the device of that node on which it runs, both from 0."""

    name: str
    node: int
    device: int


@dataclass(frozen=True, slots=True)
class ShownLink:
    """What one request sends from one rank to another, in MB (10^6 bytes), and by which kind of parallelism."""

    first: str
    second: str
    kind: str
    mb: float


@dataclass(frozen=True, slots=True)
class ShownRanks:
    """A layout on its nodes: the ranks of all replicas, and the links within them."""

    layout: str
    gpus_per_node: int
    ranks: tuple[ShownRank, ...]
    links: tuple[ShownLink, ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page.

    ``headline`` is one sentence, ``why`` the paragraphs that explain the decision; ``request`` and ``facts`` are
    (label, value) pairs of what was asked, and of versions and machine. ``simulated`` says that no figure is from a
    real engine, ``cautions`` what was not measured of the devices.
    ``standings`` are the measured layouts, best first, ``axes`` the objectives of the Pareto front.
    ``ranks`` is the winner on its nodes; ``beliefs`` what the search believed last. ``ended`` is False of a study that
    goes on.
    """

    study: str
    model: str
    headline: str
    why: tuple[str, ...]
    metrics: tuple[ShownMetric, ...]
    request: tuple[tuple[str, str], ...]
    funnel: tuple[Stage, ...]
    layouts: tuple[ShownLayout, ...]
    files: tuple[ShownFile, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    simulated: bool = False
    cautions: tuple[str, ...] = ()
    standings: tuple[ShownLayoutSummary, ...] = ()
    axes: tuple[str, str] | None = None
    budget: tuple[ShownBudget, ...] = ()
    ranks: ShownRanks | None = None
    beliefs: ShownBeliefs | None = None
    ended: bool = True

    @property
    def winner(self) -> ShownLayout | None:
        """The chosen layout, if there is one."""
        return next((row for row in self.layouts if row.fate is Fate.WINNER), None)

    @property
    def launched(self) -> tuple[ShownLayout, ...]:
        """Layouts that a trial tried to start, in the order of their trials."""
        rows = [(row.trial.number, row) for row in self.layouts if row.trial is not None]
        return tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))
