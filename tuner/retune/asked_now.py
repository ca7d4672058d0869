"""The request of a study, brought up to date with the load and the cluster that are seen now.

What is as it was asked, but for ``ALIKE``, stays as it was asked, and what is not changes in steps of ``STEP``: figures
that are seen are never quite the same twice, and the same question need not be asked anew with every look.
Of lengths often no more is known than their mean; their distribution is then scaled to it, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tuner.ask.request import TokenLengths, TuneRequest, Workload
from tuner.ask.requested_model import requested_model
from tuner.retune.cluster_now import cluster_now
from tuner.retune.demand import OUTPUT, PREFIX, PROMPT, RATE, Demand
from tuner.retune.seen import Fingerprint, Tokens

ALIKE = 0.1  # share by which a mean or a rate may differ and still be as it was asked
STEP = 0.05  # of a logarithm
_ALIKE_SHARE = 0.05  # by which the part of prompts that a cache holds may
_NEXT = 0.05  # of a step: so little beyond one is no reason for the next
_SPREAD = 0.2  # share by which a deviation may differ and still be as it was asked


@dataclass(frozen=True, slots=True)
class AskedNow:
    """The request of now; None where the cluster has no node of a kind that it names. ``changed`` names what is not as
    it was asked (of ``tuner.retune.demand``, and ``nodes``, ``link``, ``engine``), each with words; ``assumed`` what
    had to be supposed."""

    request: TuneRequest | None
    changed: Mapping[str, str]
    assumed: tuple[str, ...] = ()


def asked_now(
    request: TuneRequest, demand: Demand, seen: Fingerprint | None, then: Fingerprint | None = None
) -> AskedNow:
    """The request as it would be written now. ``then`` is what the study's decision rested on: a link that was probed
    then and now counts by the factor between the two."""
    changed: dict[str, str] = {}
    assumed: list[str] = []
    cluster, told = cluster_now(request, seen, then)
    changed |= told
    if cluster is None:
        return AskedNow(None, changed)
    document = request.model_dump() | {"cluster": cluster}
    workload = _workload(request, demand, changed, assumed)
    document["workload"] = workload
    if RATE in changed and request.load.rates_req_per_s is not None:
        factor = workload["arrival"]["requests_per_s"] / request.workload.arrival.requests_per_s
        document["load"] |= {"rates_req_per_s": tuple(rate * factor for rate in request.load.rates_req_per_s)}
    release = seen.versions.get("vllm") if seen is not None else None
    decided = then.versions.get("vllm") if then is not None else request.engine.version
    if release is not None and decided is not None and release != decided:
        changed["engine"] = f"vLLM {release} instead of {decided}"
        document["engine"] |= {"version": release} if request.engine.version is not None else {}
    try:
        return AskedNow(TuneRequest.model_validate(document), changed, tuple(assumed))
    except ValidationError as error:
        why = str(error.errors()[0]["msg"])
        assumed.append(f"the load is as it was asked, as what is seen makes no request ({why})")
        kept = request.model_dump() | {"cluster": cluster}
        return AskedNow(TuneRequest.model_validate(kept), changed, tuple(assumed))


def _workload(request: TuneRequest, demand: Demand, changed: dict[str, str], assumed: list[str]) -> dict[str, Any]:
    asked = request.workload
    document = asked.model_dump()
    most = _longest(request)
    output = _lengths("answers", OUTPUT, asked.output_tokens, demand.output, most - 1, changed, assumed)
    room = most - output.bounds[1]
    prompt = _lengths("prompts", PROMPT, asked.prompt_tokens, demand.prompt, max(room, 1), changed, assumed)
    if prompt.bounds[1] + output.bounds[1] > most:  # prompts are as asked
        left = most - prompt.bounds[1]
        output = _lengths("answers", OUTPUT, asked.output_tokens, demand.output, left, changed, [])
    document |= {"prompt_tokens": prompt.model_dump(), "output_tokens": output.model_dump()}
    document["shared_prefix_tokens"] = _prefix(asked, prompt, demand.prefix_share, changed)
    rate = _rate(asked.arrival.requests_per_s, demand, changed, assumed)
    document["arrival"]["requests_per_s"] = rate
    if asked.arrival.process == "trace" and {PROMPT, OUTPUT} & set(changed):
        untraced = [_untraced(one) for one in (prompt, output)]
        document |= {name: one.model_dump() for name, one in zip((PROMPT, OUTPUT), untraced, strict=True)}
        document["arrival"] = {"process": "poisson", "requests_per_s": rate}
        assumed.append("requests come as a Poisson process, as no trace has those of now")
    return document


def _rate(asked: float, demand: Demand, changed: dict[str, str], assumed: list[str]) -> float:
    """What was asked is the least, until a whole period was seen."""
    seen = demand.req_per_s
    if seen is None:
        assumed.append(f"{asked:g} requests/s, as asked: nobody sees how many come")
        return asked
    if abs(seen / asked - 1) <= ALIKE:
        return asked
    if seen < asked and not demand.whole:
        assumed.append(f"{asked:g} requests/s, as asked: less was seen, but not yet for a week")
        return asked
    planned = asked * math.exp(math.ceil(math.log(seen / asked) / STEP - _NEXT) * STEP)
    changed[RATE] = f"{planned:.3g} requests/s at the busiest instead of {asked:g}"
    return planned


def _lengths(
    whose: str,
    name: str,
    asked: TokenLengths,
    seen: Tokens | None,
    most: int,
    changed: dict[str, str],
    assumed: list[str],
) -> TokenLengths:
    """Lengths with the mean that is seen, none longer than ``most``."""
    if seen is None:
        assumed.append(f"{whose} as long as asked: nobody sees their lengths")
        return asked
    factor = in_steps(max(seen.mean, 1.0) / asked.mean)
    wider = seen.sd is not None and asked.sd is not None and abs(seen.sd / (asked.sd * factor) - 1) > _SPREAD
    if abs(factor - 1) <= ALIKE and not wider:
        return asked
    changed[name] = f"{whose} of {factor * asked.mean:.0f} tokens instead of {asked.mean:g}"
    if asked.sd is None or seen.sd is None:
        assumed.append(f"{whose} are distributed as asked, {factor:.2f} × as long")
    low, high = (max(round(bound * factor), 1) for bound in asked.bounds)
    return scaled(asked, factor, seen.sd, low, min(max(high, low), most))


def scaled(asked: TokenLengths, factor: float, sd: float | None, low: int, high: int) -> TokenLengths:
    """Lengths of the same distribution with ``factor`` times the mean, between ``low`` and ``high``; ``sd`` replaces
    the deviation of one that has any. Those of a trace become log-normal, or all alike where no deviation is known."""
    mean = min(max(asked.mean * factor, 1.0), float(high))
    if asked.bounds[0] == asked.bounds[1]:
        return TokenLengths(mean=max(round(mean), 1))
    low = max(min(low, int(mean)), 1)
    if asked.distribution == "uniform":
        low = max(round(2 * mean) - high, 1)
        return TokenLengths(mean=(low + high) / 2, min=low, max=high)
    deviation = sd if sd is not None else None if asked.sd is None else asked.sd * factor
    if not deviation or max(high - mean, mean - low) < 0.1 * deviation:
        return TokenLengths(mean=max(round(mean), 1))
    kind = "lognormal" if asked.distribution == "trace" else asked.distribution
    return TokenLengths(mean=mean, min=low, max=high, distribution=kind, sd=deviation)


def _untraced(lengths: TokenLengths) -> TokenLengths:
    return scaled(lengths, 1.0, None, *lengths.bounds) if lengths.distribution == "trace" else lengths


def _prefix(asked: Workload, prompt: TokenLengths, share: float | None, changed: dict[str, str]) -> int:
    """Tokens that open every prompt alike, fewer than the shortest has."""
    then = asked.shared_prefix_tokens
    shared = then
    if share is not None and abs(share - then / asked.prompt_tokens.mean) > _ALIKE_SHARE:
        shared = round(share * prompt.mean)
        changed[PREFIX] = (
            f"{share:.0%} of the prompts' tokens are cached instead of {then / asked.prompt_tokens.mean:.0%}"
        )
    least = prompt.mean if prompt.distribution == "trace" else prompt.bounds[0]
    return min(shared, max(int(least) - 1, 0))


def in_steps(factor: float) -> float:
    """The nearest factor that is a whole number of steps from 1."""
    return math.exp(round(math.log(factor) / STEP) * STEP)


def _longest(request: TuneRequest) -> int:
    """The longest sequence that the engine takes, in tokens."""
    return request.engine.max_model_len or requested_model(request).max_position
