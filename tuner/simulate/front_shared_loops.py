"""Compiled: requests, and the tokens of their answers, through the event loops of a path on cores that they share."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tuner.simulate.compiled import compiled
from tuner.simulate.state import NONE, Floats, Ints, Records

_NEVER = 1e300
_ENGINES = -2  # what comes next, where that is no loop
GENERATIONS = 16  # of an engine's streams that are told apart
_REQUEST, _FIRST, _REST = 0, 1, 2  # what a thing is: a request, its first message, a part of what comes after

# What passes a path: so many messages, and tokens beyond one for each, of a request or burst by number, behind an
# engine, dealt to the loops of a hop by a number; so many rounds of each loop, of which ``turn`` are over at this hop.
# ``link`` chains what waits for the same round, ``behind`` what waits for a later one, as it is of the same ``stream``.
THING = np.dtype(
    [
        *((name, np.float64) for name in ("messages", "further")),
        *((name, np.int64) for name in ("kind", "number", "engine", "dealt", "rounds", "turn", "hop", "link")),
        *((name, np.int64) for name in ("stream", "behind")),
    ],
    align=True,
)


class Hops(NamedTuple):
    """By hop, from client to engine: its work in ms for a request, a message and a further token of it, the number of
    its first loop and how many there are; ``own`` is 1 where each engine has one. By loop: the cores that are taken
    while it works. All loops, and ``others`` without end, share the ``cores``."""

    request_ms: Floats
    message_ms: Floats
    token_ms: Floats
    base: Ints
    loops: Ints
    own: Ints
    taken: Floats
    cores: float
    others: float


class Asked(NamedTuple):
    """By request, in the order of ``asked_ms``: its engine, and how many rounds it and its first message take of each
    loop. Without an interval: when its first token would leave the engine, how many steps later the last one does, and
    the tokens of a step. At intervals: the places of its first and last message."""

    asked_ms: Floats
    engine: Ints
    rounds: Ints
    first_ms: Floats
    steps: Ints
    share: Floats
    first: Ints
    last: Ints


class Sent(NamedTuple):
    """What leaves the engines: messages by request, with when each would leave and its tokens; or bursts, which come to
    be here, with the tokens of each. When each leaves, and when it has passed the path."""

    early_ms: Floats
    tokens: Floats
    at_ms: Floats
    left_ms: Floats


class Seen(NamedTuple):
    """By request: when it has reached its engine, when its first message leaves that and has passed the path, and the
    place of the burst that has its last token."""

    arrived_ms: Floats
    first_at_ms: Floats
    first_left_ms: Floats
    last: Ints


class Room(NamedTuple):
    """By loop: the first and last thing that waits, the first that is worked on (all NONE), and what is left of that in
    ms. By engine: the length of a step, how many of them an answer takes, the tokens that it emits at the end of one,
    answers that run, whether its clock does (all 0), its last burst, and the first request whose answer begins with the
    next one (both NONE). By request: the one after it, or the place of its next message. By loop and stream of an
    engine, or hop and request: the last thing that waits (NONE). The ``things``, and a heap of what engines do next: by
    time, and at one time by number."""

    head: Ints
    tail: Ints
    round_: Ints
    rest_ms: Floats
    step_ms: Floats
    long: Ints
    emits: Floats
    running: Ints
    ticking: Ints
    burst: Ints
    opens: Ints
    following: Ints
    waits: Ints
    things: Records
    due_ms: Floats
    due: Ints


@compiled
def pass_all(hops: Hops, asked: Asked, sent: Sent, seen: Seen, room: Room, at_intervals: bool) -> int:
    """Fill in ``seen`` and what is open of ``sent``; how many bursts there are, or NONE where there was no room.

    A loop takes up all that waits for it, works on it and hands it on together (a round of asyncio's ``_run_once``), of
    each stream one thing: whoever reads a stream asks for the next when it has handed on the last. While it works it
    takes its cores; where all that work want more than there are, each gets the same part of what it would take
    (processor sharing). An answer is as late as its request: it begins once that has arrived.
    """
    loops, asks, come, bursts, made, due = len(room.head), len(asked.asked_ms), 0, 0, 0, 0
    things, now, parts = room.things, 0.0, 1
    for hop in range(len(hops.base)):
        if not hops.own[hop]:
            parts = max(parts, hops.loops[hop])
    while True:
        wanted = hops.others
        for this in range(loops):
            if room.round_[this] == NONE and room.head[this] != NONE:
                _take_up(this, hops, room)
            if room.round_[this] != NONE:
                wanted += hops.taken[this]
        speed = 1.0 if wanted <= hops.cores else hops.cores / wanted
        then, which = _NEVER, NONE
        if come < asks:
            then = asked.asked_ms[come]
        if due and room.due_ms[0] < then:
            then, which = room.due_ms[0], _ENGINES
        then = max(then, now)
        for this in range(loops):
            if room.round_[this] != NONE and now + room.rest_ms[this] / speed < then:
                then, which = now + room.rest_ms[this] / speed, this
        if then == _NEVER:
            return bursts
        for this in range(loops):
            if room.round_[this] != NONE:
                room.rest_ms[this] -= (then - now) * speed
        now = then
        if which in (NONE, _ENGINES):
            if made + asks + parts > len(things):
                return NONE
            if which == NONE:
                _enter(made, _REQUEST, come, come, asked.engine[come], asked.rounds[come], NONE, 0.0, 0.0, hops, room)
                made, come = made + 1, come + 1
            elif at_intervals:
                made, due = _message(made, due, asked, sent, seen, hops, room)
            else:
                made, due, bursts = _engine(made, due, bursts, parts, asked, sent, seen, hops, room)
            continue
        thing, room.round_[which] = room.round_[which], NONE
        while thing != NONE:
            link, number = things[thing].link, things[thing].number
            if _goes_on(thing, hops, room):
                _wait(thing, hops, room)
            elif things[thing].kind == _REQUEST:
                seen.arrived_ms[number] = now
                due = _answer(number, now - asked.asked_ms[number], due, asked, sent, room, at_intervals)
            else:
                if things[thing].kind == _FIRST:
                    seen.first_left_ms[number] = now
                    number = asked.first[number] if at_intervals else NONE
                if number != NONE:
                    sent.left_ms[number] = now
            thing = link


@compiled
def _answer(number: int, late_ms: float, due: int, asked: Asked, sent: Sent, room: Room, at_intervals: bool) -> int:
    """The request has arrived, so late: when its answer begins and ends; how much is due then."""
    if at_intervals:
        place = asked.first[number]
        room.following[number] = place
        return _push(sent.early_ms[place] + late_ms, number, due, room)
    step_ms = room.step_ms[asked.engine[number]]
    begins = math.ceil((asked.first_ms[number] + late_ms) / step_ms - 1e-9)
    begins = max(begins, math.floor((asked.asked_ms[number] + late_ms) / step_ms) + 1)  # this moment's burst has left
    due = _push(begins * step_ms, number, due, room)
    beyond = len(asked.asked_ms) + len(room.step_ms)
    return _push((begins + asked.steps[number]) * step_ms, beyond + number, due, room)


@compiled
def _message(made: int, due: int, asked: Asked, sent: Sent, seen: Seen, hops: Hops, room: Room) -> tuple[int, int]:
    """The next message leaves its engine: how many things there are then, and how much is due."""
    at_ms, request = room.due_ms[0], room.due[0]
    due = _pop(due, room)
    place, engine = room.following[request], asked.engine[request]
    sent.at_ms[place], room.following[request] = at_ms, place + 1
    further = sent.tokens[place] - 1
    waits = room.waits[len(hops.base) - 1, request]
    if waits != NONE:  # what has come by the time that the stream is read leaves together
        sent.tokens[room.things[waits].number] += sent.tokens[place]
        room.things[waits].further += sent.tokens[place]
        sent.tokens[place] = 0.0
    elif place == asked.first[request]:
        seen.first_at_ms[request] = at_ms
        _enter(made, _FIRST, request, request, engine, asked.rounds[request], NONE, 1.0, further, hops, room)
        made += 1
    else:
        _enter(made, _REST, place, request, engine, 1, request, 1.0, further, hops, room)
        made += 1
    if place < asked.last[request]:
        due = _push(at_ms + sent.early_ms[place + 1] - sent.early_ms[place], request, due, room)
    return made, due


@compiled
def _engine(
    made: int, due: int, bursts: int, parts: int, asked: Asked, sent: Sent, seen: Seen, hops: Hops, room: Room
) -> tuple[int, int, int]:
    """What is due is done, of one time first answers that begin, then the burst, then answers that are over: how many
    things there are then, how much is due, and how many bursts have left."""
    at_ms, number, asks = room.due_ms[0], room.due[0], len(asked.asked_ms)
    due = _pop(due, room)
    if number < asks:
        engine = asked.engine[number]
        room.following[number], room.opens[engine] = room.opens[engine], number
        room.emits[engine] += asked.share[number]
        room.running[engine] += 1
        if not room.ticking[engine]:
            room.ticking[engine] = 1
            due = _push(at_ms, asks + engine, due, room)
        return made, due, bursts
    if number >= asks + len(room.step_ms):
        number -= asks + len(room.step_ms)
        engine = asked.engine[number]
        seen.last[number] = room.burst[engine]
        room.emits[engine] -= asked.share[number]
        room.running[engine] -= 1
        return made, due, bursts
    engine = number - asks
    if not room.running[engine]:
        room.ticking[engine], room.emits[engine] = 0, 0.0
        return made, due, bursts
    rest, request = room.emits[engine], room.opens[engine]
    sent.at_ms[bursts], sent.tokens[bursts], sent.left_ms[bursts] = at_ms, rest, at_ms
    while request != NONE:
        seen.first_at_ms[request], rest = at_ms, rest - 1
        _enter(made, _FIRST, request, request, engine, asked.rounds[request], NONE, 1.0, 0.0, hops, room)
        made, request = made + 1, room.following[request]
    room.opens[engine], room.burst[engine] = NONE, bursts
    rest = max(rest, 0.0)
    count = min(parts, max(round(rest), 1))
    step_ms = room.step_ms[engine]
    step = round(at_ms / step_ms)
    stream = engine * GENERATIONS + step // room.long[engine] % GENERATIONS  # bursts so far apart share no answer
    for part in range(count):
        _enter(made + part, _REST, bursts, made + part, engine, 1, stream, rest / count, 0.0, hops, room)
    due = _push((step + 1) * step_ms, asks + engine, due, room)
    return made + count, due, bursts + 1


@compiled
def _enter(
    thing: int, kind: int, number: int, dealt: int, engine: int, rounds: int, stream: int, messages: float,
    further: float, hops: Hops, room: Room,
) -> None:  # fmt: skip
    """A thing comes: at the first hop a request, at the last what leaves an engine."""
    made = room.things[thing]
    made.kind, made.number, made.dealt, made.engine, made.rounds = kind, number, dealt, engine, rounds
    made.messages, made.further, made.turn = messages, further, 0
    made.hop, made.stream = 0 if kind == _REQUEST else len(hops.base) - 1, stream
    _wait(thing, hops, room)


@compiled
def _goes_on(thing: int, hops: Hops, room: Room) -> bool:
    """A round is over: whether the thing has another one to wait for, here or at the next hop."""
    it = room.things[thing]
    it.turn += 1
    if it.turn == it.rounds:
        it.turn = 0
        it.hop += 1 if it.kind == _REQUEST else -1
    return bool(0 <= it.hop < len(hops.base))


@compiled
def _wait(thing: int, hops: Hops, room: Room) -> None:
    """The thing waits for the next round of its loop."""
    it = room.things[thing]
    this = hops.base[it.hop] + (it.engine if hops.own[it.hop] else it.dealt) % hops.loops[it.hop]
    it.link, it.behind = NONE, NONE
    if it.stream != NONE:
        row = this if len(room.waits) == len(room.head) else it.hop
        before, room.waits[row, it.stream] = room.waits[row, it.stream], thing
        if before != NONE:
            room.things[before].behind = thing
            return
    _append(thing, this, room)


@compiled
def _append(thing: int, this: int, room: Room) -> None:
    """The thing is of the loop's next round."""
    if room.head[this] == NONE:
        room.head[this] = thing
    else:
        room.things[room.tail[this]].link = thing
    room.tail[this] = thing


@compiled
def _take_up(this: int, hops: Hops, room: Room) -> None:
    """The loop begins a round of all that waits for it."""
    thing, rest_ms, loops = room.head[this], 0.0, len(room.head)
    room.round_[this], room.head[this], room.tail[this] = thing, NONE, NONE
    while thing != NONE:
        it = room.things[thing]
        work_ms = hops.request_ms[it.hop]
        if it.kind != _REQUEST:
            work_ms = it.messages * hops.message_ms[it.hop] + it.further * hops.token_ms[it.hop]
        rest_ms += max(work_ms / it.rounds, 1e-9)
        if it.behind != NONE:
            _append(it.behind, this, room)
        elif it.stream != NONE:
            room.waits[this if len(room.waits) == loops else it.hop, it.stream] = NONE
        thing = it.link
    room.rest_ms[this] = rest_ms


@compiled
def _push(at_ms: float, number: int, due: int, room: Room) -> int:
    """Something more is due; how much is then."""
    place = due
    while place:
        above = (place - 1) // 2
        if room.due_ms[above] < at_ms or (room.due_ms[above] == at_ms and room.due[above] < number):
            break
        room.due_ms[place], room.due[place] = room.due_ms[above], room.due[above]
        place = above
    room.due_ms[place], room.due[place] = at_ms, number
    return due + 1


@compiled
def _pop(due: int, room: Room) -> int:
    """The first of what is due no longer is; how much is then."""
    due -= 1
    at_ms, number, place = room.due_ms[due], room.due[due], 0
    while True:
        below = 2 * place + 1
        if below >= due:
            break
        if below + 1 < due and (
            room.due_ms[below + 1] < room.due_ms[below]
            or (room.due_ms[below + 1] == room.due_ms[below] and room.due[below + 1] < room.due[below])
        ):
            below += 1
        if at_ms < room.due_ms[below] or (at_ms == room.due_ms[below] and number < room.due[below]):
            break
        room.due_ms[place], room.due[place] = room.due_ms[below], room.due[below]
        place = below
    room.due_ms[place], room.due[place] = at_ms, number
    return due
