"""What a window sends: its schedule, its prompts, and what follows an answer: in a closed loop, or in a session."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.load.endpoint import Endpoint
from serve.load.request_sample import Sample
from serve.load.request_spec import Call
from serve.load.workers import Share
from serve.measure.prompts import chat_text
from tuner.ask.arrivals import CHANGING_PROCESSES, ClosedLoad, OfferedLoad, offered
from tuner.ask.request import SloTarget, TuneRequest
from tuner.stats.warm_up import WarmUp
from tuner.trial.results import LoadStep

TOKEN_IDS = (10, 1000)  # first and last id of random prompts: in every vocabulary that is served, and none special
_PREFIX_SEED = 0  # the same for every window, as a shared system prompt would be
_WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")


@dataclass(frozen=True, slots=True)
class WindowOrder:
    """One window: a load, the ``duration_s`` seconds of it that count, and the SLO by which it is judged: targets, and
    the ``attainment`` (share of requests that must meet them all) where it is asked.

    The first ``lead_s`` seconds are sent and not counted: engine and caches start cold, and a queue from nothing.
    ``rate_req_per_s`` is what an open load offers on average, None in a closed loop. ``stream`` (seed, index, warm-up)
    draws the prompts: windows that differ in it share no prompt beyond the ``shared_prefix_tokens``. ``rate_changes``
    by design, as in a ramp or a recorded trace: then a part of the window does not tell how all of it will go. With a
    ``chat_tokenizer`` (a directory) chats have the exact number of tokens. A ``warm_up`` has load for as long as it may
    last.
    """

    name: str
    load: OfferedLoad | ClosedLoad
    duration_s: float
    slo: tuple[SloTarget, ...]
    lead_s: float = 0.0
    rate_req_per_s: float | None = None
    shared_prefix_tokens: int = 0
    timeout_s: float = 120.0
    stream: tuple[int, int, int] = (0, 0, 0)
    token_ids: tuple[int, int] = TOKEN_IDS
    rate_changes: bool = False
    chat_tokenizer: Path | None = None
    attainment: float | None = None
    warm_up: WarmUp | None = None

    @property
    def end_s(self) -> float:
        """When the last request may be sent, in seconds from the start."""
        return self.lead_s + self.duration_s

    @property
    def first_counted(self) -> int:
        """Number of the first request of an open load that counts."""
        return int(np.searchsorted(self.load.offset_s, self.lead_s)) if isinstance(self.load, OfferedLoad) else 0

    @property
    def users(self) -> int | None:
        """Users of a closed loop; None in an open one."""
        return self.load.users if isinstance(self.load, ClosedLoad) else None


def order_of(step: LoadStep, request: TuneRequest, token_ids: tuple[int, int] = TOKEN_IDS) -> WindowOrder:
    """The window of a trial's load step."""
    name, longest_s = f"{step.rate_req_per_s:g} requests/s", step.longest_s or step.duration_s
    return WindowOrder(
        name=f"warm-up, {name}" if step.warmup else name,
        load=offered(request.workload, step.rate_req_per_s, longest_s, step.seed),
        duration_s=longest_s,
        slo=request.slo,
        rate_req_per_s=step.rate_req_per_s,
        shared_prefix_tokens=request.workload.shared_prefix_tokens,
        timeout_s=request.load.request_timeout_s,
        stream=(step.seed, step.index + 1, int(step.warmup)),
        token_ids=token_ids,
        rate_changes=request.workload.arrival.process in CHANGING_PROCESSES,
        attainment=request.attainment,
        warm_up=WarmUp(step.duration_s, longest_s) if step.warmup else None,
    )


def expected_requests(order: WindowOrder) -> int | None:
    """How many requests the window will send; None in a closed loop and a warm-up, where the answers decide."""
    return None if isinstance(order.load, ClosedLoad) or order.warm_up is not None else len(order.load)


def share_of(order: WindowOrder, endpoint: Endpoint, worker: int = 0, workers: int = 1) -> Share:
    """What one of several workers sends: every ``workers``-th request, user of a closed loop, or session of a trace.

    All shares together are the window, whatever their number. Calls are made when they are drawn, so that long
    prompts need no memory.
    """
    load = order.load
    make = _Calls(order, endpoint, worker, workers)
    if isinstance(load, ClosedLoad):
        return Share((make.call(user, 0.0, user) for user in range(worker, load.users, workers)), make.next_turn)
    if load.session is not None:
        mine = [index for index in _firsts(load.session) if load.session[index] % workers == worker]
        return Share((make.call(index, float(load.offset_s[index])) for index in mine), make.next_of_session)
    return Share(make.call(index, float(load.offset_s[index])) for index in range(worker, len(load), workers))


