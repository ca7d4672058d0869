"""What an operator asks: one pydantic model behind every door.

Unknown keys, wrong units and impossible values are refused; ``tuner.ask.request_document`` says with what words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuner.ask.engine_settings import Engine as Engine
from tuner.ask.profile import canonical_gpu
from tuner.ask.sections import Count, Document, Positive
from tuner.ask.workload import Arrival as Arrival  # the sections of a request are found here
from tuner.ask.workload import TokenLengths as TokenLengths
from tuner.ask.workload import Workload as Workload
from tuner.errors import BadInput

DEFAULT_PERCENTILE = 99.0  # where a metric is shown that the SLO does not name


class Metric(StrEnum):
    """Latency metrics as the vLLM documentation defines them; TPOT = (E2E − TTFT) / (output tokens − 1)."""

    TTFT = "ttft"
    TPOT = "tpot"
    ITL = "itl"
    E2E = "e2e"

    @property
    def least_tokens(self) -> int:
        """Output tokens below which an answer does not have the metric: TPOT and ITL need a second one."""
        return 2 if self in (Metric.TPOT, Metric.ITL) else 1


def _read_key(given: object) -> object:
    """A key as JSON has it, ``ttft:99.0``, in its two parts."""
    return given.split(":") if isinstance(given, str) else given


# What a target bounds: a metric at a percentile.
TargetKey = Annotated[
    tuple[Metric, float],
    BeforeValidator(_read_key),
    PlainSerializer(lambda key: f"{key[0].value}:{key[1]!r}", return_type=str, when_used="json"),
]


class Objective(StrEnum):
    """What the winner is best at, among the layouts that meet the SLO."""

    MIN_GPUS = "min_gpus"
    MAX_GOODPUT = "max_goodput"
    MIN_LATENCY = "min_latency"
    MIN_COST = "min_cost"


class Isolation(StrEnum):
    """What trials side by side may share, beside the cluster."""

    NODE = "node"  # nothing starts on a node where a trial is measured, and no two trials share a node's NICs
    NONE = "none"


class SloTarget(Document):
    """One target: the ``percentile`` of ``metric`` may be at most ``ms`` milliseconds."""

    metric: Metric
    percentile: Annotated[float, Field(gt=0, le=100, strict=True)]
    ms: Positive

    def __str__(self) -> str:
        return f"{self.metric.value} p{self.percentile:g} ≤ {self.ms:g} ms"

    @property
    def key(self) -> TargetKey:
        """What it bounds; values are kept by it."""
        return self.metric, self.percentile

    @classmethod
    def parse(cls, text: str, where: str = "--slo") -> SloTarget:
        """A target written as ``METRIC:pPERCENTILE:MS``, such as ``ttft:p99:500``; raises BadInput for another text."""
        allowed = "METRIC:pPERCENTILE:MS such as ttft:p99:500, with the metric one of " + ", ".join(Metric)
        found = re.fullmatch(r"([a-z0-9]+):p([0-9.]+):([0-9.]+)(?:ms)?", text.strip().lower())
        try:
            metric, percentile, ms = found.groups() if found else ("", "", "")
            return cls(metric=Metric(metric), percentile=float(percentile), ms=float(ms))
        except ValueError:  # pydantic's ValidationError is one
            raise BadInput(where, text, allowed) from None


def require_defined(slo: Sequence[SloTarget], longest_output_tokens: int, where: str = "slo") -> None:
    """Refuse, with BadInput at ``where``, a target whose metric no answer has that is at most so many tokens long; the
    rule is told in ``tuner.ask.slo``."""
    for target in slo:
        if longest_output_tokens < target.metric.least_tokens:
            allowed = f"targets of ttft or e2e: every answer has one output token, and so no {target.metric.value}"
            raise BadInput(where, str(target), allowed)


class ClusterSpec(Document):
    """Equal nodes of one GPU: the whole cluster, or a group of its nodes. ``gpu`` is a hardware profile's name, or a
    path to one; what else clearly means one becomes its name.

    ``usd_per_gpu_hour`` replaces the profile's price; ``node_selector`` the Kubernetes labels by which pods find it.
    """

    gpu: Annotated[str, Field(min_length=1)]
    nodes: Count = 1
    gpus_per_node: Count
    inter_node_gb_per_s: Positive | None = None
    fabric: str | None = None
    usd_per_gpu_hour: Positive | None = None
    node_selector: dict[str, str] | None = None

    @field_validator("gpu")
    @classmethod
    def _by_its_profile(cls, gpu: str) -> str:
        return canonical_gpu(gpu)

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.nodes * self.gpus_per_node


NodeGroups = Annotated[tuple[ClusterSpec, ...], Field(min_length=1)]


LONGEST_WARM_UP = 4.0  # × its usual length


class Load(Document):
    """How a trial is loaded: ``rates`` in requests/s, rising; each window lasts ``seconds``.

    Left out, the rates are shares of ``workload.arrival.requests_per_s`` (see ``TuneRequest.rates_req_per_s``). The
    warm-up before them lasts about ``warmup_seconds``: less where latencies certainly fall no more, up to
    four times that while they do; where it is ``fixed``, so long whatever is seen.
    """

    rates_req_per_s: tuple[Positive, ...] | None = None
    seconds: Positive = 30.0
    warmup_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 5.0
    warmup: Literal["detected", "fixed"] = "detected"
    request_timeout_s: Positive = 120.0

    @field_validator("rates_req_per_s")
    @classmethod
    def _rising(cls, rates: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if rates is not None and (not rates or list(rates) != sorted(set(rates))):
            raise ValueError("a list of rising rates")
        return rates


class Budget(Document):
    """When to stop launching: trials, minutes of wall time, GPU-hours held or US dollars, whichever comes first; and
    ``horizon_hours``, within which what a launch may save has to pay for it."""

    launches: Count = 6
    minutes: Positive = 60.0
    gpu_hours: Positive | None = None
    usd: Positive | None = None
    horizon_hours: Positive = 24.0


class TuneRequest(Document):
    """The whole request.

    ``cluster`` is one kind of node or a list of node groups with a GPU each. ``objective`` may be written as a list of
    two: then the first chooses the winner, ``second_objective`` breaks its ties, and the decision shows the Pareto
    front of both. ``attainment`` is the share of requests that must meet every target, beside the targets' percentiles.
    """

    model: Annotated[str, Field(min_length=1)]
    cluster: ClusterSpec | NodeGroups | Literal["ray"]
    workload: Workload
    slo: Annotated[tuple[SloTarget, ...], Field(min_length=1)]
    attainment: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    objective: Objective = Objective.MIN_GPUS
    second_objective: Objective | None = None
    space: str | dict[str, Any] = "dense"
    engine: Engine = Engine()
    load: Load = Load()
    budget: Budget = Budget()
    isolation: Isolation = Isolation.NODE

    @model_validator(mode="before")
    @classmethod
    def _two_objectives(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("objective"), list | tuple):
            return value
        named = value["objective"]
        if not 1 <= len(named) <= 2 or any(one not in list(Objective) for one in named) or len(set(named)) < len(named):
            return value  # refused as the value of ``objective``
        return value | {"objective": named[0], "second_objective": named[1] if len(named) == 2 else None}

    @field_validator("second_objective")
    @classmethod
    def _objectives_differ(cls, second: Objective | None, info: ValidationInfo) -> Objective | None:
        if second is not None and second is info.data.get("objective"):
            raise ValueError("another objective than the first")
        return second

    @field_validator("cluster")
    @classmethod
    def _one_group_per_gpu(cls, cluster: Any) -> Any:
        if isinstance(cluster, tuple):
            gpus = [group.gpu for group in cluster]
            if len(set(gpus)) < len(gpus):
                raise ValueError("each GPU in one node group")
            return cluster if len(cluster) > 1 else cluster[0]
        return cluster

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """One objective, or two where the Pareto front is asked for; the first chooses the winner."""
        return (self.objective, self.second_objective) if self.second_objective else (self.objective,)

    @property
    def groups(self) -> tuple[ClusterSpec, ...]:
        """The node groups; none while the cluster still has to be discovered."""
        if isinstance(self.cluster, ClusterSpec):
            return (self.cluster,)
        return () if isinstance(self.cluster, str) else self.cluster

    def on(self, gpu: str | None) -> TuneRequest:
        """The request as the layouts of one node group see it (``ParallelLayout.gpu``): its cluster is that group.

        The request itself where the cluster has one group; raises BadInput for a GPU that no group has.
        """
        if gpu is None or not isinstance(self.cluster, tuple):
            return self
        found = next((group for group in self.cluster if group.gpu == gpu), None)
        if found is None:
            raise BadInput("layout.gpu", gpu, ", ".join(group.gpu for group in self.cluster))
        return self.model_copy(update={"cluster": found})

    def of_release(self, version: str | None) -> TuneRequest:
        """The same request for that release of vLLM; None: for whatever is there."""
        return self.model_copy(update={"engine": self.engine.model_copy(update={"version": version})})

    @property
    def rates_req_per_s(self) -> tuple[float, ...]:
        """Rates of the load steps, rising; the last is the asked rate, or beyond it where goodput is the objective."""
        if self.load.rates_req_per_s is not None:
            return self.load.rates_req_per_s
        asked = self.workload.arrival.requests_per_s
        shares = (0.5, 1.0, 1.5, 2.0) if Objective.MAX_GOODPUT in self.objectives else (0.5, 1.0)
        return tuple(asked * share for share in shares)

    @property
    def shown_metrics(self) -> tuple[TargetKey, ...]:
        """(metric, percentile) pairs that tables and charts show: those of the SLO, and TTFT and TPOT in any case."""
        named = dict.fromkeys(target.key for target in self.slo)
        metrics = {metric for metric, _ in named}
        for metric in (Metric.TTFT, Metric.TPOT):
            if metric not in metrics:
                named[(metric, DEFAULT_PERCENTILE)] = None
        return tuple(named)

    @property
    def max_model_len(self) -> int:
        """Longest sequence that the workload can make, in tokens, or what the operator set."""
        return self.engine.max_model_len or self.workload.longest_tokens
