"""What a watcher sees of an episode: looks made from the truth, with the chance of arrivals in every count."""

from __future__ import annotations

import math

import numpy as np

from tests.benchmarks.retune_service import Service
from tests.benchmarks.retune_stories import BEGIN_S, STEP_S, Story
from tests.benchmarks.retune_world import METRICS, Served, State
from tuner.ask.request import Metric
from tuner.retune.seen import Fingerprint, Look, NodeSeen, Tokens
from tuner.stats.buckets import Within

_SD_OF_MEAN = {Metric.TTFT: 0.7, Metric.TPOT: 0.1}  # of one request, as a share of the mean
_NOTHING_ANSWERS = 1.0  # share of requests that fail where nothing serves


class Eyes:
    """Makes looks at one service. Nobody probes links: a fingerprint has nodes and versions alone."""

    def __init__(self, story: Story, service: Service) -> None:
        self._story, self._service, self._random = story, service, np.random.default_rng([5, story.number])
        self._fingerprints: dict[tuple[int, int], Fingerprint] = {}
        self._wander = 0.0
        prompt = story.world.site.request.workload.prompt_tokens
        self._spread = (prompt.bounds[1] - prompt.bounds[0]) / math.sqrt(12) / prompt.mean

    def fingerprint(self, state: State) -> Fingerprint:
        """Of a state."""
        key = (state.lost, state.release)
        if key not in self._fingerprints:
            spec = self._story.world.site.request.groups[0]
            nodes = tuple(NodeSeen(f"n{i}", spec.gpu, spec.gpus_per_node) for i in range(state.lost, spec.nodes))
            self._fingerprints[key] = Fingerprint(nodes, {"vllm": f"0.{28 + state.release}", "ray": "2.60"})
        return self._fingerprints[key]

    def look(self, at_s: float, seconds: float, served: Served) -> Look:
        """At the ``seconds`` before ``at_s`` (s since the begin of the episode), in which requests saw this."""
        state = self._service.state
        print_, blind = self.fingerprint(state), self._story.blind.get(int(at_s // STEP_S), frozenset())
        if blind:
            return Look(BEGIN_S + at_s, seconds, fingerprint=print_, blind=blind)
        random, rate = self._random, self._story.rate(at_s - seconds / 2) * state.rate
        count = int(random.poisson(rate * seconds))
        within = {}
        for target, share in zip(self._story.world.site.targets, (served.ttft_within, served.tpot_within), strict=True):
            done = float(random.binomial(count, share))
            within[target.key] = Within(float(count), done, done, done)  # the targets are bounds of vLLM's buckets
        return Look(
            BEGIN_S + at_s,
            seconds,
            float(count),
            count * _NOTHING_ANSWERS if not self._service.alive else 0.0,
            within,
            self._means(served, count) if count and self._service.alive else {},
            self._lengths(count, state),
            Tokens(float(count), float(self._story.world.site.request.workload.output_tokens.mean), 0.0)
            if count
            else None,
            None,
            fingerprint=print_,
        )

    def _means(self, served: Served, count: int) -> dict[Metric, float]:
        """With what hosts and neighbours do, which wanders, on top of chance."""
        self._wander = 0.9 * self._wander + self._story.jitter * math.sqrt(1 - 0.81) * self._random.standard_normal()
        found = {}
        for metric, ms in zip(METRICS, (served.ttft_ms, served.tpot_ms), strict=True):
            chance = _SD_OF_MEAN[metric] / math.sqrt(count) * self._random.standard_normal()
            found[metric] = ms * math.exp(self._wander + min(chance, 0.5))
        return found

    def _lengths(self, count: int, state: State) -> Tokens | None:
        if not count:
            return None
        mean = float(self._story.world.site.request.workload.prompt_tokens.mean) * state.prompt
        sd = mean * self._spread
        return Tokens(float(count), mean + sd / math.sqrt(count) * self._random.standard_normal(), sd)
