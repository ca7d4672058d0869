"""Packers by trying everything, independent of the product's: can nodes with so many free devices hold replicas?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache


def can_hold(free: Sequence[int], per_node: int, replica: int, count: int) -> bool:
    """``count`` replicas of ``replica`` devices: each on one node where it fits a node of ``per_node`` devices, else on
    as few nodes as its size allows, however it is split over them."""
    return _can_hold(tuple(sorted(free)), replica, -(-replica // per_node), count)


def can_hold_parts(free: Sequence[int], parts: Sequence[int]) -> bool:
    """Parts that each lie on one node."""
    return _can_hold_parts(tuple(sorted(free)), tuple(sorted(parts, reverse=True)))


@cache
def _can_hold(free: tuple[int, ...], replica: int, nodes: int, count: int) -> bool:
    if count == 0:
        return True
    after = {tuple(sorted(left)) for left in _splits(free, 0, replica, nodes)}
    return any(_can_hold(left, replica, nodes, count - 1) for left in after)


def _splits(free: tuple[int, ...], at: int, devices: int, nodes: int) -> Iterator[tuple[int, ...]]:
    """What is left of the nodes from ``at`` on after ``devices`` were taken of exactly ``nodes`` of them."""
    if nodes == 0:
        if devices == 0:
            yield free
        return
    if at == len(free):
        return
    yield from _splits(free, at + 1, devices, nodes)
    for taken in range(1, min(free[at], devices) + 1):
        left = (*free[:at], free[at] - taken, *free[at + 1 :])
        yield from _splits(left, at + 1, devices - taken, nodes - 1)


@cache
def _can_hold_parts(free: tuple[int, ...], parts: tuple[int, ...]) -> bool:
    if not parts:
        return True
    first, rest = parts[0], parts[1:]
    after = {tuple(sorted((*free[:i], n - first, *free[i + 1 :]))) for i, n in enumerate(free) if n >= first}
    return any(_can_hold_parts(left, rest) for left in after)
