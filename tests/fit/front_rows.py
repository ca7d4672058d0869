"""Measured windows of a path, and the engine of nothing but steps that stood behind it, as the models see both."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.ask.arrivals import schedule
from tuner.ask.front import Front
from tuner.simulate.result import SimulationResult

Floats = NDArray[np.float64]
DATA = Path(__file__).parents[1] / "data" / "front" / "path.csv"
LEAD_S = 2.0  # seconds of load before those that count
MODES = {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "grpc", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "throughput"}
OF_PATH = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING", *MODES)  # flags that make a path
OVERLOADED = 1.05  # TPOT over the engine's step from which on a window ended before its queue did
FOREIGN = 0.15  # cores that others used from which on a window tells of them, too


@dataclass(frozen=True, slots=True)
class Seen:
    """One window: what was deployed, what was offered, and what came of it; times in ms, ``cpu_s`` by hop over
    ``busy_s``, in which ``sent`` requests had ``events`` messages. ``foreign`` are cores that others used."""

    path: str
    engine: str
    front: Front
    step_ms: float
    output_tokens: int
    prompt_tokens: int
    rate: float
    seconds: float
    seed: int
    options: str
    engine_ttft_ms: float | None
    ttft_mean_ms: float
    ttft_p99_ms: float
    tpot_mean_ms: float
    served_tok_per_s: float
    carried_tok_per_s: float | None
    sent: int
    events: int
    busy_s: float
    cpu_s: dict[str, float]
    foreign: float | None
    held_out: bool

    @property
    def overloaded(self) -> bool:
        """Whether the path kept the engine's tokens back, so that figures depend on how long the window was."""
        return self.tpot_mean_ms > OVERLOADED * self.step_ms

    @property
    def alone(self) -> bool:
        """Whether nothing else is known to have used the machine."""
        return self.foreign is None or self.foreign < FOREIGN

    @property
    def default(self) -> bool:
        """Whether it shows the path as it is, before the engine that costs nothing, or vLLM's own server."""
        return not self.options and self.front.engines == 1 and (self.engine == "free") == (self.path != "vllm")

    @property
    def further(self) -> int:
        """Tokens that came in a message of another."""
        return self.sent * self.output_tokens - self.events

    @property
    def added_ms(self) -> float:
        """What the path added to the mean TTFT; where the engine kept no log, its steps tell its own."""
        own = self.engine_ttft_ms
        if own is None:
            run = engine_run(self.arrivals(), self.output_tokens, self.step_ms)
            own = float(np.mean(run.ttft_ms[run.arrival_s >= LEAD_S]))
        return self.ttft_mean_ms - own

    def arrivals(self, seed: int = 0) -> Floats:
        """The very arrivals of the window, in s; with another ``seed`` others like them."""
        return schedule("poisson", self.rate, LEAD_S + self.seconds, self.seed + 7919 * seed)


def read_rows(path: Path = DATA) -> list[Seen]:
    """All windows of a table; every other one of a path is held out of fits, also of those beyond saturation, but of a
    mode none: there are two."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(_rows(csv.DictReader(file)))


def _rows(lines: csv.DictReader[str]) -> Iterator[Seen]:
    count: dict[str, int] = {}
    for row in lines:
        name = name_of(row)
        full = float(row["tpot_mean_ms"]) > OVERLOADED * float(row["step_ms"]) and row["engine"] == "free"
        kind = f"{name} {row['engine']} {options_of(row)} {row['engines']} {full}"
        count[kind] = count.get(kind, 0) + 1
        cpu = {key.removesuffix("_cpu_s"): float(row[key]) for key in row if key.endswith("_cpu_s") and row[key]}
        machine = cpu.pop("machine", None)
        busy = float(row["busy_s"])
        yield Seen(
            path=name,
            engine=row["engine"],
            front=Front(
                name, int(row["interval_ms"]), int(row["ingress"]), int(row["api_servers"]), int(row["engines"]),
                row["router"],
            ),
            step_ms=float(row["tpot_mean_ms" if row["engine"] == "vllm" else "step_ms"]),  # its core takes time, too
            output_tokens=int(row["output_tokens"]),
            prompt_tokens=int(row["prompt_tokens"]),
            rate=float(row["rate"]),
            seconds=float(row["seconds"]),
            seed=int(row["seed"]),
            options=options_of(row),
            engine_ttft_ms=float(row["engine_ttft_ms"]) if row["engine_ttft_ms"] else None,
            ttft_mean_ms=float(row["ttft_mean_ms"]),
            ttft_p99_ms=float(row["ttft_p99_ms"]),
            tpot_mean_ms=float(row["tpot_mean_ms"]),
            served_tok_per_s=float(row["tokens"]) / float(row["span_s"]),
            carried_tok_per_s=float(row["carried_tok_per_s"]) if row.get("carried_tok_per_s") else None,
            sent=int(row["sent"]),
            events=int(row["events"]),
            busy_s=busy,
            cpu_s=cpu,
            foreign=None if machine is None else (machine - sum(cpu.values())) / busy,
            held_out=count[kind] % 2 == 0 and name == row["front"],
        )  # fmt: skip


def name_of(row: dict[str, str]) -> str:
    """The path of a row by name: a mode of Ray Serve is one of its own."""
    modes = [MODES[name] for name in (word.split("=")[0] for word in row["flags"].split()) if name in MODES]
    return "_".join([row["front"], *modes])


def options_of(row: dict[str, str]) -> str:
    """What of a row is not the path's default, in words."""
    flags = [word for word in row["flags"].split() if word.split("=")[0] not in OF_PATH]
    words = [" ".join(flags)] if flags else []
    words += [f"nice {row['niceness']}"] if row["niceness"] != "0" else []
    words += [f"max_ongoing_requests {row['max_ongoing']}"] if int(row["max_ongoing"]) < 10**6 else []
    return ", ".join(words)


def engine_run(arrival_s: Floats, output_tokens: int, step_ms: float) -> SimulationResult:
    """The engine that costs nothing: a request joins at the next step, and each step ends with a token for all."""
    step_s = step_ms / 1e3
    first, ends = np.empty(len(arrival_s)), -np.inf
    begun = 0.0
    for index, at in enumerate(arrival_s):
        if at > ends:  # idle: the step begins with the request
            begun = float(at)
            first[index] = at + step_s
        else:
            first[index] = begun + (np.floor((at - begun) / step_s) + 2) * step_s
        ends = max(ends, first[index] + (output_tokens - 1) * step_s)
    count = len(arrival_s)
    none, zeros = np.zeros(1), np.zeros(count, dtype=np.int64)
    return SimulationResult(
        arrival_s=arrival_s, scheduled_s=first - step_s, first_token_s=first,
        end_s=first + (output_tokens - 1) * step_s, prompt_tokens=zeros, output_tokens=zeros + output_tokens,
        preemptions=zeros, replica=zeros, prefill_share=none, decode_share=none, kv_share=none, kv_peak_share=none,
        steps=np.ones(1, dtype=np.int64), gap_counts=np.zeros(1, dtype=np.int64), gap_sum_ms=0.0,
        gap_limits_ms=np.empty(0), slow_gaps=np.empty((count, 0), dtype=np.int64),
    )  # fmt: skip
