"""How far the load generator can be trusted, and how it compares: every figure beside its target.

    python -m tests.benchmarks.load_generator [--peers aiperf,guidellm] [--out FILE.md]

The server is ``tests.benchmarks.mock_endpoint``, in a process of its own: 20 ms to the first token, 5 ms between
tokens, 32 tokens. With 256 requests in flight it can answer at most 256 / 0.175 s = 1,463 requests per second, whoever
asks. Its log, by the clock that all processes of a machine share, is what is true. Peers are installed when they are
asked for, see ``tests.benchmarks.peers``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.load.client import LoadRun
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Sample
from serve.load.request_spec import Call
from serve.load.saturation import client_bound
from serve.load.workers import run_fast
from serve.measure.summary import latency_s
from tests.benchmarks.peers import PEERS
from tuner.ask.arrivals import schedule
from tuner.ask.request import Metric, SloTarget
from tuner.ask.slo import Verdict
from tuner.stats.sequential import SloTest, Waiting

TTFT_MS, ITL_MS, TOKENS, USERS = 20.0, 5.0, 32, 256
ANSWER_S = (TTFT_MS + (TOKENS - 1) * ITL_MS) / 1e3
RAMP_S = 1.0
SLOTS, FIXED_WINDOW_S = 32, 60.0
LIMIT_PER_S = SLOTS / ANSWER_S
Row = tuple[str, str, str]  # what, measured, target
TARGET_RATIO = {"aiperf": 4.0, "guidellm": 8.0}


@dataclass
class Mock:
    """The server while it runs, and its log afterwards: per request its number, arrival and write times (s)."""

    url: str
    log: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def written_s(self) -> list[NDArray[np.float64]]:
        """Write times of every answer."""
        return np.split(self.log["written_s"], np.cumsum(self.log["written"]).astype(int)[:-1])

    def ttft_p50_ms(self) -> float:
        """Median over all answers from the arrival of the request to its first token."""
        rows = zip(self.log["arrived_s"], self.written_s(), strict=True)
        return float(np.median([one[0] - arrived_s for arrived_s, one in rows if len(one)]) * 1e3)


@contextmanager
def mock(*options: str) -> Iterator[Mock]:
    """A fresh server."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.npz"
        command = [sys.executable, "-m", "tests.benchmarks.mock_endpoint", "--log", str(log)]
        command += ["--ttft-ms", str(TTFT_MS), "--itl-ms", str(ITL_MS), *options]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            served = Mock(f"http://127.0.0.1:{int(process.stdout.readline())}")
            try:
                yield served
            finally:
                process.stdin.close()
                process.wait()
        served.log = dict(np.load(log))


def call(index: int, intended_s: float) -> Call:
    """A request that the server's log can be asked about by its number."""
    body = {"model": "mock", "prompt": "one two three four five six seven eight", "max_tokens": TOKENS, "stream": True}
    options = {"user": str(index), "ignore_eos": True, "stream_options": {"include_usage": True}}
    return Call(index, intended_s, json.dumps(body | options).encode(), 8, TOKENS)


@dataclass(frozen=True)
class Flood:
    """A closed loop of 256 users: completed requests per second, and the median TTFT by client and server (ms)."""

    requests_per_s: float
    ttft_p50_ms: float
    server_ttft_p50_ms: float
    wall_s: float
    note: str = ""


def flood(users: int, seconds: float) -> Flood:
    """Ours. Users arrive spread over one answer's length; what ended after the window's first second counts."""
    following = iter(range(users, 1 << 40))

    def then(_: Call, sample: Sample) -> Call | None:
        return call(next(following), sample.end_s) if sample.end_s < seconds else None

    started_s = time.perf_counter()
    with mock() as server:
        run = LoadRun(Endpoint(server.url, "mock"), 30.0)
        samples = run_fast(run.run((call(index, ANSWER_S * index / users) for index in range(users)), then))
    wall_s = time.perf_counter() - started_s
    assert all(sample.ok for sample in samples), {sample.error for sample in samples}
    ended = [sample for sample in samples if RAMP_S < sample.end_s <= seconds]
    ttft_ms = float(np.median([sample.ttft_s for sample in ended if sample.ttft_s is not None]) * 1e3)
    assert run.client_load is not None
    bound = client_bound(samples, run.client_load)
    note = f"the client used {run.client_load.cpu_share:.0%} of a core"
    note += "" if bound is None else f", and calls itself the bottleneck ({bound.limit.value})"
    return Flood(len(ended) / (seconds - RAMP_S), ttft_ms, server.ttft_p50_ms(), wall_s, note)


