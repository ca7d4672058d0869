"""The windows that ``parlay measure`` was asked for, from its options; what is not allowed is refused here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serve.load.saturation import ClientLimit
from serve.measure.prompts import chat_text
from serve.measure.window import Window
from serve.measure.window_requests import CHANGING_PROCESSES, WindowOrder
from tuner.ask.arrivals import ClosedLoad, OfferedLoad, closed_load, offered, replay
from tuner.ask.request import Arrival, SloTarget, TokenLengths, Workload, require_defined
from tuner.ask.slo import Verdict
from tuner.errors import BadInput
from tuner.stats.rate_search import RateFound, RateSearch

CLOSED_LOOP_REQUESTS = 100_000  # lengths that are drawn for a closed loop; a longer one begins them anew
SEARCH_RATIO = 64.0  # a search from one rate goes down and up to this ratio of it


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What the operator gave on the command line."""

    url: str
    rates: tuple[float, ...] = ()
    users: tuple[int, ...] = ()
    trace: Path | None = None
    trace_speeds: tuple[float, ...] = ()
    trace_window: str | None = None
    think_seconds: float = 0.0
    find_rate: bool = False
    slo: tuple[str, ...] = ()
    seconds: float = 30.0
    warmup_seconds: float = 5.0
    prompt_tokens: str = "256"
    output_tokens: str = "64"
    shared_prefix_tokens: int = 0
    process: str = "poisson"
    burstiness: float = 1.0
    start_share: float = 0.5
    chat: bool = False
    tokenizer: Path | None = None
    model: str | None = None
    api_key_env: str | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    metrics_urls: tuple[str, ...] = ()
    timeout_s: float = 120.0
    workers: int = 1
    seed: int = 0
    whole_windows: bool = False
    requests_out: Path | None = None
    report: Path | None = None


class Sweep:
    """Windows that are known beforehand, one after another."""

    def __init__(self, options: MeasureOptions, slo: tuple[SloTarget, ...]) -> None:
        ways = {"--rate": options.rates, "--users": options.users, "--trace": options.trace}
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            raise BadInput(given[1], f"also {given[0]}", "one of " + ", ".join(ways))
        for name, value, way in (
            ("--trace-speed", options.trace_speeds, "--trace"),
            ("--trace-window", options.trace_window, "--trace"),
            ("--think-seconds", options.think_seconds, "--users"),
        ):
            if value and not ways[way]:
                raise BadInput(name, value, f"with {way} only")
        self._left = [_order(options, slo, load, index) for index, load in enumerate(_loads(options))]
        for order in self._left:
            check_prompts(options, order)
            require_defined(slo, int(order.load.output_tokens.max()), "--slo")

    def ask(self) -> WindowOrder | None:
        """The next window, None after the last."""
        return self._left.pop(0) if self._left else None

    def tell(self, window: Window) -> None:
        """Nothing follows from a window."""

    @property
    def found(self) -> RateFound | None:
        """A sweep searches nothing."""
        return None


class Hunt:
    """Windows at the rates that tell most of the highest one within the SLO.

    Two ``--rate`` bound the search; one is its first guess. A rate at which the client lagged is tried once more: it
    may have been a disturbance. One whose queue grew counts as missed, as it could not be kept up.
    """

    def __init__(self, options: MeasureOptions, slo: tuple[SloTarget, ...]) -> None:
        if not slo:
            raise BadInput("--find-rate", "no --slo", "a target to search for, such as --slo ttft:p99:500")
        if options.users or options.trace:
            raise BadInput("--find-rate", "--users or --trace", "an open load at rates of its own")
        if options.process in CHANGING_PROCESSES:
            raise BadInput("--find-rate", f"--process {options.process}", "a process whose rate stays")
        if len(options.rates) > 2:
            raise BadInput("--rate", list(options.rates), "one rate to begin with, or two between which to search")
        require_defined(slo, _lengths("--output-tokens", options.output_tokens).bounds[1], "--slo")
        rates = [_positive(rate) for rate in options.rates or (4.0,)]
        low, high = (min(rates), max(rates)) if len(rates) > 1 else (rates[0] / SEARCH_RATIO, rates[0] * SEARCH_RATIO)
        self._search = RateSearch(low, high, start=rates[0] if len(rates) == 1 else None)
        self._options, self._slo = options, slo
        self._asked = 0
        self._again: float | None = None
        self._over = False

    def ask(self) -> WindowOrder | None:
        """The next window, None when the search is over."""
        rate = self._search.ask() if self._again is None else self._again
        if rate is None or self._over:
            return None
        self._asked += 1
        order = _order(self._options, self._slo, _open_load(self._options, rate, self._asked), self._asked)
        check_prompts(self._options, order)
        return order

    def tell(self, window: Window) -> None:
        """Learn from a window; one without any answer ends the search."""
        rate = window.order.rate_req_per_s
        assert rate is not None  # it was an open load
        again, self._again = self._again, None
        if window.client_bound is not None:
            if again is None and window.client_bound.limit in (ClientLimit.SCHEDULE_LAG, ClientLimit.LOOP_LAG):
                self._again = rate
            else:
                self._search.tell_saturated(rate)
        elif window.invalid is None:
            self._search.tell(rate, window.verdict, certain=window.certain)
        elif window.unsteady is not None:
            self._search.tell(rate, Verdict.MISSED, certain=False)
        else:
            self._over = True

    @property
    def found(self) -> RateFound | None:
        """What is known of the highest rate."""
        return self._search.found


