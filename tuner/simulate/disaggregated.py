"""Prefill and decode in pools of their own: one engine computes the prompt, its KV cache moves, another goes on.

As with vLLM's connectors, a request enters the prefill engine with one token to make, then, sent on by a proxy, the
decode engine, which computes the last prompt token again and makes the first token that the client sees. Each prefill
replica sends one prompt after the other. Its blocks count as free once the prompt is computed, although a real engine
holds them until they are sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.ask.arrivals import ClosedLoad, OfferedLoad
from tuner.ask.layout import ParallelLayout
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.latency import StepCosts
from tuner.cost.transfer import kv_links
from tuner.errors import BadInput
from tuner.simulate.result import SimulationResult
from tuner.simulate.simulator import DEFAULT_SETTINGS, SimulationSettings, Simulator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pool:
    """``layout.dp`` replicas that do one of the two jobs, with ``kv_tokens`` tokens of KV cache each."""

    layout: ParallelLayout
    kv_tokens: int


class DisaggregatedSimulator:
    """Two pools, priced once, ready for any number of open loads of up to ``longest_tokens`` per sequence.

    The router is the same before both pools.
    """

    def __init__(
        self,
        costs: StepCosts,
        prefill: Pool,
        decode: Pool,
        *,
        longest_tokens: int,
        settings: SimulationSettings = DEFAULT_SETTINGS,
    ) -> None:
        self._costs, self._layouts = costs, (prefill.layout, decode.layout)
        handed = replace(settings, front_end_ms=0.0, prefix_hit_rate=0.0, shared_prefix_tokens=0)
        self._prefill, self._decode = (
            Simulator(costs, pool.layout, kv_tokens=pool.kv_tokens, longest_tokens=longest_tokens, settings=chosen)
            for pool, chosen in ((prefill, settings), (decode, handed))
        )

    def run(self, load: OfferedLoad | ClosedLoad) -> SimulationResult:
        """Serve a load. Replicas are numbered through, those for prefill first; ``scheduled_s`` is when prefill began,
        ``preemptions`` counts those of both engines. Raises BadInput for a closed loop."""
        if isinstance(load, ClosedLoad):
            raise BadInput("load", f"{load.users} users in a closed loop", "requests at given times, for two pools")
        first = self._prefill.run(replace(load, output_tokens=np.ones_like(load.output_tokens)))
        arrived_s = _sent_over(first, transfer_ms(self._costs, *self._layouts, load.prompt_tokens))
        order = np.argsort(arrived_s, kind="stable")
        priority = None if load.priority is None else load.priority[order]
        handed = OfferedLoad(arrived_s[order], load.prompt_tokens[order], load.output_tokens[order], priority)
        second = self._decode.run(handed, received_tokens=handed.prompt_tokens - 1)
        return _joined(first, second, np.argsort(order), self._layouts[0].dp)


def transfer_ms(costs: StepCosts, prefill: ParallelLayout, decode: ParallelLayout, prompt_tokens: Ints) -> Floats:
    """Milliseconds to hand over the KV cache of each prompt, every rank sending its own shard at once.

    A rank of the pool with fewer ranks holds the larger shard, and decides. Pools that fit into one node together
    stand in it, others send between nodes. Bytes: ``tuner.cost.transfer``.
    """
    prompts, place = np.unique(prompt_tokens, return_inverse=True)
    largest = [
        max(link.link_bytes for layout in (prefill, decode) for link in kv_links(costs.model, layout, int(tokens)))
        for tokens in prompts
    ]
    cluster = costs.cluster
    nodes = 1 if prefill.devices + decode.devices <= cluster.gpus_per_node else 2
    model = CollectiveModel.of(cluster.profile, cluster.fabric, None, cluster.inter_node_gb_per_s)
    us = model.latency_us("sendrecv", np.array(largest, dtype=float), CommGroup(2, nodes))
    return np.asarray(us[place] / 1e3)


def _sent_over(first: SimulationResult, duration_ms: Floats) -> Floats:
    """When each prompt's cache has arrived, in s: a replica sends one after the other, in the order of computing."""
    arrived = np.empty_like(first.end_s)
    for replica in np.unique(first.replica):
        own = np.flatnonzero(first.replica == replica)
        own = own[np.argsort(first.end_s[own], kind="stable")]
        until = np.cumsum(duration_ms[own] / 1e3)
        idle = np.maximum.accumulate(first.end_s[own] - (until - duration_ms[own] / 1e3))
        arrived[own] = idle + until
    return arrived


def _joined(
    first: SimulationResult, second: SimulationResult, place: NDArray[np.int64], prefill_replicas: int
) -> SimulationResult:
    """The records of both pools as one; ``place`` is a request's in the second pool. Shares are of the whole run."""
    end_s = second.end_s[place]
    span_s = float(end_s.max() - first.arrival_s.min())

    def shares(name: str) -> Floats:
        return np.concatenate([getattr(pool, name) * pool.duration_s / span_s for pool in (first, second)])

    return replace(
        second,
        arrival_s=first.arrival_s,
        scheduled_s=first.scheduled_s,
        first_token_s=second.first_token_s[place],
        end_s=end_s,
        prompt_tokens=first.prompt_tokens,
        output_tokens=second.output_tokens[place],
        preemptions=first.preemptions + second.preemptions[place],
        replica=second.replica[place] + prefill_replicas,
        prefill_share=shares("prefill_share"),
        decode_share=shares("decode_share"),
        kv_share=shares("kv_share"),
        kv_peak_share=np.concatenate([first.kv_peak_share, second.kv_peak_share]),
        steps=np.concatenate([first.steps, second.steps]),
        slow_gaps=second.slow_gaps[place],
        offered_s=first.offered_s,
    )