def flood_by(name: str, users: int, seconds: float) -> Flood:
    """A peer's own figures, beside the server's log."""
    from serve.tiny_model import build_tiny_model

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = build_tiny_model(Path(folder) / "tokenizer")
        with mock() as server:
            seen = PEERS[name](server.url, users, seconds, TOKENS, tokenizer, Path(folder))
    streamed = server.log["written"]
    assert np.median(streamed) == TOKENS, f"{name} had answers of {np.median(streamed):g} tokens"
    return Flood(seen.requests_per_s, seen.ttft_p50_ms, server.ttft_p50_ms(), seen.wall_s)


@dataclass(frozen=True)
class Errors:
    """Of an open loop, in milliseconds: the schedule lag, and how far reported TTFT and ITL are from the log."""

    lag_ms: NDArray[np.float64]
    ttft_ms: NDArray[np.float64]
    itl_ms: NDArray[np.float64]


def open_loop(rate_per_s: float, seconds: float) -> Errors:
    """Poisson arrivals, compared request by request."""
    calls = [call(index, at_s) for index, at_s in enumerate(schedule("poisson", rate_per_s, seconds, 1).tolist())]
    with mock() as server:
        samples = run_fast(LoadRun(Endpoint(server.url, "mock"), 30.0).run(calls))
    assert all(sample.ok for sample in samples)
    row = {int(number): place for place, number in enumerate(server.log["number"])}
    written = server.written_s()
    ttft_ms, itl_ms = [], []
    for sample in samples:
        place = row[sample.index]
        assert sample.ttft_s is not None
        ttft_ms.append((sample.ttft_s - (written[place][0] - server.log["arrived_s"][place])) * 1e3)
        itl_ms.append((np.diff(sample.chunk_s) - np.diff(written[place])) * 1e3)
    lag_ms = np.array([sample.lag_s * 1e3 for sample in samples])
    return Errors(lag_ms, np.abs(ttft_ms), np.abs(np.concatenate(itl_ms)))


def seconds_beyond(window_s: float) -> float:
    """Wall time of a whole ``parlay measure`` beyond its window."""
    command = [sys.executable, "-m", "tuner.app.cli.commands", "measure"]
    options = ["--rate", "50", "--seconds", str(window_s), "--warmup-seconds", "0", "--prompt-tokens", "8"]
    with mock() as server:
        started_s = time.perf_counter()
        subprocess.run(
            [*command, server.url, *options, "--output-tokens", "8", "--json"], capture_output=True, check=True
        )
        return time.perf_counter() - started_s - window_s


def until_verdict(rate_per_s: float, seed: int) -> tuple[str, float]:
    """Which verdict on TTFT p99 <= 100 ms, and after how many seconds of a window of 60 s, asked twice a second."""
    target = SloTarget(metric=Metric.TTFT, percentile=99, ms=100)
    offsets_s = schedule("poisson", rate_per_s, FIXED_WINDOW_S, seed).tolist()

    async def watched(url: str) -> tuple[str, float]:
        run, test, told = LoadRun(Endpoint(url, "mock"), 120.0), SloTest((target,), FIXED_WINDOW_S), 0
        load = asyncio.create_task(run.run(call(index, at_s) for index, at_s in enumerate(offsets_s)))
        while not load.done():
            await asyncio.sleep(0.5)
            for sample in run.samples[told:]:
                latency_ms = {metric: [s * 1e3 for s in values] for metric, values in latency_s([sample]).items()}
                test.ended(sample.index, sample.sent_s, latency_ms if sample.ok else None)
            told, now_s = len(run.samples), run.elapsed_s
            waiting = [Waiting(one.index, one.sent_s, one.first_token_s, TOKENS) for one in run.open_calls()]
            if (verdict := test.update(now_s, waiting)) is not Verdict.UNKNOWN:
                run.stop(cut_off=True)
                await load
                return verdict.value, now_s
        return "none", FIXED_WINDOW_S

    with mock("--slots", str(SLOTS)) as server:
        return run_fast(watched(server.url))


def percentiles(values_ms: NDArray[np.float64]) -> tuple[float, float]:
    """p50 and p99."""
    p50_ms, p99_ms = np.percentile(values_ms, [50, 99])
    return float(p50_ms), float(p99_ms)


def verdict(met: bool) -> str:
    """In words."""
    return "met" if met else "missed"


