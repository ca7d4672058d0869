"""The latencies that engines counted themselves: vLLM's histograms, as buckets by engine and metric.

Names differ between versions: what vLLM calls ``inter_token_latency_seconds`` since 0.11 was
``time_per_output_token_seconds`` before, though it was never TPOT (vLLM's pull requests 24110 and 32661). A request's
TPOT is ``request_time_per_output_token_seconds``; one of a single token counts there as 0 s, which meets every target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serve.measure.exposition import engine_samples, read_text
from tuner.ask.request import Metric
from tuner.stats.buckets import Buckets

# metric → names without the prefix ``vllm:``, the newest first
_NAMES: dict[Metric, tuple[str, ...]] = {
    Metric.TTFT: ("time_to_first_token_seconds",),
    Metric.TPOT: ("request_time_per_output_token_seconds",),
    Metric.ITL: ("inter_token_latency_seconds", "time_per_output_token_seconds"),
    Metric.E2E: ("e2e_request_latency_seconds",),
}
_WANTED = tuple(f"{name}_bucket{{" for names in _NAMES.values() for name in names)


@dataclass(frozen=True, slots=True)
class EngineLatencies:
    """Of one engine, for one model: histograms in seconds since its start; a metric that it does not show is absent."""

    model: str
    latencies: Mapping[Metric, Buckets]


def parse_latencies(text: str) -> dict[str, EngineLatencies]:
    """The histograms in a Prometheus text by engine; empty where it has none of vLLM's.

    An engine that shows several models (its adapters) is several. Raises ValueError for a line of ours that is not of
    the format.
    """
    found: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    for sample in engine_samples(text, _WANTED):
        names = found.setdefault((sample.engine, sample.labels.get("model_name", "")), {})
        counts = names.setdefault(sample.name.removesuffix("_bucket"), {})
        bound = float(sample.labels.get("le", "no bound"))
        counts[bound] = counts.get(bound, 0.0) + sample.value
    return {f"{engine}/{model}": EngineLatencies(model, _latencies(names)) for (engine, model), names in found.items()}


def _latencies(names: Mapping[str, Mapping[float, float]]) -> dict[Metric, Buckets]:
    shown = {metric: next((names[name] for name in of if name in names), {}) for metric, of in _NAMES.items()}
    return {metric: buckets for metric, counts in shown.items() if (buckets := Buckets.of(counts)) is not None}


def fetch_latencies(url: str) -> tuple[dict[str, EngineLatencies] | None, str | None]:
    """One GET: the histograms by engine, or why nobody can read them; empty where there are none of vLLM's."""
    text, why = read_text(url, {}, None)
    if text is None:
        return None, why
    try:
        return parse_latencies(text), None
    except ValueError as error:
        return None, f"{url} is not in Prometheus' text format: {error}"
