"""All-to-all under expert routing: to how many ranks a token really goes."""

from __future__ import annotations

import math

from tuner.errors import BadInput


def expected_destinations(ranks: int, experts: int, top_k: int) -> float:
    """Expected distinct ranks that hold a token's ``top_k`` experts, routed uniformly: g(1 - C(E-E/g, k)/C(E, k)).

    ``experts`` are split evenly over ``ranks``. A dispatch that sends one copy per distinct rank (DeepEP's
    high-throughput mode) sends this many copies of the token, its own rank's included.
    """
    if ranks < 1 or experts % ranks:
        raise BadInput("experts", experts, f"a multiple of the {ranks} ranks")
    if not 1 <= top_k <= experts:
        raise BadInput("top_k", top_k, f"1 to {experts}")
    elsewhere = math.comb(experts - experts // ranks, top_k) / math.comb(experts, top_k)
    return ranks * (1 - elsewhere)


def routed_buffer_bytes(
    tokens: float, token_bytes: float, ranks: int, experts: int, top_k: int, copy_per_expert: bool = False
) -> float:
    """Buffer of one rank for an all-to-all of its ``tokens``, in bytes: what ``alltoall`` takes as its message.

    One copy per distinct destination rank, or with ``copy_per_expert`` one per expert (DeepEP's low-latency mode).
    """
    copies = float(top_k) if copy_per_expert else expected_destinations(ranks, experts, top_k)
    return tokens * token_bytes * copies
