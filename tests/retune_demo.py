"""The demo of re-tuning, from nothing, on one machine: ``python -m tests.retune_demo FOLDER``.

A Ray cluster of one node serves a tiny real model by real Ray Serve and vLLM (CPU), found by ``parlay tune`` and
deployed by ``parlay deploy``, under our own load generator. Then two nodes join. ``parlay watch`` notices, has the
model say that another layout carries more, tries it as a canary beside what serves, promotes it, and drains the old
one. At the end stands a page, FOLDER/timeline.html, and the count of requests that the client lost.

Everything is real but the size and the time: nodes are raylets of one CPU each on one machine, and the windows of the
detectors are shortened, which the page says.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.retune_load import Asked, Load, Stretch
from tests.retune_stage import Stage, cluster, serving

RATE_REQ_PER_S = 0.8
BEFORE_S, AFTER_S = 40.0, 45.0  # of load, before the nodes join and after the promotion
LIMIT_S = float(os.environ.get("DEMO_LIMIT_S", "900"))
REQUEST: dict[str, Any] = {
    "cluster": {"gpu": "cpu", "nodes": 1, "gpus_per_node": 1},
    "workload": {
        "prompt_tokens": {"mean": 256},
        "output_tokens": {"mean": 16},
        "arrival": {"process": "poisson", "requests_per_s": RATE_REQ_PER_S},
    },
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 5000}, {"metric": "tpot", "percentile": 90, "ms": 500}],
    "objective": "max_goodput",
    "space": {"tp": [1], "dp": [1, 2]},
    "engine": {"dtype": "float32", "max_model_len": 512, "start_timeout_s": 900},
    "load": {"rates_req_per_s": [RATE_REQ_PER_S, 1.6], "seconds": 8, "warmup_seconds": 2},
    "budget": {"launches": 1, "minutes": 5},
}
POLICY: dict[str, Any] = {
    "consent": "auto",
    "trials": "never",  # the canary is the trial: the model is sure enough of a second replica
    "persists_minutes": 0.2,
    "regains_minutes": 0.2,
    "cool_down_hours": 0,
    "canary": {"share": 0.5, "least_requests": 20, "most_minutes": 5, "alpha": 0.1, "tolerance": 0.15},
}


@dataclass(frozen=True, slots=True)
class Joined:
    """What the client saw; when the nodes joined, and when the new layout served alone, in s since 1970."""

    asked: tuple[Asked, ...]
    joined_s: float
    alone_s: float


def play(stage: Stage) -> Joined:
    """All of it, but for the page; raises ParlayError where no other layout comes to serve in time."""
    with cluster() as nodes:
        stage.tell("a Ray cluster of one node of one CPU is up; tuning on it")
        stage.tune(nodes.address)
        stage.tell("deploying what was measured")
        url = stage.deploy(nodes.address)
        with stage.watching(), Load(stage.request, url, LIMIT_S) as load:
            stage.tell(f"it serves {RATE_REQ_PER_S:g} requests/s, and is watched")
            time.sleep(BEFORE_S)
            nodes.join(2)
            joined_s = time.time()
            stage.tell("two nodes have joined")
            stage.until(lambda store: serving(store) == ["tp=1,pp=1,dp=2"], "another layout")
            alone_s = time.time()
            stage.tell("the new layout serves alone")
            time.sleep(AFTER_S)
        return Joined(load.asked, joined_s, alone_s)


def run(folder: Path) -> int:
    """The whole of it; 0 where the new layout serves and no request was lost."""
    stage = Stage(folder, REQUEST, POLICY, LIMIT_S)
    seen = Stretch.of(play(stage).asked, 0)
    lost = sum(seen.lost.values())
    page_file = stage.end(
        ("asked by the load generator", f"{seen.sent} requests"),
        ("lost", str(lost) if not lost else f"{lost}: {dict(seen.lost)}"),
        ("engines", "vLLM on CPU cores, one replica each, behind Ray Serve and HAProxy"),
        ("seconds in all", f"{stage.seconds:.0f}"),
    )
    stage.tell(f"{seen.sent} requests, {lost} lost; the timeline: {page_file}")
    return 0 if lost == 0 and seen.sent > 0 else 1


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1] if len(sys.argv) > 1 else f"parlay-out/retune-{time.strftime('%Y%m%d-%H%M%S')}")))
