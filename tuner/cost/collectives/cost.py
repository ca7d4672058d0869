"""The two terms of every collective's time, and the names of the operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.errors import BadInput

Array = NDArray[np.float64]
OPERATIONS = ("allreduce", "allgather", "reducescatter", "alltoall", "sendrecv", "broadcast", "gather")


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds that do not depend on the message (``alpha_us``) and those that its bytes take (``beta_us``)."""

    alpha_us: Array
    beta_us: Array

    @property
    def latency_us(self) -> Array:
        """Both terms together, in microseconds, of the message's shape."""
        return self.alpha_us + self.beta_us


def cost_of(alpha_us: float, beta_us: Array) -> Cost:
    """A cost whose constant term is the same for every message size."""
    return Cost(np.full_like(beta_us, alpha_us), beta_us)


def cheapest(costs: list[Cost]) -> tuple[Cost, NDArray[np.intp]]:
    """The quickest of several costs for each message size, and which one that was."""
    best = np.argmin(np.stack([cost.latency_us for cost in costs]), axis=0)
    alpha_us = np.choose(best, [cost.alpha_us for cost in costs])
    return Cost(alpha_us, np.choose(best, [cost.beta_us for cost in costs])), best


def check_operation(operation: str) -> None:
    """Raise ``BadInput`` for an operation that is not one of ``OPERATIONS``."""
    if operation not in OPERATIONS:
        raise BadInput("operation", operation, ", ".join(OPERATIONS))


def sent_share(operation: str, ranks: int) -> float:
    """Bytes that one rank sends, per byte of the message, under an algorithm that sends no byte twice.

    The ring factors of Patarasuk and Yuan (2009): 2(R-1)/R for an all-reduce, (R-1)/R where each rank holds a share.
    """
    if operation in ("sendrecv", "broadcast"):
        return 1.0 if ranks > 1 else 0.0
    share = (ranks - 1) / ranks
    return 2 * share if operation == "allreduce" else share


def ring_steps(operation: str, ranks: int) -> int:
    """Steps of the ring algorithm: 2(R-1) for an all-reduce, R-1 otherwise, 1 for a send."""
    if operation == "sendrecv":
        return 1 if ranks > 1 else 0
    return (2 if operation == "allreduce" else 1) * (ranks - 1)