def flood_rows(peers: list[str], users: int, seconds: float) -> Iterator[Row]:
    """The comparison: ours before and after the peers, of which the mean counts."""
    first = flood(users, seconds)
    others = {name: flood_by(name, users, seconds) for name in peers}
    again = flood(users, seconds)
    rate = (first.requests_per_s + again.requests_per_s) / 2
    shown = f"{rate:,.0f} ({first.requests_per_s:,.0f} and {again.requests_per_s:,.0f}); {again.note}"
    yield f"requests/s, {users} in flight; at most {users / ANSWER_S:,.0f} possible", shown, ""
    for name, one in others.items():
        ratio, target = rate / one.requests_per_s, TARGET_RATIO[name]
        shown = f"{one.requests_per_s:,.0f}: ours is {ratio:.1f} x"
        yield f"the same by {name}", shown, f">= {target:g} x: {verdict(ratio >= target)}"
    for name, one in {"ours": first, "ours, again": again, **others}.items():
        ratio = one.ttft_p50_ms / one.server_ttft_p50_ms
        shown = f"{one.ttft_p50_ms:.1f} ms, server's log {one.server_ttft_p50_ms:.1f} ms: {ratio:.2f} x"
        target_words = f"<= 1.2 x: {verdict(ratio <= 1.2)}" if users == USERS else ""
        yield f"p50 TTFT reported with {users} in flight, {name}", shown, target_words
    for name, one in others.items():
        yield f"wall time beyond that window, {name}", f"{one.wall_s - seconds:.1f} s", ""


def honesty_rows(seconds: float) -> Iterator[Row]:
    """What is said of the server against what it did."""
    seen = open_loop(200.0, seconds)
    for name, values_ms in (("TTFT", seen.ttft_ms), ("ITL", seen.itl_ms)):
        p50_ms, p99_ms = percentiles(values_ms)
        met = p50_ms <= 0.5 and p99_ms <= 2
        yield (
            f"error of {name} at 200 requests/s, p50 / p99",
            f"{p50_ms:.2f} / {p99_ms:.2f} ms",
            "<= 0.5 / 2 ms: " + verdict(met),
        )
    lag_ms = percentiles(seen.lag_ms)[1]
    yield "schedule lag p99 at 200 requests/s, open loop", f"{lag_ms:.2f} ms", "<= 2 ms: " + verdict(lag_ms <= 2)
    beyond_s = seconds_beyond(5.0)
    yield (
        "wall time of `parlay measure` beyond the window",
        f"{beyond_s:.2f} s",
        "<= 1.5 s: " + verdict(beyond_s <= 1.5),
    )


def verdict_rows(seeds: int) -> Iterator[Row]:
    """How soon the SLO is decided, by the real clock, on a server that can answer so many requests per second."""
    for factor, right in ((2.0, "missed"), (0.5, "met")):
        found = [until_verdict(factor * LIMIT_PER_S, seed) for seed in range(1, seeds + 1)]
        wrong = sum(word != right for word, _ in found)
        after_s = [seconds for _, seconds in found]
        worst_s = max(after_s)
        shown = f"{right}, {wrong} of {seeds} otherwise; median {np.median(after_s):.1f} s, longest {worst_s:.1f} s"
        met = not wrong and worst_s <= 0.25 * FIXED_WINDOW_S
        asked = f"<= {0.25 * FIXED_WINDOW_S:g} s (25 % of {FIXED_WINDOW_S:g} s): {verdict(met)}"
        yield f"SLO verdict at {factor:g} x the limit of {LIMIT_PER_S:.0f} requests/s", shown, asked


def machine() -> str:
    """In words, with what else it was doing."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unnamed")
    when, python = f"{datetime.now(UTC):%Y-%m-%d}", sys.version.split()[0]
    return f"{when}, {os.cpu_count()} cores ({model}), Python {python}, load average before {os.getloadavg()[0]:.1f}"


def main() -> None:
    """Print the table, and keep it where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", default="", help="aiperf,guidellm")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=5, help="windows per rate until a verdict")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    lines = [f"{machine()}; client, server and peers share the cores.", ""]
    lines += ["| what | measured | target |", "|---|---|---|"]
    print("\n".join(lines))
    peers = [name for name in asked.peers.split(",") if name]
    floods = (flood_rows(peers, users, asked.seconds) for users in (USERS, 4 * USERS))
    for group in (honesty_rows(asked.seconds), verdict_rows(asked.seeds), *floods):
        for row in group:
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        command = f"    python -m tests.benchmarks.load_generator {' '.join(sys.argv[1:])}"
        asked.out.write_text("\n".join(["# The load generator, measured", "", command, "", *lines, ""]))


if __name__ == "__main__":
    main()
