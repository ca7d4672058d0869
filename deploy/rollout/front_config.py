"""The configuration of a front: HAProxy 2.8, as text.

Each request draws a number below a thousand; a map with ranges of them says which slot it goes to, and another which
application of Ray Serve a slot stands for, whose route prefix is put before the path. Both maps are changed while it
runs, each in one step, so that shares change under load without anybody noticing. A slot has counters of its own: so it
is known what each application has under way.

A request that finds nothing that serves may wait for it: a script in HAProxy (``LUA``) looks again, until something
does or the time of another map is over. Its body is read only then, so that what waits takes little memory.

What is sent again is only what never reached a server (``conn-failure``): a completion that was begun is never asked
for twice. Nothing is buffered, and an answer may be silent for an hour, as one behind a long queue is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SLOTS = tuple(f"slot{number}" for number in range(6))  # a rollout needs two, and one that drains one more
SHARES_MAP, SLOTS_MAP, HOLD_MAP, SOCKET, PID = "shares.map", "slots.map", "hold.map", "socket", "pid"
LUA = "front_hold.lua"
PARTS = 1000  # of which a share is a whole number
SILENT = "1h"
ANSWERED_BY = "X-Parlay-Deployment"  # a header of every answer: the route prefix of whose it is

_GLOBAL = f"""\
global
    daemon
    noreuseport
    pidfile {PID}
    stats socket unix@{SOCKET} mode 600 level admin
    hard-stop-after {SILENT}
    lua-load {LUA}

defaults
    mode http
    option http-no-delay
    option abortonclose
    option forwardfor
    timeout connect 5s
    timeout http-request 30s
    timeout http-keep-alive 60s
    timeout client {SILENT}
    timeout server {SILENT}
    retries 2
    retry-on conn-failure
"""
_AWAITED = f"str(seconds),map_str(./{HOLD_MAP}) -m found"


def configuration(bind: str, upstream: str) -> str:
    """A front at ``bind`` (``HOST:PORT``) before the proxy of Ray Serve at ``upstream``."""
    return "\n".join([_GLOBAL, _frontend(bind), *(_backend(slot, upstream) for slot in SLOTS)])


def shares_map(shares: Mapping[str, float], slots: Mapping[str, str]) -> str:
    """Lines of the map from numbers to slots; ``slots`` are by application. Empty where nobody serves."""
    lines, begin = [], 0
    for name, parts in parts_of(shares).items():
        lines.append(f"{begin}:{begin + parts - 1} {slots[name]}\n")
        begin += parts
    return "".join(lines)


def slots_map(slots: Mapping[str, str]) -> str:
    """Lines of the map from slots to route prefixes."""
    return "".join(f"{slot} /{name}\n" for name, slot in sorted(slots.items()))


def hold_map(seconds: float, requests: int) -> str:
    """Lines of the map with the bounds of waiting; empty where nobody waits."""
    return f"seconds {seconds:g}\nrequests {requests}\n" if seconds > 0 and requests > 0 else ""


def hold_script() -> str:
    """What waits, in Lua."""
    return (Path(__file__).parent / LUA).read_text(encoding="utf-8")


def parts_of(shares: Mapping[str, float]) -> dict[str, int]:
    """Shares in thousandths that add up; nobody who has a share gets nothing."""
    wanted = {name: share for name, share in shares.items() if share > 0}
    total, found, left = sum(wanted.values()), {}, PARTS
    for place, (name, share) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        last = place == len(wanted) - 1
        found[name] = left if last else max(1, round(PARTS * share / total))
        left -= found[name]
    return found


def _frontend(bind: str) -> str:
    return f"""\
frontend front
    bind {bind}
    http-request set-var(txn.slot) rand({PARTS}),map_int(./{SHARES_MAP})
    http-request lua.hold if !{{ var(txn.slot) -m found }} {{ {_AWAITED} }}
    {_refusal("no deployment serves now; one is on its way")} if !{{ var(txn.slot) -m found }} {{ {_AWAITED} }}
    {_refusal("no deployment serves now")} unless {{ var(txn.slot) -m found }}
    use_backend %[var(txn.slot)]
"""


def _refusal(message: str) -> str:
    body = f'{{"error":{{"message":"{message}","type":"service_unavailable","code":503}}}}'
    return f"http-request return status 503 content-type application/json hdr Retry-After 5 string '{body}'"


def _backend(slot: str, upstream: str) -> str:
    return f"""\
backend {slot}
    http-request set-path %[str({slot}),map_str(./{SLOTS_MAP})]%[path]
    http-response set-header {ANSWERED_BY} %[str({slot}),map_str(./{SLOTS_MAP})]
    server serve {upstream}
"""
