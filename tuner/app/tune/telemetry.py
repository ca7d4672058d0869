"""What Prometheus sees of a running study.

Every name starts with ``parlay_`` and carries its unit; labels are the study, the layout and small closed sets, never
a request. The registry is the object's own, so that two of them can live in one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from tuner.ask.deployment import Deployment
from tuner.ask.request import Metric, TuneRequest
from tuner.errors import BadInput
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, StepResult, TrialResult, TrialState

_TOKEN_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_REQUEST_BUCKETS_S = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.35,
    0.5,
    0.75,
    1,
    1.5,
    2,
    3,
    5,
    7.5,
    10,
    20,
    30,
    60,
    120,
    300,
)
_HISTOGRAMS: dict[Metric, tuple[str, str, tuple[float, ...]]] = {
    Metric.TTFT: ("parlay_time_to_first_token_seconds", "From the send to the first token", _REQUEST_BUCKETS_S),
    Metric.TPOT: ("parlay_time_per_output_token_seconds", "(E2E - TTFT) / (output tokens - 1)", _TOKEN_BUCKETS_S),
    Metric.ITL: ("parlay_inter_token_latency_seconds", "Between two events with tokens", _TOKEN_BUCKETS_S),
    Metric.E2E: ("parlay_end_to_end_latency_seconds", "From the send to the last token", _REQUEST_BUCKETS_S),
}
_BY_LAYOUT = ("study", "layout")


class Telemetry:
    """The metrics of all studies of this process, and the HTTP endpoint that shows them.

    The methods follow the events of a study; each may be called from any thread.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None
        self._latency = {
            metric: Histogram(name, f"{text}, completed requests.", _BY_LAYOUT, buckets=buckets, registry=self.registry)
            for metric, (name, text, buckets) in _HISTOGRAMS.items()
        }
        self._target = self._gauge("slo_target_seconds", "SLO target.", "study", "metric", "percentile")
        self._attainment = self._gauge("attainment_ratio", "Share of requests that met every target.", *_BY_LAYOUT)
        self._goodput = self._gauge(
            "goodput_requests_per_second", "Rate of requests that met every target, last load step.", *_BY_LAYOUT
        )
        self._offered = self._gauge(
            "offered_load_requests_per_second", "Rate of requests sent, current load step.", *_BY_LAYOUT
        )
        self._lag = self._gauge("schedule_lag_p99_seconds", "p99 of actual after intended send time.", *_BY_LAYOUT)
        self._requests = self._counter("requests", "Requests by outcome.", *_BY_LAYOUT, "outcome")
        self._trials = self._counter("trials", "Finished trials.", "study", "outcome", "reason")
        self._running = self._gauge("running_trial_info", "1 for the trial that runs now.", *_BY_LAYOUT, "trial")
        self._dropped = self._gauge("dropped_candidates", "Candidates never launched, by reason.", "study", "reason")
        self._kept = self._gauge("kept_candidates", "Candidates that pruning left.", "study")
        self._spent = {
            "launches": self._gauge("spent_launches", "Launches that count for the budget.", "study"),
            "seconds": self._gauge("spent_seconds", "The study's own time.", "study"),
            "device_seconds": self._gauge("spent_device_seconds", "Time for which devices were held, summed.", "study"),
            "usd": self._gauge("spent_usd", "Price of that time, in US dollars.", "study"),
        }
        self._ratio = self._gauge("predicted_to_measured_ratio", "Predicted / measured.", *_BY_LAYOUT, "metric")

    def study_started(self, study: str, request: TuneRequest) -> None:
        """Show the targets of the study."""
        for target in request.slo:
            labels = (study, target.metric.value, f"{target.percentile:g}")
            self._target.labels(*labels).set(target.ms / 1e3)

    def candidates(self, study: str, dropped: Mapping[str, int], kept: int) -> None:
        """Show how many candidates each reason dropped, and how many are left."""
        for reason, count in dropped.items():
            self._dropped.labels(study, reason).set(count)
        self._kept.labels(study).set(kept)

    def trial_started(self, study: str, layout: Deployment, number: int) -> None:
        """Show the trial as the one that runs."""
        self._running.labels(study, str(layout), str(number)).set(1)

    def step_started(self, study: str, layout: Deployment, step: LoadStep) -> None:
        """Show the rate that is offered now."""
        self._offered.labels(study, str(layout)).set(step.rate_req_per_s)

    def step_measured(
        self,
        study: str,
        layout: Deployment,
        result: StepResult,
        samples_s: Mapping[Metric, Sequence[float]] | None = None,
    ) -> None:
        """Show one load step; a warm-up is not shown. ``samples_s`` holds each metric's samples in seconds."""
        if result.step.warmup:
            return
        labels = (study, str(layout))
        self._offered.labels(*labels).set(result.step.rate_req_per_s)
        self._set(self._attainment, labels, result.attainment)
        self._set(self._goodput, labels, result.goodput_req_per_s)
        lag_ms = result.schedule_lag_p99_ms
        self._set(self._lag, labels, None if lag_ms is None else lag_ms / 1e3)
        self._requests.labels(*labels, "completed").inc(result.completed)
        self._requests.labels(*labels, "failed").inc(result.failed)
        for metric, values_s in (samples_s or {}).items():
            histogram = self._latency[metric].labels(*labels)
            for value_s in values_s:
                histogram.observe(value_s)

    def trial_finished(self, study: str, result: TrialResult) -> None:
        """Count the trial by state and failure reason (``none`` where it did not fail); it runs no more."""
        if result.state is TrialState.RUNNING:
            raise BadInput("trial.state", result.state.value, "a final state")
        reason = result.failure.value if result.failure is not None else "none"
        self._trials.labels(study, result.state.value, reason).inc()
        self._running.remove(study, str(result.deployment), str(result.number))
        self._offered.remove(study, str(result.deployment))

    def spent(self, study: str, spent: Spent) -> None:
        """Show what the study has used of its budgets; no price where none is known."""
        self._spent["launches"].labels(study).set(spent.launches)
        self._spent["seconds"].labels(study).set(spent.minutes * 60)
        self._spent["device_seconds"].labels(study).set(spent.gpu_hours * 3600)
        self._set(self._spent["usd"], (study,), spent.usd)

    def ratio(self, study: str, layout: Deployment, metric: Metric, predicted_ms: float, measured_ms: float) -> None:
        """Show how far off the prediction was: 1 is right, above 1 too slow. A measurement of 0 has no ratio."""
        if measured_ms > 0:
            self._ratio.labels(study, str(layout), metric.value).set(predicted_ms / measured_ms)

    def forget_all_but(self, study: str) -> None:
        """Show other studies no more: a process that runs one after the other would else show them all for ever."""
        for collector in list(self.registry._collector_to_names):  # no public way to all metrics of a registry
            for labels in {tuple(sample.labels.items()) for one in collector.collect() for sample in one.samples}:
                name = dict(labels).get("study")
                if name is not None and name != study:
                    collector.remove_by_labels({"study": name})  # type: ignore[attr-defined]

    def start_http(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Serve ``/metrics`` on a thread and return the port, which the system picks when 0 was asked.

        Raises BadInput when the address cannot be taken.
        """
        if self._server is not None:
            raise BadInput("metrics address", f"{host}:{port}", "one endpoint; it already runs")
        try:
            self._server, self._thread = start_http_server(port, host, registry=self.registry)
        except (OSError, OverflowError) as error:
            raise BadInput("metrics address", f"{host}:{port}", f"a free port of this machine ({error})") from None
        return int(self._server.server_port)

    def stop(self) -> None:
        """End the endpoint; safe to call twice."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"parlay_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"parlay_{name}", text, labels, registry=self.registry)

    @staticmethod
    def _set(gauge: Gauge, labels: tuple[str, ...], value: float | None) -> None:
        """Show a value; where there is none, show none rather than an old one or 0."""
        if value is not None:
            gauge.labels(*labels).set(value)
        else:
            gauge.remove(*labels)
