"""Deploys a path before an engine that costs nothing, and measures windows of load through it.

    python -m tests.fit.front_path SERIES.json OUT.csv

SERIES.json holds what one start is for: ``{"front", "engine": "free" | "vllm", "flags": {NAME: VALUE}, "niceness",
"proxies", "port", "deploys": [{"ingress", "engines", "router", "max_ongoing", "windows": [{...}, ...]}, ...]}``. Ray
reads its flags where it starts, so a series of other flags is another process. ``port`` is where a client asks (the
proxy's). Rows are appended as they are measured.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from serve.load.endpoint import Endpoint
from serve.load.request_fields import RequestFields
from serve.load.request_sample import Sample
from serve.measure.window import Window
from serve.measure.window_requests import WindowOrder
from serve.measure.window_runner import WindowRunner
from tests.fit.front_deployed import PORT, Bench, path_of
from tests.fit.front_processes import Processes, Used, machine_s, used
from tests.fit.front_series import Point, points_of, written
from tuner.ask.arrivals import offered
from tuner.ask.request import Arrival, TokenLengths, Workload

LEAD_S = 2.0
HOPS = ("proxy", "ingress", "router", "replica", "haproxy", "api_server", "core", "client", "ray")


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen in a window; times in ms, processor time in seconds over ``busy_s`` of wall time.

    ``engine_ttft_ms`` is the mean time of the engine alone. ``span_s`` is from the first counted request to the last
    token, in which ``tokens`` came in ``messages``; ``carried_tok_per_s`` are those of all requests that came while the
    counted ones were sent: where more is offered than the path carries, what it carries. Beside them stands
    ``machine_cpu_s``, of which the hops' is a part: where it is much more, something else was running.
    """

    requests: int
    failed: int
    offered: float
    messages: int
    tokens: int
    span_s: float
    engine_ttft_ms: float | None
    ttft_mean_ms: float
    ttft_p50_ms: float
    ttft_p90_ms: float
    ttft_p99_ms: float
    tpot_mean_ms: float
    tpot_p99_ms: float
    itl_p99_ms: float
    sent: int
    events: int
    busy_s: float
    carried_tok_per_s: float


COLUMNS = (
    *(field.name for field in fields(Point)),
    *(field.name for field in fields(Row)),
    *(f"{hop}_{what}" for hop in HOPS for what in ("cpu_s", "loop_s")),
    "machine_cpu_s",
    "seed",
)


def measured(bench: Bench, point: Point, seed: int, port: int = PORT) -> dict[str, Any]:
    """A row of the table."""
    bench.tell(point.interval_ms, point.step_ms)
    workload = Workload(
        prompt_tokens=TokenLengths(mean=point.prompt_tokens, min=point.prompt_tokens, max=point.prompt_tokens),
        output_tokens=TokenLengths(mean=point.output_tokens, min=point.output_tokens, max=point.output_tokens),
        arrival=Arrival(requests_per_s=point.rate),
    )
    load = offered(workload, point.rate, LEAD_S + point.seconds, seed)
    order = WindowOrder(
        name=f"{point.rate:g} requests/s", load=load, duration_s=point.seconds, slo=(), lead_s=LEAD_S,
        rate_req_per_s=point.rate, timeout_s=60.0, stream=(seed, 1, 0),
    )  # fmt: skip
    fields = RequestFields(token_ids=point.router != "prefix_aware")  # that deals by the text of prompts
    runner = WindowRunner(Endpoint(f"http://127.0.0.1:{port}", "m", fields=fields), (), None, 1, whole_windows=True)
    processes = Processes()
    _, before = processes.look()
    begun_s, begun, worked_s = time.time(), time.perf_counter(), machine_s()
    window = runner.run(order)
    hops, after = processes.look()
    busy_s, worked_s = time.perf_counter() - begun, machine_s() - worked_s
    row = _row(window, bench.engine_ttft_ms(begun_s + LEAD_S, time.time()), busy_s)
    return {
        **asdict(point),
        **asdict(row),
        **_spent(used(before, after, hops)),
        "machine_cpu_s": worked_s,
        "seed": seed,
    }


