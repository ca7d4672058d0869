"""Compiled: event loops of all hops of a path at once, on cores that they share."""

from __future__ import annotations

from tuner.simulate.compiled import compiled
from tuner.simulate.state import NONE, Floats, Ints

_NEVER = 1e300


@compiled
def shared_rounds(
    at_ms: Floats,
    inbound: Ints,
    loop: Ints,
    work_ms: Floats,
    taken: Floats,
    cores: float,
    others: float,
    head: Ints,
    tail: Ints,
    round_: Ints,
    rest_ms: Floats,
    link: Ints,
    hop: Ints,
    left_ms: Floats,
) -> None:
    """Things pass the hops of a path, requests (``inbound``) from the first to the last, messages back; each comes
    ``at_ms`` (ascending), uses ``loop`` [thing, hop] and has ``work_ms`` [thing, hop] of it. ``left_ms`` is when each
    has passed.

    A loop takes up all that waits for it, works on it and hands it on together (a round of asyncio's ``_run_once``).
    While it works it takes so many cores as ``taken`` says, by loop. All that work, and ``others`` without end, share
    the ``cores``: where those are too few, each gets the same part of what it would take (processor sharing). ``head``,
    ``tail`` and ``round_`` (by loop) begin as NONE, ``rest_ms`` as 0; ``link`` and ``hop`` have room by thing.
    """
    loops, hops, come, now = len(head), work_ms.shape[1], 0, 0.0
    if len(at_ms):
        now = at_ms[0]
    while True:
        wanted = others
        for this in range(loops):
            if round_[this] == NONE and head[this] != NONE:
                thing, rest_ms[this] = head[this], 0.0
                while thing != NONE:
                    rest_ms[this] += max(work_ms[thing, hop[thing]], 1e-9)
                    thing = link[thing]
                round_[this], head[this], tail[this] = head[this], NONE, NONE
            if round_[this] != NONE:
                wanted += taken[this]
        speed = 1.0 if wanted <= cores else cores / wanted
        then, which = _NEVER, NONE
        if come < len(at_ms):
            then = at_ms[come]
        for this in range(loops):
            if round_[this] != NONE and now + rest_ms[this] / speed < then:
                then, which = now + rest_ms[this] / speed, this
        if then == _NEVER:
            return
        for this in range(loops):
            if round_[this] != NONE:
                rest_ms[this] -= (then - now) * speed
        now = then
        if which == NONE:
            hop[come] = 0 if inbound[come] else hops - 1
            _wait(come, loop[come, hop[come]], head, tail, link)
            come += 1
            continue
        thing, round_[which] = round_[which], NONE
        while thing != NONE:
            following = link[thing]
            hop[thing] += 1 if inbound[thing] else -1
            if 0 <= hop[thing] < hops:
                _wait(thing, loop[thing, hop[thing]], head, tail, link)
            else:
                left_ms[thing] = now
            thing = following


@compiled
def _wait(thing: int, this: int, head: Ints, tail: Ints, link: Ints) -> None:
    """The thing waits for the next round of this loop."""
    link[thing] = NONE
    if head[this] == NONE:
        head[this] = thing
    else:
        link[tail[this]] = thing
    tail[this] = thing
