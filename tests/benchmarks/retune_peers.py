"""What else could be done in an episode: know all (the oracle), scale replicas alone, or nothing."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from tests.benchmarks.retune_service import START_S, Service
from tests.benchmarks.retune_stories import DAY_S, DAYS, STEP_S, Story
from tests.benchmarks.retune_world import MARGIN, Served, State

_LESS = 0.95  # of the GPUs, from which a move is worth it
_DOWN_S = 600.0  # for which a scaler waits before it takes replicas away (Ray Serve's downscale_delay_s)
_UP_S = 60.0  # until one that is added is ordered: a look, and upscale_delay_s


def never(story: Story) -> Service:
    """The layout that was decided at first, whatever comes; replicas that died come back by themselves."""
    service = Service(story, story.world.best(State()))
    for at_s in _steps():
        service.see(at_s)
        service.passed(STEP_S, service.served(at_s))
    return service


def oracle(story: Story) -> Service:
    """Knows the truth, and the load of the whole week, the moment that they change (and not before); takes as long as
    anybody to roll out."""
    service = Service(story, story.world.best(State()))
    times = sorted({*_steps(), *(change.at_s for change in story.changes)})
    queue, decided = deque(times), State()
    while queue:
        at_s = queue.popleft()
        moved = service.see(at_s)
        if moved or service.state != decided:
            decided = service.state
            _decide(story, service, at_s)
            if service.next is not None and queue and service.switch_s not in queue:
                queue = deque(sorted({*queue, service.switch_s}))
        until_s = queue[0] if queue else DAYS * DAY_S
        service.passed(until_s - at_s, service.served(at_s))
    return service


def _decide(story: Story, service: Service, at_s: float) -> None:
    """The best layout, where the present one does not do or it takes fewer GPUs."""
    state, here = service.state, service.layout
    best, truth = story.world.best(state), story.world.truth(state)
    fits = here in story.world.site.fitting(state.lost)
    if service.next is not None or best == here:
        return
    meets = fits and truth.goodput(here) >= story.world.site.request.workload.arrival.requests_per_s * state.rate
    carries = truth.goodput(best) > truth.goodput(here) * 1.05
    saves = best.devices < _LESS * here.devices and service.spare >= best.devices
    if not fits or (carries if not meets else saves):
        service.change(at_s, best, urgent=not fits)


def scaled(story: Story) -> Service:
    """The number of replicas follows the requests under way in each, as Ray Serve's autoscaler and an HPA on a queue
    metric have it: ``target_ongoing_requests`` is what each had at the busiest hour when the layout was chosen."""
    first = story.world.best(State())
    service = Service(story, first)
    peak = story.world.site.request.workload.arrival.requests_per_s / MARGIN
    busiest = story.world.truth(State()).replica(first).at(peak / first.dp)
    target = _ongoing(story, busiest, peak) / first.dp
    wanted: deque[int] = deque([first.dp], maxlen=int(_DOWN_S / STEP_S) + 1)
    waiting: tuple[float, int] | None = None
    for at_s in _steps():
        service.see(at_s)
        if waiting is not None and at_s >= waiting[0]:
            service.resize(waiting[1])
            waiting = None
        served = service.served(at_s)
        ongoing = _ongoing(story, served, story.rate(at_s) * service.state.rate)
        wanted.append(max(math.ceil(ongoing / target - 1e-9), 1))
        most = max(service.held(replace(first, dp=10_000)), 1)
        if min(wanted[-1], most) > service.layout.dp and waiting is None:
            waiting = (at_s + _UP_S + START_S, min(wanted[-1], most))
        elif max(wanted) < service.layout.dp:
            service.resize(max(wanted))
            waiting = None
        service.passed(STEP_S, served)
    return service


def _ongoing(story: Story, served: Served, rate: float) -> float:
    """Requests under way, by Little's law."""
    tokens = float(story.world.site.request.workload.output_tokens.mean)
    return rate * (served.ttft_ms + (tokens - 1) * served.tpot_ms) / 1e3


def _steps() -> list[float]:
    return [i * STEP_S for i in range(int(DAYS * DAY_S / STEP_S))]