def _row(window: Window, engine_ms: float | None, busy_s: float) -> Row:
    counted = [sample for sample in window.counted if sample.ok]
    everything = [sample for sample in window.samples if sample.ok]
    ttft, tpot = (1e3 * np.array([getattr(s, n) for s in counted], float) for n in ("ttft_s", "tpot_s"))
    gaps = 1e3 * np.concatenate([s.itl_s for s in counted])
    span_s = max(s.chunk_s[-1] for s in counted) - min(s.sent_s for s in counted)
    begin_s, seconds = window.order.lead_s, window.order.duration_s
    return Row(
        requests=len(counted),
        failed=sum(not sample.ok for sample in window.samples),
        offered=len(window.counted) / window.order.duration_s,
        messages=sum(len(set(s.chunk_s)) for s in counted),
        tokens=sum(s.output_tokens or 0 for s in counted),
        span_s=span_s,
        engine_ttft_ms=engine_ms,
        ttft_mean_ms=float(np.mean(ttft)),
        ttft_p50_ms=float(np.percentile(ttft, 50)),
        ttft_p90_ms=float(np.percentile(ttft, 90)),
        ttft_p99_ms=float(np.percentile(ttft, 99)),
        tpot_mean_ms=float(np.mean(tpot)),
        tpot_p99_ms=float(np.percentile(tpot, 99)),
        itl_p99_ms=float(np.percentile(gaps, 99)),
        sent=len(everything),
        events=sum(len(set(s.chunk_s)) for s in everything),
        busy_s=busy_s,
        carried_tok_per_s=sum(_came(s, begin_s, begin_s + seconds) for s in everything) / seconds,
    )


def _came(sample: Sample, since_s: float, until_s: float) -> float:
    """Tokens of a request that came in that time; each of its events carries as many as all do on average."""
    events = sum(since_s <= at_s < until_s for at_s in sample.chunk_s)
    return events * (sample.output_tokens or 0) / len(sample.chunk_s)


def _spent(by_hop: Mapping[str, Used]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for hop in HOPS:
        spent = by_hop.get(hop)
        found[f"{hop}_cpu_s"] = None if spent is None else round(spent.all_s, 3)
        found[f"{hop}_loop_s"] = None if spent is None else round(spent.loops_s, 3)
    return found


def run_series(series: Mapping[str, Any], out: Path) -> None:
    """Deploy, measure, and append the rows."""
    with path_of(series) as (bench, path):
        for deploy in series["deploys"]:
            path.deploy(deploy)
            for number, point in enumerate(points_of(series, deploy)):
                row = measured(bench, point, 1000 + number, series.get("port", PORT))
                append(out, row)
                print(_line(row), flush=True)


def append(out: Path, row: Mapping[str, Any], columns: Sequence[str] = COLUMNS) -> None:
    """Add a row, under a head where the file is new."""
    new = not out.exists()
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow({name: written(value) for name, value in row.items()})


def _line(row: Mapping[str, Any]) -> str:
    loads = {hop: row[f"{hop}_cpu_s"] / row["busy_s"] for hop in HOPS if row[f"{hop}_cpu_s"]}
    loads["others"] = row["machine_cpu_s"] / row["busy_s"] - sum(loads.values())
    cores = " ".join(f"{hop} {share:.2f}" for hop, share in loads.items())
    return (
        f"{row['front']} {row['flags']} i{row['interval_ms']} n{row['ingress']} e{row['engines']} {row['rate']:g}/s: "
        f"engine {row['engine_ttft_ms'] or float('nan'):.1f} ttft {row['ttft_mean_ms']:.1f}/{row['ttft_p50_ms']:.1f}/"
        f"{row['ttft_p99_ms']:.1f} tpot {row['tpot_mean_ms']:.2f} msg {row['messages']} tok {row['tokens']} "
        f"failed {row['failed']} | {cores}"
    )


def main() -> None:
    """Run one series."""
    run_series(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
