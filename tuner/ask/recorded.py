"""A recorded load as part of a request: its lengths, its own rate, and what of it is too long to be served.

It is read when the request is (``described``), and what was found stands in the request from then on, so that all that
follows sees one workload. Whoever replays it later (``replayed_trace``) gets those requests again, or is told that the
file has changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from tuner.ask.traces import Ints, Trace, read_trace
from tuner.ask.workload import Arrival, Recorded, TokenLengths, TooLong, Workload
from tuner.errors import BadInput


@dataclass(frozen=True, slots=True)
class Described:
    """What a trace brings to a workload; ``rate_req_per_s`` is its own, None where all requests come at one moment."""

    prompt_tokens: TokenLengths
    output_tokens: TokenLengths
    rate_req_per_s: float | None
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Fitted:
    """The requests of a trace that a limit leaves, and how many exceeded it."""

    trace: Trace
    too_long: int


def described(path: Path, limit_tokens: int, too_long: TooLong, where: str, remedy: str) -> Described:
    """Read a trace and hold its requests against the limit of prompt and output together.

    Raises BadInput for what is no trace, and at ``where`` for requests beyond the limit where these are refused; what
    may be done then is ``remedy``, with the ``{longest}`` named.
    """
    trace, digest = read_once(path)
    fit = fitted(trace, limit_tokens, too_long, where, remedy)
    recorded = Recorded(
        sha256=digest,
        requests=len(fit.trace),
        longest_tokens=int(_tokens(fit.trace).max()),
        limit_tokens=limit_tokens,
        too_long=fit.too_long,
        without_tokens=trace.without_tokens,
    )
    prompts, outputs = _lengths_of(fit.trace.prompt_tokens), _lengths_of(fit.trace.output_tokens)
    return Described(prompts, outputs, fit.trace.rate_req_per_s, recorded)


def replayed_trace(arrival: Arrival) -> Trace:
    """The requests that a request's trace stands for; raises BadInput where its file is gone, or is another by now."""
    assert arrival.trace is not None
    path, recorded = Path(arrival.trace), arrival.recorded
    trace, digest = read_once(path)
    if recorded is None:  # a request that was stored before it told what its trace holds
        return trace
    if digest != recorded.sha256:
        allowed = f"the file with SHA-256 {recorded.sha256[:12]}…, as it was when the request was read"
        raise BadInput("workload.arrival.trace", f"{path}, which has changed", allowed)
    return _cached_fit(path, digest, recorded.limit_tokens, arrival.too_long)


def fitted(trace: Trace, limit_tokens: int | None, too_long: TooLong, where: str, remedy: str) -> Fitted:
    """The requests whose prompt and output together are at most ``limit_tokens`` (None: all are), after what
    ``too_long`` says of the others. Raises BadInput at ``where``, as ``described``."""
    tokens = _tokens(trace)
    over = tokens > (tokens.max(initial=0) if limit_tokens is None else limit_tokens)
    count = int(over.sum())
    if limit_tokens is None or not count:
        return Fitted(trace, 0)
    if too_long is TooLong.TRUNCATE and limit_tokens > 1:
        outputs = np.minimum(trace.output_tokens, limit_tokens - 1)
        prompts = np.minimum(trace.prompt_tokens, limit_tokens - outputs)
        return Fitted(replace(trace, prompt_tokens=prompts, output_tokens=outputs), count)
    if too_long is TooLong.SKIP and count < len(trace):
        return Fitted(trace.taken(~over), count)
    longest = int(tokens.argmax())
    share = f"{count:,} of {len(trace):,}" if count < len(trace) else f"all {count:,}"
    at = f"the longest, line {trace.line[longest]}, has {tokens[longest]:,}"
    given = f"{share} requests longer than {limit_tokens:,} tokens; {at}"
    raise BadInput(where, given, remedy.format(longest=tokens[longest]))


def of_one_moment(path: Path) -> bool:
    """True where all requests of a trace come at once, so that it has no rate."""
    return read_once(path)[0].rate_req_per_s is None


def notes(workload: Workload) -> tuple[str, ...]:
    """What was left out of a workload's trace, or cut, in sentences; none where all of it is replayed as it is."""
    recorded, said = workload.arrival.recorded, []
    if recorded and recorded.too_long:
        done = {TooLong.SKIP: "skipped", TooLong.TRUNCATE: "truncated"}[workload.arrival.too_long]
        listed = recorded.requests + (recorded.too_long if done == "skipped" else 0)
        said.append(
            f"{recorded.too_long:,} of {listed:,} requests of the trace are longer than max_model_len, "
            f"{recorded.limit_tokens:,} tokens, and are {done}"
        )
    if recorded and recorded.without_tokens:
        said.append(f"{recorded.without_tokens:,} rows of the trace have no prompt or no output, and are left out")
    return tuple(said)


def _tokens(trace: Trace) -> Ints:
    return trace.prompt_tokens + trace.output_tokens


def _lengths_of(tokens: Ints) -> TokenLengths:
    mean = float(tokens.mean())
    return TokenLengths(
        mean=int(mean) if mean.is_integer() else mean,
        min=int(tokens.min()),
        max=int(tokens.max()),
        distribution="trace",
    )


def read_once(path: Path) -> tuple[Trace, str]:
    """A trace and the SHA-256 of its file: read once for all windows of a study, and anew when the file changes. Raises
    BadInput as ``read_trace`` does."""
    stat = path.stat() if path.is_file() else None
    return _cached(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None)


@lru_cache(maxsize=4)
def _cached(path: Path, version: tuple[int, int, int] | None) -> tuple[Trace, str]:
    del version  # tells when the file must be read anew
    trace = read_trace(path)
    with path.open("rb") as file:
        return trace, hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _cached_fit(path: Path, digest: str, limit_tokens: int, too_long: TooLong) -> Trace:
    del digest  # of the file, as above
    return fitted(read_once(path)[0], limit_tokens, too_long, "workload.arrival.trace", "shorter requests").trace
