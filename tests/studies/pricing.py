"""Prices the layouts of a published study on its own cluster: one request alone, or a batch that starts together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, load_model
from tuner.ask.packing import Footprint
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import load_request
from tuner.cost.breakdown import breakdown
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.latency import EngineSwitches, StepCosts
from tuner.cost.step_batch import Floats, StepShape, Terms, total
from tuner.cost.techniques import parse_techniques

REQUESTS = Path(__file__).parent / "requests"
KINDS = ("matmul", "attention", "other compute", "communication", "host")
KIB = 1024

AS_SHIPPED = EngineSwitches()
# Decode steps stay CUDA graphs, V0's default; it schedules a step only when the one before it is done.
NCCL_ALONE = EngineSwitches(custom_allreduce=False, asynchronous=False)


@dataclass(frozen=True, slots=True)
class Alone:
    """One request on an idle engine: milliseconds, and those of TTFT and of TPOT by kind (``KINDS``)."""

    ttft_ms: float
    tpot_ms: float
    e2e_ms: float
    ttft_parts_ms: Mapping[str, float]
    tpot_parts_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that starts together: milliseconds of its prefill and of one token of every sequence, by kind."""

    prefill_parts_ms: Mapping[str, float]
    step_parts_ms: Mapping[str, float]
    output_tokens: int

    @property
    def total_s(self) -> float:
        """Time to solution: the prefill and all decode steps, in seconds."""
        decoded = self.output_tokens - 1
        return (sum(self.prefill_parts_ms.values()) + decoded * sum(self.step_parts_ms.values())) / 1e3

    def parts_s(self) -> dict[str, float]:
        """The time to solution by kind, in seconds."""
        decoded = self.output_tokens - 1
        return {k: (self.prefill_parts_ms[k] + decoded * self.step_parts_ms[k]) / 1e3 for k in KINDS}


@dataclass(frozen=True, slots=True)
class Setting:
    """A request of ``requests/`` with the engine that the study ran."""

    request: TuneRequest
    model: ModelShape
    cluster: Cluster
    costs: StepCosts

    def alone(self, tp: int, pp: int) -> Alone:
        """TTFT, TPOT and E2E of one request on an idle engine, in ms, without the fixed handling of a request
        and the path to the engine."""
        split = breakdown(self.costs, layout(tp, pp), self.request)
        beside = ("request handling", "path: ")
        ttft = {name: ms for name, ms in split.ttft_ms.items() if not name.startswith(beside)}
        ttft_ms, tpot_ms = sum(ttft.values()), sum(split.tpot_ms.values())
        e2e_ms = ttft_ms + tpot_ms * (self.request.workload.output_tokens.mean - 1)
        return Alone(ttft_ms, tpot_ms, e2e_ms, _by_kind(ttft), _by_kind(split.tpot_ms))

    def batch(self, tp: int, pp: int, sequences: int = 16) -> Batch:
        """All sequences at once; a pipeline of p stages works on p parts of the batch, as vLLM does."""
        lengths = self.request.workload
        prompt, output = lengths.prompt_tokens.mean, lengths.output_tokens.mean
        one, parts = np.ones(1), min(pp, sequences)
        share = one * sequences / parts
        prefill = self.costs.stages(layout(tp, pp), StepShape("prefill", prompt * one, 0 * one, share))
        decode = self.costs.stages(layout(tp, pp), StepShape("decode", one, (prompt + output / 2) * one, share))
        step = _scaled(max(decode, key=_ms), parts)
        if _sum_ms(decode) > sum(step.values()):  # too few parts to keep every stage busy
            step = _summed(decode)
        waiting = _scaled(max(prefill, key=_ms), parts - 1)
        first = _summed(prefill)
        return Batch({kind: first[kind] + waiting[kind] for kind in KINDS}, step, output)

    def allreduce_us(self, algorithm: str, message_bytes: Sequence[int] | Floats, gpus: int) -> Floats:
        """Microseconds of an all-reduce over that many GPUs of the cluster: ``nccl``, ``mpi`` or ``nvrar``."""
        cluster = self.cluster
        collectives = CollectiveModel.of(cluster.profile, cluster.fabric, None, cluster.inter_node_gb_per_s)
        group = CommGroup(gpus, Footprint.of(gpus, cluster.gpus_per_node).nodes)
        sizes = np.asarray(message_bytes, dtype=float)
        return collectives.estimate("allreduce", sizes, group, algorithm=algorithm).latency_us


def layout(tp: int, pp: int) -> ParallelLayout:
    """One replica, on Ray's executor, whose scheduler limits never split the study's prompts."""
    return ParallelLayout(tp=tp, pp=pp, executor="ray", max_num_batched_tokens=65_536)


@cache
def setting(
    name: str,
    model: str | None = None,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
    gpus_per_node: int | None = None,
    switches: EngineSwitches = AS_SHIPPED,
    what_if: tuple[str, ...] = (),
) -> Setting:
    """The request of that name, with what the study varied put in its place."""
    request = load_request(REQUESTS / f"{name}.yaml")
    document = request.model_dump(mode="json", exclude_none=True)
    document["model"] = model or request.model
    for key, tokens in (("prompt_tokens", prompt_tokens), ("output_tokens", output_tokens)):
        if tokens is not None:
            document["workload"][key] = {"mean": tokens}
    changed = TuneRequest.model_validate(document)
    assert changed.cluster != "ray"
    cluster, shape = Cluster.from_spec(changed.cluster), load_model(changed.model)
    if gpus_per_node is not None:
        cluster = replace(cluster, gpus_per_node=gpus_per_node)
    costs = StepCosts(shape, cluster, "0.8.5", switches, parse_techniques(what_if))
    return Setting(changed, shape, cluster, costs)


def _kind(term: str) -> str:
    if term.startswith("host"):
        return "host"
    if term in ("gemm", "LM head"):
        return "matmul"
    if term in ("experts", "elementwise", "sampling"):
        return "other compute"
    return "attention" if term == "attention" else "communication"


def _by_kind(terms: Mapping[str, float]) -> dict[str, float]:
    found = dict.fromkeys(KINDS, 0.0)
    for name, ms in terms.items():
        found[_kind(name)] += ms
    return found


def _scaled(terms: Terms, times: int) -> dict[str, float]:
    return _by_kind({name: times * float(np.ravel(ms)[0]) for name, ms in terms.items()})


def _summed(stages: Sequence[Terms]) -> dict[str, float]:
    parts = [_scaled(terms, 1) for terms in stages]
    return {kind: sum(part[kind] for part in parts) for kind in KINDS}


def _ms(terms: Terms) -> float:
    return float(np.ravel(total(terms))[0])


def _sum_ms(stages: Sequence[Terms]) -> float:
    return sum(_ms(terms) for terms in stages)
