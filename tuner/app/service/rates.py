"""How often somebody may do something: a bucket for each, refilled at a steady pace."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from threading import Lock

MOST_KEYS = 20_000  # buckets that are kept; beyond that, those that are full again, or else all, are forgotten


class Rates:
    """A bucket for each key, of ``burst`` at once, refilled at ``per_s`` a second. Safe to use from several threads."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._lock, self._left = Lock(), dict[str, tuple[float, float]]()

    def wait_s(self, key: str) -> float:
        """Take one; 0 where there was one, else in how many seconds there will be."""
        with self._lock:
            now = self._clock()
            if key not in self._left and len(self._left) >= MOST_KEYS:
                self._forget(now)
            left = self._now(self._left.get(key, (self._burst, now)), now)
            enough = left >= 1
            self._left[key] = (left - 1 if enough else left, now)
            return 0.0 if enough else (1 - left) / self._per_s

    def _now(self, bucket: tuple[float, float], now: float) -> float:
        left, at = bucket
        return min(self._burst, left + (now - at) * self._per_s)

    def _forget(self, now: float) -> None:
        kept = {key: bucket for key, bucket in self._left.items() if self._now(bucket, now) < self._burst}
        self._left = kept if len(kept) < MOST_KEYS else {}


def neighbourhood(host: str) -> str:
    """An address as one that asks is counted: of IPv6 the network of 64 bits, all of which one host may have."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
