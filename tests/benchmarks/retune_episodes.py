"""Two weeks of a simulated site, over and over: what Parlay notices and changes, beside an oracle and two peers.

    python -m tests.benchmarks.retune_episodes [--episodes 1000] [--first NUMBER] [--jobs 1] [--each] [--kept FILE]
    python -m tests.benchmarks.retune_episodes --numbers NUMBER [NUMBER ...] --each [--out FILE]

Nodes are lost and return, links slow down, the engine is upgraded, load follows days and weeks, prompts drift or grow
fourfold at once, the rate doubles, and weeks go by in which nothing changes but chance. The truth is the closed form of
a steady load with hidden errors (``retune_world``); detectors, outlook and judgement are those that run in production,
rollouts (5 min until a deployment answers, 5 min of canary) and trials are simulated. A look comes every 15 s about the
time of a change, and at a random time where there is none, as in production; elsewhere every 5 min, every minute while
something is the matter, which is less often than in production; that nodes go or come is told after a minute.

By the number of an episode its world is one on which something was tuned, or one kept for reports (``UNSEEN``, the
default). A change is *missed* if the layout that served has no room any more, misses the SLO at the load that comes for
half an hour in all while another layout does better by more than the least gain, or another saves more than that, and
no change was proposed. One that takes nothing but the room beyond the load that comes costs nobody anything; those that
were not noticed are counted apart.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tests.benchmarks.retune_peers import never, oracle, scaled
from tests.benchmarks.retune_stories import CALM, DAY_S, DAYS, FRESH, KINDS, STEP_S, Story, place, story
from tests.benchmarks.retune_watcher import POLICY, Watched, Watcher
from tests.benchmarks.retune_world import SITES, WORLDS, State
from tuner.ask.layout import ParallelLayout

WEEKS = DAYS / 7
UNSEEN = 3 * FRESH  # of those from FRESH on some were looked at, after reports
_SLOWER = 1.2  # times the mean TPOT
_BACK_S = 7 * DAY_S  # within which a return to a layout that was left is flapping, if nothing changed


@dataclass(frozen=True)
class Scores:
    """One episode: minutes in which the SLO was missed, and GPU-hours, of Parlay, the oracle, replica scaling and of
    nobody; the delay of the first notice in s (None: nothing that matters changed), whether nothing was proposed then
    (``missed``); whether what changed took room beyond the load that came, and was not noticed (``unfelt``); actions
    that the truth does not justify, all actions, returns, GPU-hours of trials."""

    number: int
    kind: str
    lost_minutes: tuple[float, float, float, float]
    gpu_hours: tuple[float, float, float, float]
    delay_s: float | None
    missed: bool
    unfelt: bool
    false: int
    actions: int
    flaps: int
    tuning_gpu_hours: float
    looks: int


def scores(number: int) -> Scores:
    """An episode, played four times."""
    of = story(number)
    watched = Watcher(of).run()
    all_ = (watched.service, oracle(of), scaled(of), never(of))
    matters_s, begin_s = _matters(of), of.changes[0].at_s if of.changes else math.inf
    told = (*(at_s for at_s, _ in watched.seen), *(at_s for at_s, _, _ in watched.actions))
    noticed = min((at_s for at_s in told if at_s >= begin_s), default=None)
    lost, hours = (tuple(getattr(one, name) for one in all_) for name in ("lost_minutes", "gpu_hours"))
    return Scores(
        number,
        of.kind,
        lost,
        hours,
        None if matters_s is None or noticed is None else max(noticed - matters_s, 0.0),
        matters_s is not None and not any(at_s >= begin_s for at_s in watched.proposed),
        matters_s is None and noticed is None and _takes_room(of),
        sum(not _justified(of, at_s, layout) for at_s, _, layout in watched.actions),
        len(watched.actions),
        _flaps(of, watched),
        watched.tuning_gpu_hours,
        watched.looks,
    )


def _matters(of: Story) -> float | None:
    """When what was decided is not right any more, in s since the begin; None where that never happens: it has no room,
    another saves more than the least gain, or another is better for the SLO, which it misses at the load that comes,
    for as long in all as whoever changes a layout waits at least (``persists_minutes``)."""
    if not of.changes:
        return None
    first, truth = of.world.best(State()), of.world.truth
    missed_s, since_s = 0.0, math.inf
    ends = [*(change.at_s for change in of.changes[1:]), DAYS * DAY_S]
    for change, end_s in zip(of.changes, ends, strict=True):
        state, best = change.state, of.world.best(change.state)
        if first not in of.world.site.fitting(state.lost) or best.devices <= (1 - POLICY.least_gain) * first.devices:
            return min(change.at_s, since_s)
        if truth(state).goodput(best) <= (1 + POLICY.least_gain) * truth(state).goodput(first):
            continue
        for step in range(int(change.at_s // STEP_S), int(end_s // STEP_S)):
            if _misses(of, state, first, of.rates[step] * state.rate):
                missed_s, since_s = missed_s + STEP_S, min(since_s, step * STEP_S)
        if missed_s >= 60 * POLICY.persists_minutes:
            return max(since_s, of.changes[0].at_s)
    return None


def _misses(of: Story, state: State, layout: ParallelLayout, rate: float) -> bool:
    """Is a target missed at a rate, as minutes are counted? ``goodput`` is one of some rates, and lower."""
    served = of.served(of.world.truth(state).replica(layout), rate / layout.dp)
    ttft, tpot = of.world.site.targets
    return served.ttft_within < ttft.percentile / 100 or served.tpot_within < tpot.percentile / 100


def _takes_room(of: Story) -> bool:
    """Does the layout that was decided miss the SLO at the asked rate, which has some room beyond the busiest hour, or
    is it a fifth slower?"""
    first, asked = of.world.best(State()), of.world.site.request.workload.arrival.requests_per_s
    each = asked / 2 / first.dp
    usual_ms = of.world.truth(State()).replica(first).at(each).tpot_ms
    truths = [(change.state, of.world.truth(change.state)) for change in of.changes]
    return any(
        truth.goodput(first) < asked * state.rate or truth.replica(first).at(each).tpot_ms > _SLOWER * usual_ms
        for state, truth in truths
    )


def _justified(of: Story, at_s: float, here: ParallelLayout) -> bool:
    """Does the truth ask for a change: the layout has no room, misses the SLO at the asked rate, or another saves?
    Where prompts drift, that of a day later counts as well: for what is foreseen."""
    return any(_asks(of, of.state(moment_s), here) for moment_s in (at_s, at_s + DAY_S * (of.kind == "drift")))


def _asks(of: Story, state: State, here: ParallelLayout) -> bool:
    asked = of.world.site.request.workload.arrival.requests_per_s * state.rate
    if here not in of.world.site.fitting(state.lost) or of.world.truth(state).goodput(here) < asked:
        return True
    return of.world.best(state).devices <= (1 - POLICY.least_gain) * here.devices


def _flaps(of: Story, watched: Watched) -> int:
    """Returns to a layout that was left not long ago, while nothing had changed."""
    path = [(0.0, of.world.best(State())), *watched.service.moves]
    found = 0
    for i, (at_s, layout) in enumerate(path):
        before = [(left_s, one) for left_s, one in path[: max(i - 1, 0)] if one == layout and at_s - left_s < _BACK_S]
        found += any(of.state(left_s) == of.state(at_s) for left_s, _ in before)
    return found


def table(found: Sequence[Scores]) -> str:
    """All figures, by kind of episode and in all."""
    lines = [
        "| episodes | SLO minutes lost a week: Parlay | oracle | replica scaling | never | Parlay ÷ oracle | "
        "GPU-hours a week: Parlay | oracle | replica scaling | never | tuning GPU-hours a week | "
        "delay p50 / p99, min | missed | false a week | flaps |",
        "|" + "---|" * 15,
    ]
    for name in (*KINDS, "all"):
        some = [one for one in found if name in (one.kind, "all")]
        if some:
            lines.append(_row(name, some))
    return "\n".join(lines)


def _row(name: str, some: Sequence[Scores]) -> str:
    weeks = WEEKS * len(some)
    lost = [sum(one.lost_minutes[i] for one in some) / weeks for i in range(4)]
    hours = [sum(one.gpu_hours[i] for one in some) / weeks for i in range(4)]
    delays = [one.delay_s / 60 for one in some if one.delay_s is not None]
    spread = f"{np.percentile(delays, 50):.1f} / {np.percentile(delays, 99):.1f}" if delays else "–"
    cells = [
        f"{name} ({len(some)})",
        *(f"{minutes:.1f}" for minutes in lost),
        f"{lost[0] / lost[1]:.2f}" if lost[1] else "–",
        *(f"{hour:,.0f}" for hour in hours),
        f"{sum(one.tuning_gpu_hours for one in some) / weeks:.2f}",
        spread,
        str(sum(one.missed for one in some)),
        f"{sum(one.false for one in some) / weeks:.3f}",
        str(sum(one.flaps for one in some)),
    ]
    return "| " + " | ".join(cells) + " |"


def line(one: Scores) -> str:
    """One episode in a line, as it ends: what it lost, and what was done."""
    lost = " / ".join(f"{minutes:.0f}" for minutes in one.lost_minutes)
    delay = "–" if one.delay_s is None else f"{one.delay_s / 60:.1f} min"
    marks = "".join(
        f", {n} {what}" for n, what in ((one.false, "false"), (one.flaps, "flaps"), (one.missed, "missed")) if n
    )
    return (
        f"{one.number} {one.kind}: lost {lost} min (Parlay / oracle / scaling / never), delay {delay}, "
        f"{one.actions} actions{marks}, {one.tuning_gpu_hours:.1f} GPU-hours of trials"
    )


def play(numbers: Iterable[int], jobs: int = 1, each: bool = False, kept: Path | None = None) -> list[Scores]:
    """All of these, in so many processes; each takes sites of its own, whose prices it keeps. ``each``: a line for each
    as it ends; ``kept`` is where its scores go then, and those that are there are not played again."""
    known = {} if kept is None or not kept.exists() else {one.number: one for one in map(_read, kept.open())}
    wanted = sorted(set(numbers) - set(known))
    before = [known[number] for number in sorted(set(numbers) & set(known))]
    return before + _play(wanted, jobs, each, kept)


def _play(wanted: Sequence[int], jobs: int, each: bool, kept: Path | None) -> list[Scores]:
    if jobs == 1:
        return [_told(scores(number), each, kept) for number in sorted(wanted, key=place)]
    shares = [[n for n in wanted if n // len(KINDS) % jobs == job] for job in range(jobs)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return [one for some in pool.map(partial(_play, jobs=1, each=each, kept=kept), shares) for one in some]


def _told(one: Scores, aloud: bool, kept: Path | None) -> Scores:
    if aloud:
        print(line(one), flush=True)
    if kept is not None:
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(one)) + "\n")
    return one


def _read(kept: str) -> Scores:
    return Scores(**json.loads(kept))


def main() -> None:
    """Play, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--first", type=int, default=UNSEEN, help="its number; below the default they were looked at")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--numbers", type=int, nargs="+", help="these, in place of a range")
    parser.add_argument("--each", action="store_true", help="a line for each episode as it ends")
    parser.add_argument("--kept", type=Path, help="where scores are kept, to go on with after an interruption")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    began_s = time.perf_counter()
    numbers = options.numbers or range(options.first, options.first + options.episodes)
    found = play(numbers, options.jobs, options.each, options.kept)
    looks = sum(one.looks for one in found)
    calm = [one for one in found if one.kind in CALM]
    took = f"{time.perf_counter() - began_s:,.0f} s with {options.jobs} process(es)"
    text = "\n".join(
        [
            f"{len(found)} episodes of {DAYS} days, {SITES} sites with {WORLDS} sets of hidden prices each; "
            f"{looks:,} looks; {took}, {platform.machine()}, Python {platform.python_version()}.",
            "",
            table(found),
            "",
            f"Actions in weeks without a change: {sum(one.actions for one in calm)} in {WEEKS * len(calm):.0f} weeks. "
            f"Changes that took room alone and were not noticed: {sum(one.unfelt for one in found)}.",
        ]
    )
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