@dataclass(frozen=True, slots=True)
class _Named:
    """A load, what it is called, its rate, and the seconds of it that lead in and that count."""

    name: str
    load: OfferedLoad | ClosedLoad
    rate_req_per_s: float | None
    lead_s: float
    seconds: float


def check_prompts(options: MeasureOptions, order: WindowOrder) -> None:
    """Refuse a tokenizer that cannot make the shortest and the longest prompt of a window."""
    if options.tokenizer is None:
        return
    if not options.chat:
        raise BadInput("--tokenizer", str(options.tokenizer), "with --chat; completions get token ids, exact anyway")
    for tokens in (int(order.load.prompt_tokens.min()), int(order.load.prompt_tokens.max())):
        chat_text(options.tokenizer).message(tokens, range(tokens))


def _order(options: MeasureOptions, slo: tuple[SloTarget, ...], named: _Named, index: int) -> WindowOrder:
    return WindowOrder(
        name=named.name,
        load=named.load,
        duration_s=named.seconds,
        slo=slo,
        lead_s=named.lead_s,
        rate_req_per_s=named.rate_req_per_s,
        shared_prefix_tokens=options.shared_prefix_tokens,
        timeout_s=options.timeout_s,
        chat_tokenizer=options.tokenizer,
        stream=(options.seed, index + 1, 0),
        rate_changes=options.trace is not None or options.process in CHANGING_PROCESSES,
    )


def _loads(options: MeasureOptions) -> Iterator[_Named]:
    if options.trace is not None:
        for speed in options.trace_speeds or (1.0,):
            load = replay(options.trace, speed, _trace_window_s(options.trace_window))
            seconds = max(float(load.offset_s[-1]), 1e-3)
            name = options.trace.name + ("" if speed == 1 else f" at {speed:g} x")
            yield _Named(name, load, len(load) / seconds, 0.0, seconds)
        return
    for users in options.users:
        if users < 1:
            raise BadInput("--users", users, "at least 1")
        drawn = closed_load(
            _workload(options, 1.0), users, max(CLOSED_LOOP_REQUESTS, users), options.seed, options.think_seconds
        )
        name = f"{users} user{'s' if users > 1 else ''}"
        yield _Named(name, drawn, None, options.warmup_seconds, options.seconds)
    for rate in () if options.users else options.rates or (1.0,):
        yield _open_load(options, _positive(rate), 0)


def _open_load(options: MeasureOptions, rate_req_per_s: float, number: int) -> _Named:
    seconds = options.warmup_seconds + options.seconds
    load = offered(_workload(options, rate_req_per_s), rate_req_per_s, seconds, options.seed + number)
    return _Named(f"{rate_req_per_s:.4g} req/s", load, rate_req_per_s, options.warmup_seconds, options.seconds)


def _trace_window_s(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\.\.(\d{1,9}(?:\.\d{1,6})?)", text.strip())
    if not found or float(found[1]) >= float(found[2]):
        raise BadInput("--trace-window", text, "FROM..TO in seconds of the recording, such as 0..600")
    return float(found[1]), float(found[2])


def _positive(rate: float) -> float:
    if not (math.isfinite(rate) and rate > 0):
        raise BadInput("--rate", rate, "a finite number above 0")
    return rate


def _workload(options: MeasureOptions, rate_req_per_s: float) -> Workload:
    if options.process not in ("poisson", "constant", "gamma", "ramp", "step"):
        raise BadInput("--process", options.process, "poisson, constant, gamma, ramp, step")
    prompts = _lengths("--prompt-tokens", options.prompt_tokens)
    if options.shared_prefix_tokens >= prompts.bounds[0]:
        allowed = f"less than the shortest prompt, {prompts.bounds[0]} tokens"
        raise BadInput("--shared-prefix-tokens", options.shared_prefix_tokens, allowed)
    if options.burstiness != 1 and options.process != "gamma":
        raise BadInput("--burstiness", options.burstiness, "with --process gamma only")
    if not (math.isfinite(options.burstiness) and options.burstiness > 0):
        raise BadInput("--burstiness", options.burstiness, "a finite number above 0")
    changing = options.process in CHANGING_PROCESSES
    if options.start_share != 0.5 and not changing:
        raise BadInput("--start-share", options.start_share, "with --process ramp or step only")
    if not 0 <= options.start_share <= 2:
        raise BadInput("--start-share", options.start_share, "0 to 2")
    shape = {"start_share": options.start_share} if changing else {"burstiness": options.burstiness}
    arrival = Arrival.model_validate({"process": options.process, "requests_per_s": rate_req_per_s, **shape})
    return Workload(
        prompt_tokens=prompts,
        output_tokens=_lengths("--output-tokens", options.output_tokens),
        arrival=arrival,
        shared_prefix_tokens=options.shared_prefix_tokens,
    )


def _lengths(where: str, text: str) -> TokenLengths:
    found = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", text.strip())
    low = int(found[1]) if found else 0
    high = int(found[2] or low) if found else 0
    if not 1 <= low <= high:
        raise BadInput(where, text, "a number of tokens of at least 1, or LOW..HIGH")
    return TokenLengths(mean=(low + high) // 2, min=low, max=high)
