"""What ``parlay plan --json`` prints: the ranking, where its milliseconds and its memory go, and what was dropped."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.app.answers.devices import OnDevices, on_devices
from tuner.app.answers.engine import EngineAnswer, engine_answer
from tuner.app.answers.front import FrontAnswer, front_answer
from tuner.app.answers.images import image_notes
from tuner.app.answers.infeasible import InfeasibleAnswer, infeasible_answer
from tuner.app.answers.trace import BURSTS, TraceAnswer, trace_answer
from tuner.app.answers.what_if import WhatIfAnswer, what_if_answer
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.cost.breakdown import Breakdown
from tuner.cost.memory import GIB, MemoryEstimate
from tuner.plan.front_advice import FrontAdvice
from tuner.plan.infeasible import Infeasible
from tuner.plan.prune import Candidate, DroppedGroup, Plan, Prediction
from tuner.plan.what_if import WhatIf


class DroppedAnswer(Answer):
    """One group of candidates that were dropped for one reason."""

    reason: str = Field(description="The rule, or the stage, that dropped them.")
    count: int = Field(description="Candidates in the group.")
    example: str = Field(description="The first of them, as a layout.")
    figure: str = Field(description="The figure that decided it, in words.")


class PredictionAnswer(Answer):
    """What the model says of one layout."""

    ttft_ms: float | None = Field(description="Mean TTFT at the asked rate, ms; null: it cannot carry that rate.")
    tpot_ms: float | None = Field(description="Mean TPOT at the asked rate, ms; null: it cannot carry that rate.")
    idle_ttft_ms: float = Field(description="TTFT of one request alone, ms.")
    idle_tpot_ms: float = Field(description="TPOT of one request alone, ms.")
    goodput_req_per_s: float = Field(description="Highest rate within the SLO, requests/s of the whole deployment.")
    kv_tokens: int = Field(description="Tokens that the KV cache of one replica holds.")
    meets_slo: bool = Field(description="Whether every target holds at the asked rate.")
    simulated: bool = Field(description="Whether a simulation under load says so, not the closed form.")


class BreakdownAnswer(Answer):
    """Where the milliseconds of one request alone go; each mapping sums to the idle figure."""

    ttft_ms: dict[str, float] = Field(description="Terms of TTFT, ms, largest first.")
    tpot_ms: dict[str, float] = Field(description="Terms of TPOT, ms, largest first.")


class MemoryAnswer(Answer):
    """What the fullest device of one replica holds, GiB."""

    weights: float = Field(description="Weights, GiB per device.")
    kv: float = Field(description="What is left for the KV cache, GiB per device.")
    activations: float = Field(description="Activations of the largest step, GiB per device.")
    graphs: float | None = Field(description="Captured CUDA graphs, GiB per device; null on a CPU.")
    buffers: float = Field(description="Context and buffers of collectives, GiB per device.")
    state: float | None = Field(
        description="States of max_num_seqs sequences, GiB per device; null where no layer has one."
    )


class PlaceAnswer(Answer):
    """Which layout, on what, at what price."""

    layout: str = Field(description="The layout, such as tp=2,pp=1,dp=1.")
    gpus: int = Field(description="Devices of the whole deployment.")
    gpu: str | None = Field(description="The node group's GPU where the cluster has several, else null.")
    usd_per_hour: float | None = Field(description="Price of its devices, US dollars per hour; null: none is known.")
    usd_per_million_tokens: float | None = Field(
        description="Per million output tokens at the asked rate, US dollars; null: no price, or it cannot carry that."
    )


class RankedAnswer(PredictionAnswer, PlaceAnswer):
    """One ranked candidate."""

    breakdown: BreakdownAnswer | None = Field(description="Null for candidates that were not broken down.")
    memory: MemoryAnswer = Field(description="What the fullest device holds, GiB.")


class PlanAnswer(OnDevices):
    """The whole plan."""

    candidates: int = Field(description="Points of the space.")
    dropped: list[DroppedAnswer] = Field(description="What was dropped, group by group.")
    ranked: list[RankedAnswer] = Field(description="What was kept, best first.")
    seconds: float = Field(description="What the plan took, s.")
    trace: TraceAnswer | None = Field(description="The recorded load that it is for; null of any other.")
    what_if: WhatIfAnswer | None = Field(description="Null where no technique was supposed.")
    infeasible: InfeasibleAnswer | None = Field(description="Null where a layout meets the SLO.")
    engine: EngineAnswer = Field(description="The engine that was planned for.")
    front: FrontAnswer | None = Field(description="The path to the best layout's engines; null where none was kept.")


def plan_answer(
    plan: Plan,
    request: TuneRequest,
    breakdowns: Mapping[ParallelLayout, Breakdown],
    memories: Mapping[ParallelLayout, MemoryEstimate],
    supposed: WhatIf | None = None,
    reasons: Infeasible | None = None,
    front: FrontAdvice | None = None,
) -> PlanAnswer:
    """The ranking; ``memories`` has all of its layouts, ``breakdowns`` some."""
    return PlanAnswer(
        **dict(on_devices(request)),
        candidates=plan.candidates,
        dropped=[dropped_answer(group) for group in plan.dropped],
        ranked=[ranked_answer(c, breakdowns.get(c.layout), memories[c.layout]) for c in plan.ranked],
        seconds=plan.seconds,
        trace=trace_answer(request.workload, *_closed_form(plan)),
        what_if=what_if_answer(supposed) if supposed else None,
        infeasible=infeasible_answer(reasons) if reasons else None,
        engine=engine_answer(request, more=image_notes(request, plan)),
        front=front_answer(front) if front else None,
    )


def _closed_form(plan: Plan) -> tuple[str, ...]:
    return () if any(candidate.prediction.simulated for candidate in plan.ranked) else (BURSTS,)


def dropped_answer(group: DroppedGroup) -> DroppedAnswer:
    """One group of dropped candidates."""
    return DroppedAnswer(
        reason=group.reason.value, count=group.count, example=str(group.example), figure=group.figure
    )  # fmt: skip


def ranked_answer(candidate: Candidate, split: Breakdown | None, memory: MemoryEstimate) -> RankedAnswer:
    """One ranked candidate."""
    return RankedAnswer(
        layout=str(candidate.layout),
        gpus=candidate.layout.devices,
        gpu=candidate.layout.gpu,
        usd_per_hour=candidate.usd_per_hour,
        usd_per_million_tokens=candidate.usd_per_million_tokens,
        **dict(prediction_answer(candidate.prediction)),
        breakdown=BreakdownAnswer(ttft_ms=dict(split.ttft_ms), tpot_ms=dict(split.tpot_ms)) if split else None,
        memory=memory_answer(memory, candidate.layout.max_num_seqs),
    )


def prediction_answer(prediction: Prediction) -> PredictionAnswer:
    """A prediction, in ms and requests/s."""
    return PredictionAnswer(
        ttft_ms=prediction.ttft_ms,
        tpot_ms=prediction.tpot_ms,
        idle_ttft_ms=prediction.idle_ttft_ms,
        idle_tpot_ms=prediction.idle_tpot_ms,
        goodput_req_per_s=prediction.goodput_req_per_s,
        kv_tokens=prediction.kv_tokens,
        meets_slo=prediction.meets_slo,
        simulated=prediction.simulated,
    )


def memory_answer(memory: MemoryEstimate, sequences: int) -> MemoryAnswer:
    """The estimate of one layout, at one pair of scheduler limits; states are those of so many ``sequences``, and come
    out of the cache's memory."""
    graphs, pool = memory.graphs_bytes, float(memory.kv_tokens.flat[0]) * memory.kv_bytes_per_token
    states = min(pool, sequences * memory.sequence.state * memory.kv_bytes_per_token)
    return MemoryAnswer(
        weights=memory.weights_bytes / GIB,
        kv=(pool - states) / GIB,
        activations=float(memory.activation_bytes.flat[0]) / GIB,
        graphs=None if graphs is None else graphs / GIB,
        buffers=(memory.buffers_bytes - (graphs or 0.0)) / GIB,
        state=states / GIB if states else None,
    )
