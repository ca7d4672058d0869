"""Looks at a load, added up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.retune.seen import Look, Tokens


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Requests of which a length is known, their tokens, and those squared (None: not known)."""

    requests: float = 0.0
    tokens: float = 0.0
    squares: float | None = 0.0

    @classmethod
    def of(cls, seen: Tokens | None) -> TokenSums:
        """Of one interval."""
        if seen is None or seen.requests <= 0:
            return cls()
        squares = None if seen.sd is None else seen.requests * (seen.sd**2 + seen.mean**2)
        return cls(seen.requests, seen.requests * seen.mean, squares)

    def __add__(self, other: TokenSums) -> TokenSums:
        squares = None if self.squares is None or other.squares is None else self.squares + other.squares
        return TokenSums(self.requests + other.requests, self.tokens + other.tokens, squares)

    @property
    def seen(self) -> Tokens | None:
        """Their mean and deviation; None of no request."""
        if self.requests <= 0:
            return None
        mean = self.tokens / self.requests
        sd = None if self.squares is None else math.sqrt(max(self.squares / self.requests - mean**2, 0.0))
        return Tokens(self.requests, mean, sd)


@dataclass(frozen=True, slots=True)
class LoadSums:
    """``arrived`` requests in ``seconds``; ``cached`` are prompt tokens that a cache held, of those ``looked_up``."""

    seconds: float = 0.0
    arrived: float = 0.0
    prompt: TokenSums = TokenSums()
    output: TokenSums = TokenSums()
    cached: float = 0.0
    looked_up: float = 0.0

    @classmethod
    def of(cls, look: Look) -> LoadSums:
        """Of one look; what it did not see counts nowhere."""
        prompt = TokenSums.of(look.prompt)
        share = look.prefix_share
        return cls(
            0.0 if look.arrived is None else look.seconds,
            look.arrived or 0.0,
            prompt,
            TokenSums.of(look.output),
            0.0 if share is None else share * prompt.tokens,
            0.0 if share is None else prompt.tokens,
        )

    def __add__(self, other: LoadSums) -> LoadSums:
        return LoadSums(
            self.seconds + other.seconds,
            self.arrived + other.arrived,
            self.prompt + other.prompt,
            self.output + other.output,
            self.cached + other.cached,
            self.looked_up + other.looked_up,
        )

    @property
    def prefix_share(self) -> float | None:
        """The part of the prompts' tokens that a cache held; None where that was not seen."""
        return self.cached / self.looked_up if self.looked_up else None
