"""One request before the load: what is wrong with all of them shows here, and which fields the server does not take.

OpenAI-compatible servers differ in what they refuse: ``ignore_eos`` is vLLM's own, models that must end by themselves
fail with it, newer models of OpenAI take ``max_completion_tokens`` and no temperature, older gateways no
``stream_options``, some no token ids. What is refused is left out and said; it is never left out without a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from serve.load.endpoint import Endpoint
from serve.load.request_fields import Length, RequestFields
from serve.load.request_sample import Outcome, Sample
from serve.measure.probe import EndpointFailed
from serve.measure.window import failures
from serve.measure.window_requests import WindowOrder
from serve.measure.window_runner import WindowRunner
from tuner.ask.arrivals import OfferedLoad

REFUSALS = frozenset({400, 422, 500, 501, 502})  # gateways pass on another server's refusal as a failure of theirs
_LIKELIEST = ("ignore_eos", "min_tokens", "stream_options", "temperature", "max_tokens", "max_completion_tokens")
_OF_A_TYPE = re.compile(r"unmarshal|string|array|token.ids", re.IGNORECASE)
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Agreed:
    """An endpoint whose ``fields`` the server takes, and what was left out for that, in words with the reasons."""

    endpoint: Endpoint
    fallbacks: tuple[str, ...] = ()


def first_answer(endpoint: Endpoint, order: WindowOrder, ignore_eos: bool | None = None) -> Agreed:
    """Ask once, and where that is refused, without what is refused. ``ignore_eos`` True: it is sent whatever happens,
    False: it is not sent, nor anything in its place.

    Raises EndpointFailed with the first refusal where no request is answered.
    """
    start = replace(endpoint.fields, length=Length.FREE) if ignore_eos is False else endpoint.fields
    base, seen = start, _ask(replace(endpoint, fields=start), order)
    if seen.ok:
        return Agreed(replace(endpoint, fields=start))
    first = refusal = seen
    reasons, tried = dict[str, str](), {start}
    while (chosen := _next(endpoint, base, seen, tried, ignore_eos)) is not None:
        fields, named = chosen
        if not named and len(tried) == 1 and _ask(replace(endpoint, fields=base), order).ok:
            return Agreed(replace(endpoint, fields=base))  # a server that failed once has refused nothing
        for difference in _differences(base, fields):
            reasons.setdefault(difference, _why(seen if named else refusal))
        tried.add(fields)
        seen = _ask(replace(endpoint, fields=fields), order)
        if named:
            base, refusal = fields, seen
        if seen.ok:
            return Agreed(replace(endpoint, fields=fields), tuple(_told(start, fields, reasons)))
    hint = "; --no-ignore-eos leaves ignore_eos out" if ignore_eos and _refuses(first) else ""
    raise EndpointFailed(f"{endpoint.url} does not answer a first request: {failures([first])}{hint}")


def _ask(endpoint: Endpoint, order: WindowOrder) -> Sample:
    """The answer to the first request of a window, alone."""
    load = order.load
    one = OfferedLoad(np.zeros(1), load.prompt_tokens[:1], load.output_tokens[:1])
    alone = replace(order, load=one, lead_s=0.0, duration_s=1.0, slo=(), stream=(*order.stream[:2], 2))
    return WindowRunner(endpoint).run(alone).samples[0]


def _next(
    endpoint: Endpoint, base: RequestFields, seen: Sample, tried: set[RequestFields], ignore_eos: bool | None
) -> tuple[RequestFields, bool] | None:
    """The fields to try next, and whether the refusal named what they leave out; None where nothing is left.

    What a refusal names goes. Where it names nothing, or what has gone before, one field goes at a time, then all.
    """
    if not _refuses(seen):
        return None
    kept = ("ignore_eos",) if ignore_eos else ()
    name = next((one for one in _sent(endpoint, base) if one not in kept and _names(one, seen)), None)
    if name is not None and (named := _without(name, base)) not in tried:
        return named, True
    must_end = seen.outcome is Outcome.SERVER_ERROR  # such a model fails whatever keeps it from ending
    guesses = _guesses(base, (*kept, *(("min_tokens",) if must_end else ())))
    return next(((fields, False) for fields in guesses if fields not in tried), None)


def _sent(endpoint: Endpoint, fields: RequestFields) -> list[str]:
    """The fields of a request that may be refused, the likeliest first: a refusal may also list what is allowed."""
    names = [name for name in _LIKELIEST if name in fields.names]
    return [*names, "prompt"] if fields.token_ids and not endpoint.chat else names


def _refuses(seen: Sample) -> bool:
    """May it be something of the request that failed it? Some gateways refuse with status 200 and no stream."""
    if seen.outcome is Outcome.HTTP_ERROR:
        return seen.status in REFUSALS
    return seen.outcome is Outcome.SERVER_ERROR or (seen.outcome is Outcome.NOT_A_STREAM and '"error"' in _said(seen))


def _said(seen: Sample) -> str:
    return seen.detail or ""


def _guesses(base: RequestFields, kept: tuple[str, ...]) -> Iterator[RequestFields]:
    free = base if "ignore_eos" in kept else replace(base, length=Length.FREE)
    if base is not free and "min_tokens" not in kept:
        yield _without("ignore_eos", base)
    yield free
    for name in ("stream_options", "temperature", "max_tokens"):
        yield _without(name, base)
    least = replace(free, usage=False, temperature=False)
    yield least
    yield _without("max_tokens", least)


def _without(name: str, fields: RequestFields) -> RequestFields:
    """The fields with something else, or nothing, in the place of one."""
    match name:
        case "ignore_eos" if fields.length is Length.IGNORE_EOS:
            return replace(fields, length=Length.MIN_TOKENS)
        case "min_tokens" if fields.length is Length.MIN_TOKENS:
            return replace(fields, length=Length.FREE)
        case "stream_options":
            return replace(fields, usage=False)
        case "temperature":
            return replace(fields, temperature=False)
        case "max_tokens":
            return replace(fields, limit="max_completion_tokens")
        case "max_completion_tokens":
            return replace(fields, limit="max_tokens")
        case "prompt":
            return replace(fields, token_ids=False)
    return fields


def _names(name: str, seen: Sample) -> bool:
    """Does a refusal name a field? Servers say it as ``param`` or ``loc``, or in a sentence."""
    said = _said(seen)
    if name == "prompt":  # a word of many sentences: only where its type is the matter
        return re.search(r"\bprompt\b", said) is not None and _OF_A_TYPE.search(said) is not None
    also = r"|include_usage" if name == "stream_options" else ""
    return re.search(rf"\b(?:{name}{also})\b", said) is not None


def _why(seen: Sample) -> str:
    return f"{seen.error}: {_said(seen)}"[:_SHOWN_CHARACTERS].rstrip(": ")


def _differences(one: RequestFields, other: RequestFields) -> list[str]:
    return [name for name in RequestFields.__dataclass_fields__ if getattr(one, name) != getattr(other, name)]


def _told(start: RequestFields, fields: RequestFields, reasons: dict[str, str]) -> Iterator[str]:
    """What is sent otherwise than was begun with, and why."""
    instead = {
        "length": "min_tokens is sent in place of ignore_eos"
        if fields.length is Length.MIN_TOKENS
        else f"{start.length.value} is not sent, so that answers may be shorter than asked",
        "usage": "stream_options is not sent, so that the server may not count tokens",
        "limit": f"{fields.limit} is sent in place of {start.limit}",
        "temperature": "temperature is not sent, so that the server's own holds",
        "token_ids": "prompts are words in place of token ids, so that their length is near what was asked",
    }
    for name in _differences(start, fields):
        yield f"{instead[name]} (with it: {reasons[name]})"
