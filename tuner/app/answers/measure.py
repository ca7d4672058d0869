"""What ``parlay measure --json`` prints: the window that stands for the run, then all windows."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from serve.measure.engine_metrics import EngineWindow
from serve.measure.summary import Latency, TargetFigures
from serve.measure.window import Window
from tuner.app.answers.base import Answer, Interval
from tuner.app.answers.tokens import TokensAnswer, tokens_answer
from tuner.ask.arrivals import OfferedLoad
from tuner.ask.request import Metric
from tuner.ask.slo import Verdict
from tuner.stats.rate_search import RateFound


class SentLoadAnswer(Answer):
    """What was offered."""

    name: str = Field(description="The load in words.")
    rate_req_per_s: float | None = Field(description="Rate of an open load, requests/s; null of a closed loop.")
    users: int | None = Field(description="Users of a closed loop; null of an open load.")
    too_long: int = Field(description="Requests of a trace beyond max_model_len, skipped or truncated.")


class MeasuredTargetAnswer(Answer):
    """One target of the SLO, its value and how sure it is."""

    target: str = Field(description="The target in words.")
    metric: str = Field(description="ttft, tpot, itl or e2e.")
    percentile: float = Field(description="At which percentile, 0 to 100.")
    limit_ms: float = Field(description="The limit, ms.")
    ms: float | None = Field(description="The value, ms; null where nothing was measured.")
    interval_ms: Interval | None = Field(description="Its 95 % interval, ms; null of too few requests.")
    attainment: float | None = Field(description="Share of the requests within the limit, 0 to 1.")
    met: bool | None = Field(description="Whether the value is within the limit; null where nothing was measured.")
    certain: bool = Field(description="Whether the whole interval lies on one side of the limit.")


class LatencyAnswer(Answer):
    """One latency, ms."""

    count: int = Field(description="Values.")
    mean: float | None = Field(description="Mean, ms; null of no value.")
    p50: float | None = Field(description="Median, ms.")
    p90: float | None = Field(description="90th percentile, ms.")
    p95: float | None = Field(description="95th percentile, ms.")
    p99: float | None = Field(description="99th percentile, ms.")
    intervals: dict[str, Interval | None] = Field(
        description="95 % interval of each percentile, ms; null of too few values."
    )
    histogram: str | None = Field(description="All values in HdrHistogram's text, µs; null of no value.")


class LagAnswer(Answer):
    """How late requests were sent, ms."""

    p50: float | None = Field(description="Median, ms.")
    p99: float | None = Field(description="99th percentile, ms.")
    max: float | None = Field(description="Latest, ms.")


class ClientAnswer(Answer):
    """The load generator itself; null where it was not watched."""

    bottleneck: bool = Field(description="Whether it was the bottleneck: the window then says nothing of the server.")
    reason: str | None = Field(description="In which way; null where it was not.")
    cpu_share: float | None = Field(description="Share of a core that it used.")
    loop_lag_p99_ms: float | None = Field(description="99th percentile of its event loop's lag, ms.")
    workers: int | None = Field(description="Client processes.")


class EngineAnswer(Answer):
    """What the engines said of the window: sums over them, the KV cache of the fullest; null where they do not say."""

    waiting_mean: float | None = Field(description="Requests in the queue, mean.")
    waiting_max: float | None = Field(description="Requests in the queue, most.")
    running_mean: float | None = Field(description="Requests running, mean.")
    running_max: float | None = Field(description="Requests running, most.")
    kv_cache_share_mean: float | None = Field(description="KV cache in use, mean, 0 to 1.")
    kv_cache_share_max: float | None = Field(description="KV cache in use, most, 0 to 1.")
    preemptions: float | None = Field(description="Sequences that lost their place in the KV cache.")
    prefix_queries_tokens: float | None = Field(description="Prompt tokens looked up in the prefix cache.")
    prefix_hits_tokens: float | None = Field(description="Of those, tokens that it held.")
    prefix_hit_share: float | None = Field(description="The share of the two, 0 to 1.")
    scrapes: int = Field(description="How often the engines were asked.")
    restarted: list[str] = Field(description="Engines whose counters fell.")
    missing: str | None = Field(description="Why there are no figures; null where there are.")


class WindowAnswer(Answer):
    """One window of load."""

    load: SentLoadAnswer = Field(description="The load of the window.")
    valid: bool = Field(description="Whether the window says anything of the server.")
    invalid_reason: str | None = Field(description="Why it does not; null where it does.")
    steady: bool = Field(description="Whether the queue did not grow throughout the window.")
    warm_up_left_s: float | None = Field(description="First seconds that count and look like warm-up, s; null of none.")
    ended_early: str | None = Field(description="met or missed, where that was certain before the end; else null.")
    meets_slo: bool | None = Field(description="Whether the SLO was met; null without one, or of an invalid window.")
    verdict_certain: bool | None = Field(description="Whether chance cannot turn that; null where there is no verdict.")
    slo: list[MeasuredTargetAnswer] = Field(description="Target by target.")
    attainment: float | None = Field(description="Share of the requests that met every target, 0 to 1.")
    attainment_interval: Interval | None = Field(description="Its 95 % interval.")
    ttft_ms: LatencyAnswer = Field(description="From sending to the first token, ms.")
    tpot_ms: LatencyAnswer = Field(description="Mean time of each token after the first, ms.")
    itl_ms: LatencyAnswer = Field(description="Between two events that carry tokens, ms.")
    e2e_ms: LatencyAnswer = Field(description="From sending to the last token, ms.")
    ttft_from_intended_ms: LatencyAnswer = Field(description="TTFT from the intended send, ms.")
    offered_req_per_s: float | None = Field(description="Requests/s offered, of offered_s.")
    achieved_req_per_s: float | None = Field(description="Requests/s answered, of wall_s.")
    goodput_req_per_s: float | None = Field(description="Requests/s that met every target, of offered_s.")
    prompt_tok_per_s: float | None = Field(description="Prompt tokens/s, by the server's count where it tells one.")
    output_tok_per_s: float | None = Field(description="Output tokens/s.")
    tokens: TokensAnswer = Field(description="Tokens as asked for and as counted.")
    cautions: list[str] = Field(description="What to know of how the server counts and answers, a sentence each.")
    sent_fields: list[str] = Field(description="Fields of its requests beside model and prompt.")
    sent: int = Field(description="Requests sent that count.")
    completed: int = Field(description="Of those, requests answered whole.")
    failed: int = Field(description="Of those, requests that failed.")
    cut_off: int = Field(description="Of those, requests in flight when the window ended early.")
    errors: dict[str, int] = Field(description="Failures by kind.")
    lead_s: float = Field(description="Load before the window that does not count, s.")
    offered_s: float = Field(description="Time in which requests were offered, s.")
    wall_s: float = Field(description="The window, until its last answer where that came later, s.")
    schedule_lag_ms: LagAnswer = Field(description="Actual send less intended send, ms.")
    client: ClientAnswer = Field(description="The load generator itself.")
    engine: EngineAnswer = Field(description="The engines' own figures.")


class FoundRateAnswer(Answer):
    """What a search for the highest rate found; the limit lies between the two with 90 % probability."""

    rate_req_per_s: float | None = Field(description="Highest rate that was seen to meet the SLO, requests/s.")
    at_least_req_per_s: float | None = Field(
        description="Lower end, requests/s; null: it may lie below the lowest rate."
    )
    at_most_req_per_s: float | None = Field(description="Upper end, requests/s; null: it may lie beyond the highest.")
    windows: int = Field(description="Windows that it took.")
    end: str | None = Field(description="Why the search is over; null where it was not finished.")


class MeasureAnswer(WindowAnswer):
    """A whole run; the keys of a window are those of the one that stands for it."""

    url: str = Field(description="The server.")
    model: str = Field(description="Model name in the requests.")
    protocol: str = Field(description="chat or completions.")
    seed: int = Field(description="Of arrivals, lengths and prompts.")
    fallbacks: list[str] = Field(description="What the server refused, and what was sent in its place.")
    interrupted: bool = Field(description="Whether it was ended before its time by its owner.")
    seconds: float = Field(description="What the run took, s.")
    found_rate: FoundRateAnswer | None = Field(description="Null where no rate was searched for.")
    windows: list[WindowAnswer] = Field(description="Every window, in order.")
    files: dict[str, str] = Field(description="What was written, by kind.")


def window_answer(window: Window) -> WindowAnswer:
    """One window."""
    found, verdict = window.figures, window.verdict
    latencies = {f"{metric.value}_ms": latency_answer(found.latency.get(metric)) for metric in Metric}
    return WindowAnswer(
        load=SentLoadAnswer(
            name=window.order.name,
            rate_req_per_s=window.order.rate_req_per_s,
            users=window.order.users,
            too_long=window.order.load.too_long if isinstance(window.order.load, OfferedLoad) else 0,
        ),
        valid=window.invalid is None,
        invalid_reason=window.invalid,
        steady=window.unsteady is None,
        warm_up_left_s=window.warm_up_s,
        ended_early=window.ended_early.value if window.ended_early else None,
        meets_slo=verdict.holds,
        verdict_certain=None if verdict is Verdict.UNKNOWN else window.certain,
        slo=[target_answer(one) for one in found.targets],
        attainment=found.attainment,
        attainment_interval=found.attainment_interval,
        ttft_ms=latencies["ttft_ms"],
        tpot_ms=latencies["tpot_ms"],
        itl_ms=latencies["itl_ms"],
        e2e_ms=latencies["e2e_ms"],
        ttft_from_intended_ms=latency_answer(found.ttft_from_intended),
        offered_req_per_s=found.offered_req_per_s,
        achieved_req_per_s=found.achieved_req_per_s,
        goodput_req_per_s=found.goodput_req_per_s,
        prompt_tok_per_s=found.prompt_tok_per_s,
        output_tok_per_s=found.output_tok_per_s,
        tokens=tokens_answer(found.tokens),
        cautions=list(window.cautions),
        sent_fields=list(window.fields.names),
        sent=found.sent,
        completed=found.completed,
        failed=found.failed,
        cut_off=found.cut_off,
        errors=dict(found.errors),
        lead_s=window.order.lead_s,
        offered_s=found.offered_s,
        wall_s=found.wall_s,
        schedule_lag_ms=LagAnswer(
            p50=found.schedule_lag_p50_ms, p99=found.schedule_lag_p99_ms, max=found.schedule_lag_max_ms
        ),
        client=client_answer(window),
        engine=engine_answer(window.engine),
    )


def client_answer(window: Window) -> ClientAnswer:
    """The load generator in a window."""
    client, bound = window.client, window.client_bound
    return ClientAnswer(
        bottleneck=bound is not None,
        reason=None if bound is None else bound.words,
        cpu_share=client.cpu_share if client else None,
        loop_lag_p99_ms=client.loop_lag_p99_ms if client else None,
        workers=client.workers if client else None,
    )


def latency_answer(latency: Latency | None) -> LatencyAnswer:
    """Mean and percentiles in ms, the 95 % interval of each percentile, and all values as HdrHistogram's text (µs)."""
    if latency is None:
        return LatencyAnswer(
            count=0, mean=None, p50=None, p90=None, p95=None, p99=None, intervals={}, histogram=None
        )  # fmt: skip
    at = latency.at_ms
    return LatencyAnswer(
        count=latency.count,
        mean=latency.mean_ms,
        p50=at[50.0],
        p90=at[90.0],
        p95=at[95.0],
        p99=at[99.0],
        intervals={f"p{level:g}": value for level, value in latency.interval_ms.items()},
        histogram=latency.histogram.text(),
    )


