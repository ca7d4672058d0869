"""Options of ``parlay measure`` become loads and orders of windows; what is not allowed is refused here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from serve.measure.prompts import chat_text
from serve.measure.window_requests import WindowOrder
from tuner.app.measure.options import MeasureOptions
from tuner.ask.arrivals import CHANGING_PROCESSES, ClosedLoad, OfferedLoad, closed_load, offered, replay
from tuner.ask.request import Arrival, SloTarget, TokenLengths, Workload
from tuner.ask.workload import TooLong
from tuner.errors import BadInput

CLOSED_LOOP_REQUESTS = 100_000  # lengths that are drawn for a closed loop; a longer one begins them anew


@dataclass(frozen=True, slots=True)
class NamedLoad:
    """A load, what it is called, its rate, and the seconds of it that lead in and that count."""

    name: str
    load: OfferedLoad | ClosedLoad
    rate_req_per_s: float | None
    lead_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """What a server takes of prompt and output together (None: it does not say), and what becomes of longer requests
    of a trace."""

    tokens: int | None = None
    too_long: TooLong = TooLong.REFUSE

    @classmethod
    def of(cls, options: MeasureOptions, served_tokens: int | None = None) -> LengthLimit:
        """That of the options, or else what the server says; raises BadInput for a choice that has no trace."""
        if options.too_long is not None and options.trace is None:
            raise BadInput("--too-long", options.too_long.value, "with --trace only")
        return cls(options.max_model_len or served_tokens, options.too_long or TooLong.REFUSE)


def check_lengths(options: MeasureOptions, limit: LengthLimit) -> None:
    """Refuse lengths that are to be drawn and may exceed the limit; vLLM answers such a request with status 400."""
    prompts, outputs = (
        token_lengths(name, text).bounds[1]
        for name, text in (("--prompt-tokens", options.prompt_tokens), ("--output-tokens", options.output_tokens))
    )
    if options.trace is None and limit.tokens is not None and prompts + outputs > limit.tokens:
        allowed = f"at most {limit.tokens} tokens together, the server's max_model_len"
        raise BadInput("--prompt-tokens and --output-tokens", f"up to {prompts} and {outputs} tokens", allowed)


def check_prompts(options: MeasureOptions, order: WindowOrder) -> None:
    """Refuse a tokenizer that cannot make the shortest and the longest prompt of a window."""
    if options.tokenizer is None:
        return
    if not options.chat:
        raise BadInput("--tokenizer", str(options.tokenizer), "with --chat; completions get token ids, exact anyway")
    for tokens in (int(order.load.prompt_tokens.min()), int(order.load.prompt_tokens.max())):
        chat_text(options.tokenizer).message(tokens, range(tokens))


def window_order(options: MeasureOptions, slo: tuple[SloTarget, ...], named: NamedLoad, index: int) -> WindowOrder:
    """The window of a load; ``index`` sets its draws apart from those of other windows."""
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


def asked_loads(options: MeasureOptions, limit: LengthLimit) -> Iterator[NamedLoad]:
    """The loads of a sweep, in the order given; those of a trace within the limit."""
    if options.trace is not None:
        for speed in options.trace_speeds or (1.0,):
            window_s = _trace_window_s(options.trace_window)
            load = replay(options.trace, speed, window_s, limit.tokens, limit.too_long)
            name = options.trace.name + ("" if speed == 1 else f" at {speed:g} x")
            if load.too_long:
                name += f", {load.too_long} too long: {limit.too_long.value}"
            yield NamedLoad(name, load, load.rate_req_per_s, 0.0, load.duration_s or 0.0)
        return
    for users in options.users:
        if users < 1:
            raise BadInput("--users", users, "at least 1")
        drawn = closed_load(
            _workload(options, 1.0), users, max(CLOSED_LOOP_REQUESTS, users), options.seed, options.think_seconds
        )
        name = f"{users} user{'s' if users > 1 else ''}"
        yield NamedLoad(name, drawn, None, options.warmup_seconds, options.seconds)
    for rate in () if options.users else options.rates or (1.0,):
        yield open_load(options, positive(rate), 0)


def open_load(options: MeasureOptions, rate_req_per_s: float, number: int) -> NamedLoad:
    """An open load of ``rate_req_per_s``; ``number`` sets its draws apart from those of other loads."""
    seconds = options.warmup_seconds + options.seconds
    load = offered(_workload(options, rate_req_per_s), rate_req_per_s, seconds, options.seed + number)
    return NamedLoad(f"{rate_req_per_s:.4g} req/s", load, rate_req_per_s, options.warmup_seconds, options.seconds)


def _trace_window_s(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\.\.(\d{1,9}(?:\.\d{1,6})?)", text.strip())
    if not found or float(found[1]) >= float(found[2]):
        raise BadInput("--trace-window", text, "FROM..TO in seconds of the recording, such as 0..600")
    return float(found[1]), float(found[2])


def positive(rate: float) -> float:
    """The rate; raises BadInput where it is not a finite number above 0."""
    if not (math.isfinite(rate) and rate > 0):
        raise BadInput("--rate", rate, "a finite number above 0")
    return rate


def _workload(options: MeasureOptions, rate_req_per_s: float) -> Workload:
    if options.process not in ("poisson", "constant", "gamma", "ramp", "step"):
        raise BadInput("--process", options.process, "poisson, constant, gamma, ramp, step")
    prompts = token_lengths("--prompt-tokens", options.prompt_tokens)
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
        output_tokens=token_lengths("--output-tokens", options.output_tokens),
        arrival=arrival,
        shared_prefix_tokens=options.shared_prefix_tokens,
    )


def token_lengths(where: str, text: str) -> TokenLengths:
    """The lengths of ``text``, tokens or LOW..HIGH; raises BadInput, which names the option ``where``."""
    found = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", text.strip())
    low = int(found[1]) if found else 0
    high = int(found[2] or low) if found else 0
    if not 1 <= low <= high:
        raise BadInput(where, text, "a number of tokens of at least 1, or LOW..HIGH")
    return TokenLengths(mean=(low + high) // 2, min=low, max=high)
