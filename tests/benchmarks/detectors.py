"""False alarms per week and delays of the detectors beside two peers: ``python -m tests.benchmarks.detectors``.

Quiet streams of several natures, in which nothing changes, then streams with one change each, after a day and a half
and after ten days; see ``tests/look_streams.py``. The peers are shown the same looks: a limit on five minutes, a CUSUM.
A false alarm is a notice that begins; an alarm counts as found when it is told first after the change.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from tests.detector_peers import Cusum, Threshold, Value
from tests.look_streams import DAY_S, SLO, WEEK_S, Change, Stream, looks
from tuner.ask.request import Metric
from tuner.retune.detect.burn_rate import BurnRate
from tuner.retune.detect.detector import Detector
from tuner.retune.detect.residual import Residual
from tuner.retune.detect.standard import standard_detectors
from tuner.retune.detect.straggler import Straggler, over_peers
from tuner.retune.detect.workload_shift import WorkloadShift
from tuner.retune.notice import NoticeKind
from tuner.retune.seen import Look

QUIET = {
    "steady": Stream(day=0.0, weekend=1.0, load_noise=0.02, length_noise=0.0, ms_noise=0.01),
    "days and weeks": Stream(),
    "sparse": Stream(req_per_s=0.03),
    "heavy tails": Stream(cv=4.0),
    "long memory": Stream(memory_s=12 * 3600, length_noise=0.05, ms_noise=0.08),
    "wild load": Stream(load_noise=0.25, memory_s=3600),
    "looks of 5 min": Stream(every_s=300.0),
    "looks of 15 s": Stream(every_s=15.0),
}
Told = Callable[[Look], frozenset[str]]


def _log(value: float | None) -> float | None:
    return math.log(value) if value else None


def _missed(look: Look) -> float | None:
    within = look.within.get(SLO[0].key)
    return (within.total - within.most) / within.total if within and within.total else None


VALUES: Mapping[str, Value] = {
    "rate": lambda look: _log(look.req_per_s),
    "prompt_tokens": lambda look: _log(look.prompt.mean if look.prompt else None),
    "ttft": lambda look: _log(look.mean_ms.get(Metric.TTFT)),
    "rank 0": lambda look: over_peers(look.step_ms_by_rank).get("rank 0"),
    "ttft p99": _missed,
}
CHANGES = {
    "rate × 2": ("rate", Change(rate=2.0)),
    "rate ÷ 2": ("rate", Change(rate=0.5)),
    "prompts × 1.3": ("prompt_tokens", Change(prompt=1.3)),
    "prompts × 4": ("prompt_tokens", Change(prompt=4.0)),
    "20 % slower": ("ttft", Change(ms=1.2)),
    "twice as slow": ("ttft", Change(ms=2.0)),
    "rank 20 % slower": ("rank 0", Change(slow_rank=1.2)),
    "misses × 5": ("ttft p99", Change(missed=5.0)),
    "misses × 50": ("ttft p99", Change(missed=50.0)),
}


def ours() -> Told:
    """What all detectors tell, by what they tell it of; of blindness nothing."""
    detectors: list[Detector] = [WorkloadShift(), Residual(), Straggler(), BurnRate(SLO)]

    def told(look: Look) -> frozenset[str]:
        found = (notice for one in detectors for notice in one.look(look))
        return frozenset(notice.of for notice in found if notice.kind is not NoticeKind.BLIND)

    return told


def limits() -> Told:
    """The same of a plain limit for each: a quarter off, or more misses than the SLO allows."""
    allowed = 1 - SLO[0].percentile / 100
    return _peer({of: Threshold(value, allowed if of == "ttft p99" else None) for of, value in VALUES.items()})


def cusums() -> Told:
    """The same of a CUSUM for each."""
    return _peer({of: Cusum(value) for of, value in VALUES.items()})


def _peer(parts: Mapping[str, Threshold | Cusum]) -> Told:
    return lambda look: frozenset(of for of, part in parts.items() if part.look(look))


PARTIES: Mapping[str, Callable[[], Told]] = {
    "Parlay": ours,
    "limit on 5 min": limits,
    "CUSUM": cusums,
}


def begins(told: Told, stream: Iterator[Look]) -> Iterator[tuple[float, str]]:
    """When what begins to be told."""
    before: frozenset[str] = frozenset()
    for look in stream:
        now = told(look)
        yield from ((look.at_s, of) for of in now - before)
        before = now


def false_per_week(make: Callable[[], Told], stream: Stream, episodes: int, weeks: int) -> dict[str, float]:
    """Notices that begin where nothing changes, by what they are of."""
    found: dict[str, float] = {}
    for seed in range(episodes):
        for _, of in begins(make(), looks(stream, weeks * WEEK_S, Change(), seed)):
            of = "another rank" if of.startswith("rank ") else of
            found[of] = found.get(of, 0) + 1 / (episodes * weeks)
    return found


def delays(make: Callable[[], Told], of: str, change: Change, episodes: int) -> list[float]:
    """Seconds from the change to its notice; infinite where none came within three days."""
    found = []
    for seed in range(episodes):
        at_s = change.at_s + seed * 7919 % DAY_S  # at any time of the day
        stream = looks(Stream(), at_s + 3 * DAY_S, replace(change, at_s=at_s), seed)
        begin_s = next(stream).at_s
        later = (when for when, what in begins(make(), stream) if what == of and when > begin_s + at_s)
        found.append(next(later, math.inf) - begin_s - at_s)
    return found


def look_us() -> float:
    """Processor time of all detectors for one look, in a week of a look every five minutes."""
    stream, detectors = list(looks(Stream(every_s=300.0), WEEK_S, Change(), 0)), standard_detectors(SLO)
    begun = time.process_time()
    for look in stream:
        detectors.look(look)
    return 1e6 * (time.process_time() - begun) / len(stream)


def main() -> None:
    """Print both tables, and what a look costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--weeks", type=int, default=4)
    options = parser.parse_args()
    begun = time.perf_counter()
    print("## False alarms per week\n")
    for name, stream in QUIET.items():
        for party, make in PARTIES.items():
            found = false_per_week(make, stream, options.episodes, options.weeks)
            parts = ", ".join(f"{of} {count:.2f}" for of, count in sorted(found.items()))
            print(f"| {name} | {party} | {sum(found.values()):.2f} | {parts} |", flush=True)
    print("\n## Delay, minutes\n")
    for after_days in (1.5, 10.0):
        for name, (of, change) in CHANGES.items():
            for party, make in PARTIES.items():
                minutes = np.array(delays(make, of, replace(change, at_s=after_days * DAY_S), options.episodes)) / 60
                seen = minutes[np.isfinite(minutes)]
                figures = [f"{np.percentile(seen, p):.0f}" if seen.size else "–" for p in (50, 99)]
                missed = len(minutes) - seen.size
                print(f"| {name} after {after_days:g} d | {party} | {' | '.join(figures)} | {missed} |", flush=True)
    print(f"\n{look_us():.0f} µs of a processor per look")
    print(f"{options.episodes} episodes of {options.weeks} weeks; {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
