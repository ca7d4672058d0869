"""One window of load on one endpoint, as it was measured: what was seen, and what that says of the SLO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from serve.load.request_fields import VLLM_FIELDS, Length, RequestFields
from serve.load.request_sample import Outcome, Sample
from serve.load.saturation import ClientBound, ClientLoad
from serve.measure.engine_metrics import EngineWindow
from serve.measure.summary import WindowFigures
from serve.measure.window_requests import WindowOrder
from tuner.ask.slo import Verdict


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """A window while it runs; the medians are over the latest requests that completed. ``expected`` is None in a
    closed loop."""

    order: WindowOrder
    elapsed_s: float
    expected: int | None
    sent: int
    in_flight: int
    completed: int
    failed: int
    ttft_p50_ms: float | None
    tpot_p50_ms: float | None
    waiting: float | None = None
    kv_cache_share: float | None = None

    @property
    def words(self) -> str:
        """In one line, for a person."""
        asked = "" if self.expected is None else f"/{self.expected}"
        failed = f", {self.failed} failed" if self.failed else ""
        ttft = "–" if self.ttft_p50_ms is None else f"{self.ttft_p50_ms:,.0f}"
        tpot = "–" if self.tpot_p50_ms is None else f"{self.tpot_p50_ms:,.1f}"
        head = f"{self.order.name}, {self.completed}{asked} answered{failed}"
        return f"{head}, TTFT p50 {ttft} ms, TPOT p50 {tpot} ms"


@dataclass(frozen=True, slots=True)
class Window:
    """A measured window: everything that was seen, and the figures folded from it.

    ``client_bound`` says where the client was the bottleneck, ``unsteady`` how the queue grew; ``ended_early`` is the
    verdict that ended the window before its time, ``interrupted`` that its owner did. ``warm_up_s`` are the first
    seconds that count and look like warm-up all the same. ``fields`` are those of its requests. ``not_warm`` says where
    a warm-up ended before the engine was warm.
    """

    order: WindowOrder
    samples: tuple[Sample, ...]
    figures: WindowFigures
    client: ClientLoad | None
    client_bound: ClientBound | None
    unsteady: str | None
    engine: EngineWindow
    start_s: float
    ended_early: Verdict | None
    interrupted: bool = False
    warm_up_s: float | None = None
    fields: RequestFields = VLLM_FIELDS
    not_warm: str | None = None

    @property
    def counted(self) -> tuple[Sample, ...]:
        """The samples that count: all but those of the lead-in."""
        return tuple(sample for sample in self.samples if sample.intended_s >= self.order.lead_s)

    @property
    def invalid(self) -> str | None:
        """Why the window tells nothing about the server; None where it does."""
        if self.client_bound is not None:
            return f"the client was the bottleneck: {self.client_bound.words}"
        if self.engine.restarted:
            return f"an engine restarted in the window: {', '.join(self.engine.restarted)}"
        if not self.figures.completed and self.ended_early is None:
            return failures(self.samples) if self.figures.failed else "no request ended in the window"
        if self.unsteady is not None and self._verdict(valid=True) is Verdict.MET:
            return f"not steady, so a longer window may miss the SLO: {self.unsteady}"
        return None

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of its figures has to know of how the server counts and answers, a sentence each; of a warm-up,
        what the windows after it have to bear."""
        if self.order.warm_up is not None:
            return () if self.not_warm is None else (self.not_warm,)
        broken = self.figures.errors.get(Outcome.SERVER_ERROR.value, 0)
        if not broken or self.fields.length is Length.FREE:
            return self.figures.tokens.cautions
        words = f"{broken} answers ended with an error in their stream; requests held {self.fields.length.value}"
        return (*self.figures.tokens.cautions, f"{words}, with which models that must end by themselves fail so")

    @property
    def verdict(self) -> Verdict:
        """What the window says of the SLO; UNKNOWN too where none was asked."""
        return self._verdict(valid=self.invalid is None)

    def _verdict(self, valid: bool) -> Verdict:
        return self.figures.says(replace(self.figures.seen, ended_early=self.ended_early, valid=valid))

    @property
    def certain(self) -> bool:
        """True where chance in the arrivals cannot turn the verdict."""
        found = self.verdict
        return found is not Verdict.UNKNOWN and (self.ended_early is found or self.figures.certain)


def failures(samples: Sequence[Sample]) -> str:
    """How many requests failed and of what, with an example; at least one did."""
    failed = [sample for sample in samples if not sample.ok and sample.outcome is not Outcome.CUT_OFF]
    (name, count), *_ = Counter(sample.error for sample in failed).most_common(1)
    example = next((sample.detail for sample in failed if sample.error == name), None)
    words = f"{len(failed)} of {len(samples)} requests failed; most often ({count}): {name}"
    return words + (f", for example {example}" if example else "")
