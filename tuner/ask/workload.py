"""The workload of a request: how long its prompts and answers are, and how they arrive."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tuner.ask.sections import Count, Document, Positive


class TooLong(StrEnum):
    """What becomes of the requests of a trace whose prompt and output together exceed ``max_model_len``.

    vLLM refuses each with status 400. REFUSE, the default: so is the trace, since the load that is left is another one
    than the recorded. SKIP leaves them out; TRUNCATE cuts the prompt, and only where that is not enough the output.
    """

    REFUSE = "refuse"
    SKIP = "skip"
    TRUNCATE = "truncate"


def _tokens(given: object) -> object:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 1 <= given < math.inf:
        raise ValueError("a number of tokens, greater than or equal to 1")
    return given


class TokenLengths(Document):
    """Prompt or output lengths in tokens: fixed at ``mean``, uniform on [``min``, ``max``] around it, or from a
    ``distribution`` with that ``mean`` and standard deviation ``sd``, cut off at the bounds. ``trace``: those of the
    requests of a trace, one by one, which have that mean and these bounds."""

    mean: Annotated[int | float, BeforeValidator(_tokens)]
    min: Count | None = None
    max: Count | None = None
    distribution: Literal["uniform", "normal", "lognormal", "trace"] = "uniform"
    sd: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        return {"mean": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _bounds_surround_mean(self) -> TokenLengths:
        low, high = self.min or self.mean, self.max or self.mean
        if (self.min is None) != (self.max is None) or not low <= self.mean <= high:
            raise ValueError("min and max together, with min ≤ mean ≤ max")
        if self.max is None and self.mean != int(self.mean):
            raise ValueError("a whole number where all have that length; else with min and max")
        if self.distribution in ("normal", "lognormal"):
            if self.sd is None or self.max is None:
                raise ValueError(f"sd, min and max with distribution {self.distribution}")
            if max(high - self.mean, self.mean - low) < 0.1 * self.sd:
                raise ValueError("bounds that leave a part of the distribution (sd much narrower)")
        elif self.sd is not None:
            raise ValueError("sd with distribution normal or lognormal only")
        elif self.distribution == "uniform" and abs(low + high - 2 * self.mean) > 1:
            raise ValueError(
                f"a mean midway between min and max ({(low + high) // 2}), as uniform lengths have; another mean with "
                "distribution: normal or lognormal and its sd; or arrival.process: trace, which brings its own lengths"
            )
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """Shortest and longest length, in tokens."""
        return (self.min or int(self.mean), self.max or int(self.mean))


class Recorded(Document):
    """What a trace held when the request was read, which fills this in. A file with other bytes is no longer it.

    ``requests`` are replayed, the longest of ``longest_tokens`` (prompt and output); ``too_long`` of those listed
    exceeded ``limit_tokens`` and were skipped or truncated. ``without_tokens`` rows list none and were left out.
    """

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    requests: Count
    longest_tokens: Count
    limit_tokens: Count
    too_long: Annotated[int, Field(ge=0, strict=True)] = 0
    without_tokens: Annotated[int, Field(ge=0, strict=True)] = 0


class Arrival(Document):
    """How requests arrive, at ``requests_per_s`` on average.

    ``poisson``; ``constant``: one every 1/rate seconds; ``gamma``: gaps from a gamma distribution whose squared
    coefficient of variation is ``burstiness``; ``ramp`` and ``step``: Poisson with a rate that changes over the window,
    evenly or at its half, from ``start_share`` times the mean to as far beyond it; ``trace``: the arrivals and lengths
    of the file ``trace``, replayed at the asked rate, or its own; ``closed_loop``: ``users`` who each send ``think_s``
    seconds after their last answer (layouts are planned for ``requests_per_s``).
    """

    process: Literal["constant", "poisson", "gamma", "ramp", "step", "trace", "closed_loop"] = "poisson"
    requests_per_s: Positive
    burstiness: Positive = 1.0
    start_share: Annotated[float, Field(ge=0, le=2, strict=True)] = 0.5
    trace: Annotated[str, Field(min_length=1)] | None = None
    too_long: TooLong = TooLong.REFUSE
    recorded: Recorded | None = None
    users: Count | None = None
    think_s: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 0.0

    @model_validator(mode="after")
    def _keys_of_the_process(self) -> Arrival:
        for key, processes in _KEYS_OF_PROCESSES.items():
            given = getattr(self, key) != type(self).model_fields[key].default
            if given and self.process not in processes:
                raise ValueError(f"{key} with process {' or '.join(processes)} only")
        for key in ("trace", "users"):
            if self.process in _KEYS_OF_PROCESSES[key] and getattr(self, key) is None:
                raise ValueError(f"{key}, with process {self.process}")
        return self


_KEYS_OF_PROCESSES = {
    "burstiness": ("gamma",),
    "start_share": ("ramp", "step"),
    "trace": ("trace",),
    "too_long": ("trace",),
    "recorded": ("trace",),
    "users": ("closed_loop",),
    "think_s": ("closed_loop",),
}


class Workload(Document):
    """Lengths and arrivals. ``shared_prefix_tokens`` open every prompt alike."""

    prompt_tokens: TokenLengths
    output_tokens: TokenLengths
    arrival: Arrival
    shared_prefix_tokens: Annotated[int, Field(ge=0, strict=True)] = 0

    @model_validator(mode="after")
    def _prefix_within_prompt(self) -> Workload:
        if self.shared_prefix_tokens == 0:
            return self
        if self.prompt_tokens.distribution == "trace":  # prompts of a trace that are too short to share it do not
            if self.shared_prefix_tokens >= self.prompt_tokens.mean:
                raise ValueError("shared_prefix_tokens shorter than the mean prompt of the trace")
        elif self.shared_prefix_tokens >= self.prompt_tokens.bounds[0]:
            raise ValueError("shared_prefix_tokens shorter than the shortest prompt")
        return self

    @model_validator(mode="after")
    def _lengths_of_a_trace(self) -> Workload:
        named = (self.prompt_tokens.distribution, self.output_tokens.distribution)
        if self.arrival.recorded is None and "trace" in named:
            raise ValueError("distribution uniform, normal or lognormal; trace with arrival.process trace only")
        return self

    @property
    def longest_tokens(self) -> int:
        """The longest prompt with its output that the workload can make."""
        recorded = self.arrival.recorded
        return recorded.longest_tokens if recorded else self.prompt_tokens.bounds[1] + self.output_tokens.bounds[1]
