"""What is measured of the paths: series of windows, one start of Ray or vLLM each, for ``tests.fit.front_path``."""

from __future__ import annotations

from typing import Any

Series = dict[str, Any]
HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
DIRECT = HAPROXY | {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}


def windows(interval_ms: int, *rates: float, **other: Any) -> list[dict[str, Any]]:
    """Windows that differ in their rate."""
    return [{"interval_ms": interval_ms, "rate": rate, "seconds": 7, **other} for rate in rates]


def _one(shown: list[dict[str, Any]], **deploy: Any) -> list[dict[str, Any]]:
    return [{"ingress": 1, "windows": shown, **deploy}]


BESIDE = windows(0, 10, 16) + windows(50, 25)  # the loads under which options are compared
QUICK: Series = {
    "front": "ray_serve",
    "deploys": _one(windows(0, 4, 10, 16, seconds=5) + windows(50, 12, 25, seconds=5) + windows(100, 20, seconds=5)),
}
FULL: dict[str, Series] = {
    "one ingress replica": {
        "front": "ray_serve",
        "deploys": _one(
            windows(0, 4, 8, 10, 12, 16, 20, 24) + windows(50, 10, 25, 40) + windows(20, 8, 16, 22)
            + windows(100, 20, 45) + windows(10, 12) + windows(0, 6, step_ms=10, output_tokens=128)
        ),
    },
    "more ingress replicas": {
        "front": "ray_serve",
        "deploys": [
            {"ingress": 2, "windows": windows(0, 6, 12, 18) + windows(20, 12) + windows(50, 32) + windows(100, 30)},
            {"ingress": 4, "windows": windows(0, 10, 16)},
        ],
    },
    "haproxy": {"front": "ray_haproxy", "flags": HAPROXY, "deploys": _one(windows(0, 10, 16, 22) + windows(50, 25))},
    "direct streaming": {"front": "ray_direct", "flags": DIRECT, "deploys": _one(windows(0, 10, 16, 40))},
    "direct ingress": {
        "front": "ray_serve", "flags": {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"}, "deploys": _one(BESIDE),
    },
    "throughput optimized": {
        "front": "ray_serve", "flags": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}, "deploys": _one(BESIDE),
    },
    "gRPC": {"front": "ray_serve", "flags": {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}, "deploys": _one(BESIDE)},
    "niceness": {"front": "ray_serve", "niceness": 15, "deploys": _one(windows(0, 10, 16))},
    "few at once, one proxy": {
        "front": "ray_serve", "proxies": "HeadOnly", "deploys": _one(windows(0, 10, 16), max_ongoing=16),
    },
    "routers": {
        "front": "ray_serve",
        "deploys": [
            {"ingress": 1, "engines": 2, "router": router, "windows": windows(0, 10, 16)}
            for router in ("power_of_two", "prefix_aware")
        ],
    },
    "one API server": {"front": "vllm", "deploys": [{"api_servers": 1, "windows": windows(0, 10, 30, 60, 90)}]},
    "two API servers": {"front": "vllm", "deploys": [{"api_servers": 2, "windows": windows(0, 30, 60, 90)}]},
    "vLLM behind Ray Serve": {"front": "ray_serve", "engine": "vllm", "deploys": _one(windows(0, 4, 8, 12, 16))},
    "vLLM behind direct streaming": {
        "front": "ray_direct", "engine": "vllm", "flags": DIRECT, "deploys": _one(windows(0, 10, 16, 30, 45)),
    },
}  # fmt: skip
