"""Is a share larger than another, or than a limit, by more than a tolerance? Evidence, however often one looks.

Requests of two sides are counted block by block. Against a claim about the two shares evidence grows as a bet would on
what comes next: the likelihood of a block under the shares that are expected from the blocks before it, over that under
the shares nearest to those which the claim allows. That ratio is on average at most 1 while the claim holds, so that by
Ville's inequality the product over all blocks reaches 1/alpha with probability alpha at most, however often one looks
(Turner, Ly and Grünwald 2024, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping"; Turner and Grünwald 2023, "Exact anytime-valid confidence intervals for contingency tables and beyond", for
claims with a difference). Nearest is meant in relative entropy, weighted by the block's sizes: the logarithm of the
mean ratio is concave in the true shares, its maximum over a convex claim lies there, and is 0.

That holds exactly for requests that do not depend on each other. Served requests do: the logarithm of the evidence is
divided by their dispersion, the factor by which counts of blocks scatter more widely than such requests would
(McCullagh and Nelder 1989, "Generalized Linear Models", 4.5), so that as many requests count as are worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_PRIOR = 20.0  # requests that the first guess of a share is worth
_HALVINGS = 30


class Claim(Enum):
    """What is bet against."""

    NOT_ABOVE = "the share is at most the other's and the tolerance together"
    NOT_BELOW = "it is at least that"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many of ``total`` requests were ``hit``; both may be fractions, where a count is only likely."""

    total: float
    hit: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """The natural logarithm of the evidence against a claim, divided by the ``dispersion``, which is at least 1."""

    log: float
    dispersion: float

    def reaches(self, alpha: float) -> bool:
        """Whether the claim is refused, with that chance of an error."""
        return self.log >= math.log(1 / alpha)


def against_other(
    claim: Claim, blocks: Sequence[tuple[Counted, Counted]], tolerance: float, guess: float = 0.01
) -> Evidence:
    """Against a claim on the first side's share beside the second's; ``guess`` is what is expected of both at first."""
    log, ones, others = 0.0, Counted(_PRIOR, _PRIOR * guess), Counted(_PRIOR, _PRIOR * guess)
    for one, other in blocks:
        log += _ratio(claim, one, other, _share(ones), _share(others), tolerance)
        ones, others = _sum(ones, one), _sum(others, other)
    dispersion = max(dispersion_of([one for one, _ in blocks]), dispersion_of([other for _, other in blocks]))
    return Evidence(log / dispersion, dispersion)


def against_limit(claim: Claim, blocks: Sequence[Counted], limit: float, guess: float = 0.01) -> Evidence:
    """Against a claim on the share beside a fixed limit, which lies between 0 and 1."""
    log, seen = 0.0, Counted(_PRIOR, _PRIOR * guess)
    for block in blocks:
        expected = _share(seen)
        if not _holds(claim, expected, limit):
            log += _log(block, expected, limit)
        seen = _sum(seen, block)
    dispersion = dispersion_of(blocks)
    return Evidence(log / dispersion, dispersion)


def dispersion_of(blocks: Sequence[Counted]) -> float:
    """Pearson's statistic of equal shares over its degrees of freedom; 1 where counts scatter less, or nobody knows."""
    filled = [block for block in blocks if block.total > 0]
    whole = sum(block.total for block in filled)
    share = sum(block.hit for block in filled) / whole if whole else 0.0
    if len(filled) < 2 or not 0 < share < 1:
        return 1.0
    scatter = sum((block.hit - block.total * share) ** 2 / (block.total * share * (1 - share)) for block in filled)
    return max(1.0, scatter / (len(filled) - 1))


def _ratio(claim: Claim, one: Counted, other: Counted, expected: float, beside: float, tolerance: float) -> float:
    if _holds(claim, expected, beside + tolerance) or one.total <= 0:
        return 0.0
    low, high = sorted((beside, expected - tolerance))
    low, high = max(low, -tolerance, 0.0), min(high, 1.0 - tolerance, 1.0)
    for _ in range(_HALVINGS):  # the derivative of the weighted entropy rises with the other's share
        middle = (low + high) / 2
        slope = _slope(other.total, beside, middle) + _slope(one.total, expected, middle + tolerance)
        low, high = (middle, high) if slope < 0 else (low, middle)
    nearest = (low + high) / 2
    return _log(one, expected, nearest + tolerance) + _log(other, beside, nearest)


def _holds(claim: Claim, share: float, limit: float) -> bool:
    return share <= limit if claim is Claim.NOT_ABOVE else share >= limit


def _slope(total: float, share: float, at: float) -> float:
    return total * (at - share) / max(at * (1 - at), 1e-12)


def _log(block: Counted, share: float, nearest: float) -> float:
    """Logarithm of the likelihood ratio of a block."""
    at = min(max(nearest, 1e-12), 1 - 1e-12)
    return block.hit * math.log(share / at) + (block.total - block.hit) * math.log((1 - share) / (1 - at))


def _share(counted: Counted) -> float:
    return min(max(counted.hit / counted.total, 1e-9), 1 - 1e-9)


def _sum(one: Counted, other: Counted) -> Counted:
    return Counted(one.total + other.total, one.hit + other.hit)
