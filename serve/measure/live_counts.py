"""What engines have counted since they began, as vLLM's metrics tell it: the sums behind one look at what serves.

Ray 2.60's agents keep the buckets of a histogram alone, and tell as its sum what values in the middle of their buckets
would add up to. So tokens are taken from vLLM's counters, which are exact, where it has them; mean times are not.

Names differ between versions: counters carry ``_total`` where the exporter adds it. A request that was ``abort``ed was
given up by whoever asked; ``error`` is the engine's own. What is not shown is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from serve.measure.engine_latencies import parse_latencies
from serve.measure.engine_metrics import EngineFigures, parse_metrics
from serve.measure.exposition import EngineSample, engine_samples
from tuner.ask.request import Metric
from tuner.stats.buckets import Buckets

_LENGTHS = {"prompt": "request_prompt_tokens", "output": "request_generation_tokens"}
_TOKENS = {
    "prompt": ("prompt_tokens_total", "prompt_tokens"),
    "output": ("generation_tokens_total", "generation_tokens"),
}
_COUNTERS = tuple(name for names in _TOKENS.values() for name in names)
# metric → names without prefix, the newest first, as those of its buckets
_SUMS: dict[Metric, tuple[str, ...]] = {
    Metric.TTFT: ("time_to_first_token_seconds",),
    Metric.TPOT: ("request_time_per_output_token_seconds",),
    Metric.ITL: ("inter_token_latency_seconds", "time_per_output_token_seconds"),
    Metric.E2E: ("e2e_request_latency_seconds",),
}
_FINISHED = ("request_success_total", "request_success")
_HISTOGRAMS = (*_LENGTHS.values(), *(name for names in _SUMS.values() for name in names))
_WANTED = (*(f"{name}_" for name in _HISTOGRAMS), *(f"{name}{{" for name in (*_FINISHED, *_COUNTERS)))


_NO_FIGURES = EngineFigures()


@dataclass(frozen=True, slots=True)
class Summed:
    """A histogram with the sum of its values; ``buckets`` None where they are no histogram."""

    total: float
    count: float
    buckets: Buckets | None = None


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """One engine, for one model, since it began. ``replica`` is Ray Serve's id of it, or empty; ``times`` are in s by
    metric, ``finished`` counts requests by vLLM's reason, ``figures`` has the queue and the prefix cache."""

    model: str
    replica: str
    latencies: Mapping[Metric, Buckets] = field(default_factory=dict)
    times: Mapping[Metric, Summed] = field(default_factory=dict)
    prompt: Summed | None = None
    output: Summed | None = None
    finished: Mapping[str, float] | None = None
    figures: EngineFigures = _NO_FIGURES


@dataclass(slots=True)
class _Found:
    model: str
    replica: str
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    finished: dict[str, dict[str, float]] = field(default_factory=dict)

    def take(self, sample: EngineSample) -> None:
        if sample.name in _FINISHED:
            reasons = self.finished.setdefault(sample.name, {})
            reason = sample.labels.get("finished_reason", "")
            reasons[reason] = reasons.get(reason, 0.0) + sample.value
            return
        if sample.name in _COUNTERS:
            self.counters[sample.name] = self.counters.get(sample.name, 0.0) + sample.value
            return
        name, _, part = sample.name.rpartition("_")
        if part == "bucket":
            bounds, bound = self.buckets.setdefault(name, {}), float(sample.labels.get("le", "no bound"))
            bounds[bound] = bounds.get(bound, 0.0) + sample.value
        elif part in ("sum", "count") and not math.isnan(sample.value):
            into = self.sums if part == "sum" else self.counts
            into[name] = into.get(name, 0.0) + sample.value

    def summed(self, name: str) -> Summed | None:
        if name not in self.sums or name not in self.counts:
            return None
        return Summed(self.sums[name], self.counts[name], Buckets.of(self.buckets.get(name, {})))

    def lengths(self, kind: str) -> Summed | None:
        """The tokens of requests that have ended, their sum from the counter where there is one."""
        found = self.summed(_LENGTHS[kind])
        exact = next((self.counters[name] for name in _TOKENS[kind] if name in self.counters), None)
        return found if found is None or exact is None else Summed(exact, found.count, found.buckets)


def parse_counts(text: str) -> dict[str, EngineCounts]:
    """All that a Prometheus text tells of vLLM's engines, by engine and model; empty where it tells of none.

    Raises ValueError for a line of ours that is not of the format.
    """
    latencies, figures = parse_latencies(text), parse_metrics(text)
    found: dict[str, _Found] = {}
    for sample in engine_samples(text, _WANTED):
        model, key = sample.labels.get("model_name", ""), sample.engine
        one = found.setdefault(f"{key}/{model}", _Found(model, sample.labels.get("ReplicaId", "")))
        one.take(sample)
    return {key: _counts(key, one, latencies, figures) for key, one in found.items()}


def _counts(
    key: str, one: _Found, latencies: Mapping[str, object], figures: Mapping[str, EngineFigures]
) -> EngineCounts:
    shown = latencies.get(key)
    times = {m: found for m, names in _SUMS.items() if (found := _first(one, names)) is not None}
    engine = key.removesuffix(f"/{one.model}")
    return EngineCounts(
        model=one.model,
        replica=one.replica,
        latencies=getattr(shown, "latencies", {}),
        times=times,
        prompt=one.lengths("prompt"),
        output=one.lengths("output"),
        finished=next((one.finished[name] for name in _FINISHED if name in one.finished), None),
        figures=figures.get(engine, _NO_FIGURES),
    )


def _first(one: _Found, names: tuple[str, ...]) -> Summed | None:
    return next((found for name in names if (found := one.summed(name)) is not None), None)