def _firsts(session: NDArray[np.int64]) -> list[int]:
    firsts: list[int] = np.sort(np.unique(session, return_index=True)[1]).tolist()
    return firsts


def _followers(session: NDArray[np.int64]) -> dict[int, int]:
    """Index of a turn → index of the next one of its session."""
    by_session = np.argsort(session, kind="stable")
    same = session[by_session[1:]] == session[by_session[:-1]]
    return dict(zip(by_session[:-1][same].tolist(), by_session[1:][same].tolist(), strict=True))


class _Calls:
    """Makes the requests of a window one by one.

    Prompts are token ids where the endpoint takes them: their length is exact for any tokenizer. Else they are words,
    one for each token asked, unless a tokenizer says how many it takes. All open with the
    same ``shared_prefix_tokens`` (those of one prefix group alike); what follows is random and differs between requests
    and windows, so that prefix caching cannot help. Only the turns of one session open with the turn before: their
    lengths count the conversation so far, in which random tokens stand for the answers.
    """

    def __init__(self, order: WindowOrder, endpoint: Endpoint, worker: int, workers: int) -> None:
        self._order, self._endpoint = order, endpoint
        self._prompts, self._outputs = order.load.prompt_tokens.tolist(), order.load.output_tokens.tolist()
        self._text = None if order.chat_tokenizer is None else chat_text(order.chat_tokenizer)
        groups = order.load.prefix_group
        self._groups: list[int] | None = None if groups is None else groups.tolist()
        session = order.load.session if isinstance(order.load, OfferedLoad) else None
        self._sessions: list[int] | None = None if session is None else session.tolist()
        self._after = {} if session is None else _followers(session)
        # A closed loop's later requests: the numbers after its users', shared out like them.
        self._next, self._step = -(-(order.users or 0) // workers) * workers + worker, workers

    def call(self, index: int, intended_s: float, user: int | None = None) -> Call:
        """The request of that index; a closed loop longer than the drawn lengths begins them anew."""
        prompt_tokens, output_tokens = (
            self._prompts[index % len(self._prompts)],
            self._outputs[index % len(self._outputs)],
        )
        said = {"model": self._endpoint.model, **self._endpoint.fields.body(output_tokens)}
        body = json.dumps(said | self._prompt(index, prompt_tokens)).encode()
        return Call(index, intended_s, body, prompt_tokens, output_tokens, user=user)

    def next_turn(self, call: Call, sample: Sample) -> Call | None:
        """What a user of a closed loop sends after an answer: the next request, until the window is over."""
        load = self._order.load
        assert isinstance(load, ClosedLoad)
        at_s = sample.end_s + load.think_s
        if at_s >= self._order.end_s:
            return None
        index = self._next
        self._next += self._step
        return self.call(index, at_s, call.user)

    def next_of_session(self, call: Call, sample: Sample) -> Call | None:
        """The next turn, at its time in the trace but not before the answer to this one; none after the window."""
        index = self._after.get(call.index)
        if index is None:
            return None
        assert isinstance(self._order.load, OfferedLoad)
        at_s = max(float(self._order.load.offset_s[index]), sample.end_s)
        return self.call(index, at_s) if at_s <= self._order.end_s else None

    def _prompt(self, index: int, tokens: int) -> dict[str, Any]:
        group = 0 if self._groups is None else self._groups[index % len(self._groups)]
        low, high = self._order.token_ids
        shared = min(self._order.shared_prefix_tokens, tokens)
        prefix = np.random.default_rng([_PREFIX_SEED, group]).integers(low, high, shared, endpoint=True).tolist()
        number = index if self._sessions is None else self._sessions[index]
        own = np.random.default_rng([*self._order.stream, number]).integers(low, high, tokens - shared, endpoint=True)
        ids = prefix + own.tolist()
        if not self._endpoint.chat and self._endpoint.fields.token_ids:
            return {"prompt": ids}
        words = (
            " ".join(_WORDS[one % len(_WORDS)] for one in ids)
            if self._text is None
            else self._text.message(tokens, ids)
        )
        return {"messages": [{"role": "user", "content": words}]} if self._endpoint.chat else {"prompt": words}
