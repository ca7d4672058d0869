"""What Prometheus sees of the studies: the store is asked at a scrape, so that several services on it show the same."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tuner.errors import StoreError
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Queue
from tuner.study.spending import Account, Total
from tuner.study.store import Store
from tuner.study.workers import WorkerRecord
from tuner.trial.ledger import Outcome

FRESH_S = 1.0  # whoever scrapes more often gets the same again
MOST_STUDIES = 100  # with lines of their own
_LATELY_S = 900.0  # for so long a study that has ended keeps its lines, so that a scrape sees its last figures


class StoredMetrics(Collector):
    """Asks the store. Where it does not answer, it says that it is down, and nothing of the studies."""

    def __init__(self, store: Store, fresh_s: float = FRESH_S) -> None:
        self._store, self._fresh_s = store, fresh_s
        self._lock, self._asked_at = Lock(), float("-inf")
        self._last: tuple[Metric, ...] = ()
        self._seen: dict[str, float] = {}  # studies that ran, and when that was seen last

    def describe(self) -> Iterable[Metric]:
        """The same metrics without samples; the store is not asked."""
        up = _up(True, 0.0)
        return (*up, *_states({}), *_queue(Queue(None, {})), *_workers(()), *_totals({}), *_accounts({}))

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._asked_at >= self._fresh_s:
                self._last, self._asked_at = self._ask(), time.monotonic()
            return self._last

    def _ask(self) -> tuple[Metric, ...]:
        began = time.perf_counter()
        try:
            found = self._found()
        except StoreError:
            return _up(False, time.perf_counter() - began)
        return (*_up(True, time.perf_counter() - began), *found)

    def _found(self) -> tuple[Metric, ...]:
        store, now = self._store, time.monotonic()
        self._seen |= dict.fromkeys(store.spending.running(MOST_STUDIES), now)
        lately = sorted((name for name, at in self._seen.items() if now - at < _LATELY_S), key=self._seen.__getitem__)
        self._seen = {name: self._seen[name] for name in lately[-MOST_STUDIES:]}
        return (
            *_states(store.listing.counts()),
            *_queue(store.orders.queue()),
            *_workers(store.workers.all()),
            *_totals(store.spending.totals()),
            *_accounts(store.spending.accounts(self._seen)),
        )


def _up(answers: bool, seconds: float) -> tuple[Metric, ...]:
    up = GaugeMetricFamily("parlay_store_up", "1 where the store answered this scrape, else 0.", float(answers))
    took = GaugeMetricFamily("parlay_store_seconds", "What the store took to answer this scrape.", seconds)
    return up, took


def _states(counts: Mapping[StudyState, int]) -> tuple[Metric, ...]:
    states = GaugeMetricFamily("parlay_studies", "Studies of the store by state.", labels=["state"])
    for state, count in counts.items():
        states.add_metric([state.value], count)
    return (states,)


def _queue(queue: Queue) -> tuple[Metric, ...]:
    age = GaugeMetricFamily("parlay_queue_oldest_seconds", "How long the study that waits longest has waited.")
    if queue.oldest_s is not None:
        age.add_metric([], queue.oldest_s)
    text = "Since the last sign of life of the worker of a study that runs."
    silence = GaugeMetricFamily("parlay_worker_silence_seconds", text, labels=["study"])
    for study, silent_s in queue.workers.items():
        silence.add_metric([study], silent_s)
    return age, silence


def _workers(workers: Iterable[WorkerRecord]) -> tuple[Metric, ...]:
    """A worker that ends says so, and is counted no more; one that died is for a day."""
    counts = dict.fromkeys(("idle", "busy", "silent"), 0)
    for worker in workers:
        counts["silent" if not worker.alive else "busy" if worker.study else "idle"] += 1
    family = GaugeMetricFamily("parlay_workers", "Workers of the store by what they do.", labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return (family,)


def _totals(totals: Mapping[Outcome, Total]) -> tuple[Metric, ...]:
    """Sums over all studies."""
    label = ["outcome"]
    launches = CounterMetricFamily("parlay_launches", "Launches on real clusters that are over.", labels=label)
    device_s = CounterMetricFamily("parlay_launch_device_seconds", "Time for which they held devices.", labels=label)
    usd = CounterMetricFamily(
        "parlay_launch_usd", "Price of that time, in US dollars, where it is known.", labels=label
    )
    unpriced = CounterMetricFamily("parlay_launches_unpriced", "Of these, without a known price.", labels=label)
    for outcome, total in totals.items():
        launches.add_metric([outcome.value], total.launches)
        device_s.add_metric([outcome.value], total.device_s)
        usd.add_metric([outcome.value], total.usd)
        unpriced.add_metric([outcome.value], total.unpriced)
    return launches, device_s, usd, unpriced


def _accounts(accounts: Mapping[str, Account]) -> tuple[Metric, ...]:
    """Of the studies that run, or ended lately."""
    label = ["study"]
    launches = GaugeMetricFamily("parlay_study_launches", "Launches that count for the budget.", labels=label)
    seconds = GaugeMetricFamily("parlay_study_seconds", "The study's own time.", labels=label)
    device_s = GaugeMetricFamily("parlay_study_device_seconds", "Time for which it held devices.", labels=label)
    usd = GaugeMetricFamily("parlay_study_usd", "Price of that time, in US dollars, if known.", labels=label)
    text = "Share that is used of a part of the budget; 1 is all of it."
    used = GaugeMetricFamily("parlay_study_budget_used_ratio", text, labels=["study", "part"])
    for study, account in accounts.items():
        spent = account.spent
        launches.add_metric([study], spent.launches)
        seconds.add_metric([study], spent.minutes * 60)
        device_s.add_metric([study], spent.gpu_hours * 3600)
        if spent.usd is not None:
            usd.add_metric([study], spent.usd)
        for part, share in account.used.items():
            used.add_metric([study, part], share)
    return launches, seconds, device_s, usd, used
