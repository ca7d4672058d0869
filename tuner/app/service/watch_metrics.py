"""What Prometheus sees of watched studies, from the store: how they stand, what holds them, how rollouts ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tuner.app.watch.memory import Memory
from tuner.errors import StoreError
from tuner.retune.judgement import HeldBy
from tuner.retune.rollout import ENDS, Step
from tuner.study.lease import LEASE_S
from tuner.study.store import Store
from tuner.study.watched import Watched

STATES = ("well", "blind", "noticed", "held", "acting", "failed")


class WatchMetrics(Collector):
    """Shows what the store has at a scrape; nothing while it is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        """The same metrics without samples."""
        return _Families().all

    def collect(self) -> Iterable[Metric]:
        made = _Families()
        try:
            now_s = time.time()
            for watched in self._store.watched.all():
                made.add(watched, self._store, now_s)
        except StoreError:
            return ()
        return made.all


class _Families:
    def __init__(self) -> None:
        self.state = GaugeMetricFamily("parlay_watch_state", "1 for how the last look at a study stood, else 0.",
                                       labels=("study", "state"))  # fmt: skip
        self.age = GaugeMetricFamily("parlay_watch_look_age_seconds", "Since the last look at a watched study.",
                                     labels=("study",))  # fmt: skip
        self.watched = GaugeMetricFamily("parlay_watch_watcher", "1 where a process watches the study, else 0.",
                                         labels=("study",))  # fmt: skip
        self.held = GaugeMetricFamily("parlay_watch_held", "1 where this keeps a change from being made, else 0.",
                                      labels=("study", "by"))  # fmt: skip
        self.step = GaugeMetricFamily("parlay_watch_rollout_step", "1 for the step of the rollout under way, else 0.",
                                      labels=("study", "step"))  # fmt: skip
        self.since = GaugeMetricFamily("parlay_watch_rollout_step_seconds", "For how long it has been at that step.",
                                       labels=("study",))  # fmt: skip
        self.ended = CounterMetricFamily("parlay_watch_rollouts", "Rollouts by how they ended.",
                                         labels=("study", "end"))  # fmt: skip

    @property
    def all(self) -> tuple[Metric, ...]:
        return (self.state, self.age, self.watched, self.held, self.step, self.since, self.ended)

    def add(self, watched: Watched, store: Store, now_s: float) -> None:
        study, standing = watched.study, Memory.of(watched.memory).standing
        self.watched.add_metric([study], float(bool(watched.watcher) and watched.silent_s <= LEASE_S))
        if standing is not None:
            for state in STATES:
                self.state.add_metric([study, state], float(standing.state == state))
            self.age.add_metric([study], max(0.0, now_s - standing.at))
        held = standing.judgement.held_by if standing is not None and standing.judgement is not None else {}
        for by in HeldBy:
            self.held.add_metric([study, by.value], float(by.value in held))
        rollouts = store.rollouts.of(study)
        open_now = next((one for one in rollouts if one.step not in ENDS), None)
        for step in Step:
            if step not in ENDS:
                self.step.add_metric([study, step.value], float(open_now is not None and open_now.step is step))
        if open_now is not None:
            self.since.add_metric([study], max(0.0, now_s - open_now.step_since_s))
        ends = Counter(one.step for one in rollouts)
        for end in sorted(ENDS):
            self.ended.add_metric([study, end.value], ends[end])