def target_answer(found: TargetFigures) -> MeasuredTargetAnswer:
    """One SLO target, its value and how sure it is."""
    return MeasuredTargetAnswer(
        target=str(found.target),
        metric=found.target.metric.value,
        percentile=found.target.percentile,
        limit_ms=found.target.ms,
        ms=found.value_ms,
        interval_ms=found.interval_ms,
        attainment=found.attainment,
        met=found.met,
        certain=found.certain,
    )


def engine_answer(engine: EngineWindow) -> EngineAnswer:
    """The engines' own figures, and why there are none where there are none."""
    return EngineAnswer(
        waiting_mean=engine.waiting_mean,
        waiting_max=engine.waiting_max,
        running_mean=engine.running_mean,
        running_max=engine.running_max,
        kv_cache_share_mean=engine.kv_cache_share_mean,
        kv_cache_share_max=engine.kv_cache_share_max,
        preemptions=engine.preemptions,
        prefix_queries_tokens=engine.prefix_queries_tokens,
        prefix_hits_tokens=engine.prefix_hits_tokens,
        prefix_hit_share=engine.prefix_hit_share,
        scrapes=len(engine.scrapes),
        restarted=list(engine.restarted),
        missing=engine.missing,
    )


def found_rate_answer(found: RateFound) -> FoundRateAnswer:
    """What a search for the highest rate found."""
    return FoundRateAnswer(**asdict(found))
