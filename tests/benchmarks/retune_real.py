"""Re-tuning on the real stack: nodes that are lost or join, and prompts that grow, on a Ray cluster on this machine.

    python -m tests.benchmarks.retune_real --case node-lost|prompts|joins [--folder DIR] [--out FILE]
                                              [--rate REQUESTS_PER_S]

- ``node-lost``: a replica of two ranks on a node of two cores, beside the head with one. The node is lost under load,
  first with nobody watching: what Ray Serve makes of it by itself, with the node away and once it is back; then under
  ``parlay watch``, and the node stays away.
- ``prompts``: they grow four times longer under load, and one replica cannot answer them any more. Whether it can
  depends on the machine: ``--rate`` has to lie between what one carries of long prompts and what
  two carry.
- ``joins``: two nodes join (``tests.retune_demo``).

Everything is real, vLLM on CPU cores included, but the size and the time: nodes are raylets, lost by SIGKILL of the
raylet with all that it runs, and the windows of the detectors are shortened ten times. Needs the machine for itself;
each case takes ten to fifteen minutes on two cores. Where a node is lost the client gives a request up after
``TIMEOUT_S``, and the front holds one as long; how many a client loses that gives up after ``HASTY_S`` is told beside:
those that took longer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests import retune_demo
from tests.benchmarks.retune_table import Row, counted, seconds, since, table
from tests.retune_load import Asked, Load, Stretch, answered_after, silence_s
from tests.retune_stage import EVERY_S, SHORTENED, STUDY, Stage, cluster, serving
from tuner.app.watch.telling import NOTICED
from tuner.ask.request import TuneRequest
from tuner.retune.rollout import Rollout, Step

LIMIT_S = 1200.0
TIMEOUT_S, HASTY_S = 120.0, 30.0  # after which a client gives up, and another would
BEFORE_S, AFTER_S = 20.0, 20.0  # of load, before it happens and once it is over
LOADS_S = 30.0  # in which the watcher loads what a start needs, on the cores on which everything else runs
STEADY_S = 110.0  # until the level of lengths is known
AWAY_S = 45.0  # of a node that nobody makes up for
RETURN_S = 150.0  # at most, until Ray Serve has all up again

LOST: dict[str, Any] = retune_demo.REQUEST | {
    "cluster": {"gpu": "cpu", "nodes": 1, "gpus_per_node": 2},
    "workload": {
        "prompt_tokens": {"mean": 128},
        "output_tokens": {"mean": 16},
        "arrival": {"process": "poisson", "requests_per_s": 0.7},
    },
    "objective": "min_latency",
    "space": {"tp": [1, 2], "dp": [1]},
    "load": {"rates_req_per_s": [0.7], "seconds": 8, "warmup_seconds": 2},
}
GROWING: dict[str, Any] = retune_demo.REQUEST | {
    "cluster": {"gpu": "cpu", "nodes": 3, "gpus_per_node": 1},
    "workload": {
        "prompt_tokens": {"mean": 128},
        "output_tokens": {"mean": 4},
        "arrival": {"process": "poisson", "requests_per_s": 1.6},
    },
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 5000}],
    "objective": "min_gpus",
    "engine": {"dtype": "bfloat16", "max_model_len": 1024, "start_timeout_s": 900},
    "load": {"rates_req_per_s": [1.6], "seconds": 8, "warmup_seconds": 2},
}
LONGER = 4
HOLDING: dict[str, Any] = retune_demo.POLICY | {"hold": {"seconds": TIMEOUT_S}}


def node_lost(stage: Stage) -> list[Row]:
    """Ray Serve alone, then watched."""
    with cluster() as nodes:
        node = nodes.join(cpus=2)
        stage.tell("a Ray cluster of nodes of 1 and 2 CPUs is up; tuning on it")
        stage.tune(nodes.address)
        url = stage.deploy(nodes.address)
        with Load(stage.request, url, LIMIT_S, TIMEOUT_S) as load:
            stage.tell("it serves, and nobody watches")
            time.sleep(BEFORE_S)
            nodes.lose(node)
            alone_s = time.time()
            stage.tell("its node is lost")
            time.sleep(AWAY_S)
            answered = answered_after(load.asked, alone_s)
            node, back_s = nodes.join(cpus=2), time.time()
            stage.tell("the node is back")
            stage.until(lambda _: answered_after(load.asked, back_s) is not None, "an answer", RETURN_S)
            time.sleep(AFTER_S / 2)
        alone = load.asked
        with stage.watching():
            time.sleep(LOADS_S)
            with Load(stage.request, url, LIMIT_S, TIMEOUT_S) as load:
                stage.tell("it is watched")
                time.sleep(BEFORE_S)
                nodes.lose(node)
                lost_s = time.time()
                stage.tell("its node is lost again")
                stage.until(lambda store: serving(store) == ["tp=1,pp=1,dp=1"], "a layout that fits")
                stage.tell("another layout serves")
                stage.until(lambda _: answered_after(load.asked, lost_s) is not None, "an answer", RETURN_S)
                time.sleep(AFTER_S)
        watched, ended_s = load.asked, time.time()
    again = None if answered is not None else answered_after(alone, back_s)
    rollout = _last(stage)
    rows = [
        ("seconds until decided again", "nobody does", since(rollout.began_s, lost_s)),
        ("layout that serves afterwards", "the same", "tp=1,pp=1,dp=1"),
        (
            f"seconds until serving again, the node away ({AWAY_S:.0f} s, then back; watched: for good)",
            "never" if answered is None else since(answered, alone_s),
            since(answered_after(watched, lost_s), lost_s),
        ),
        ("seconds until serving again, once the node is back", since(again, back_s), "not waited for"),
    ]
    return [("", "Ray Serve alone", "watched"), *rows, *_outages((alone, alone_s), (watched, lost_s), ended_s)]


def _outages(
    alone: tuple[tuple[Asked, ...], float], watched: tuple[tuple[Asked, ...], float], to_s: float
) -> list[Row]:
    """What clients saw, with when the node was lost."""
    found: dict[str, list[str]] = {}
    for asked, lost_s in (alone, watched):
        end_s = min(max(one.ended_s for one in asked), to_s)
        again_s = answered_after(asked, lost_s) or end_s
        hasty = [_hasty(one) for one in asked]
        before, during = Stretch.of(asked, 0, lost_s), Stretch.of(asked, lost_s, again_s)
        after = Stretch.of(asked, again_s)
        told = {
            "seconds without an answer": seconds(silence_s(asked, lost_s - 5, end_s)),
            "requests sent and lost before, with those under way": counted(before),
            "requests sent and lost until it serves again": counted(during),
            f"the same, where clients give up after {HASTY_S:.0f} s": counted(Stretch.of(hasty, lost_s, again_s)),
            "requests sent and lost afterwards": counted(after),
            "SLO attainment before / until / afterwards": f"{before.attainment} / {during.attainment} / "
            f"{after.attainment}",
        }
        for name, text in told.items():
            found.setdefault(name, []).append(text)
    return [(name, one, two) for name, (one, two) in found.items()]


def _hasty(one: Asked) -> Asked:
    """As a client sees it that gives up sooner."""
    late = one.ok and one.ended_s - one.sent_s > HASTY_S
    return replace(one, ok=False, within=False, outcome="given up") if late else one


def prompts(stage: Stage) -> list[Row]:
    """Four times longer, under one rate."""
    longer = _longer(stage.request)
    with cluster() as nodes:
        nodes.join(2)
        stage.tell("a Ray cluster of three nodes of one CPU is up; tuning on it")
        stage.tune(nodes.address)
        url = stage.deploy(nodes.address)
        with stage.watching():
            with Load(stage.request, url, LIMIT_S) as load:
                stage.tell("it serves, and is watched")
                time.sleep(STEADY_S)
            asked = load.asked
            with Load(longer, url, LIMIT_S) as load:
                grown_s = time.time()
                stage.tell("prompts are four times longer")
                stage.until(lambda store: serving(store) == ["tp=1,pp=1,dp=2"], "another layout")
                alone_s = time.time()
                stage.tell("another layout serves")
                time.sleep(2 * AFTER_S)
            asked += load.asked
    rollout, moments = _first(stage, grown_s), _moments(stage, grown_s)
    all_s = _promoted_s(stage, rollout)
    times = [0.0, grown_s, all_s, alone_s, float("inf")]
    parts = [Stretch.of(asked, from_s, to_s) for from_s, to_s in pairwise(times)]
    noticed = [(f"seconds until noticed: {kind}", since(at_s, grown_s)) for kind, at_s in moments.items()]
    return [
        ("", "watched"),
        *noticed,
        ("seconds until decided again", since(rollout.began_s, grown_s)),
        ("why", rollout.why),
        ("seconds until the new layout has all new requests", since(all_s, grown_s)),
        ("seconds until the old one has answered what it had, and is gone", since(alone_s, grown_s)),
        ("requests sent and lost in all", counted(Stretch.of(asked, 0))),
        (
            "SLO attainment before / until all go to the new one / until it is alone / afterwards",
            " / ".join(one.attainment for one in parts),
        ),
    ]


def joins(stage: Stage) -> list[Row]:
    """The demo."""
    seen = retune_demo.play(stage)
    asked, joined_s, alone_s = seen.asked, seen.joined_s, seen.alone_s
    parts = [Stretch.of(asked, 0, joined_s), Stretch.of(asked, joined_s, alone_s), Stretch.of(asked, alone_s)]
    return [
        ("", "watched"),
        ("seconds until decided again", since(_last(stage).began_s, joined_s)),
        ("seconds until the new layout serves alone", since(alone_s, joined_s)),
        ("requests sent and lost in all", counted(Stretch.of(asked, 0))),
        ("SLO attainment before / until it serves alone / afterwards", " / ".join(one.attainment for one in parts)),
    ]


def _longer(request: TuneRequest) -> TuneRequest:
    document = request.model_dump(mode="json")
    document["workload"]["prompt_tokens"] = {"mean": LONGER * request.workload.prompt_tokens.mean}
    return TuneRequest.model_validate(document)


def _last(stage: Stage) -> Rollout:
    with stage.store() as store:
        return store.rollouts.of(STUDY)[0]


def _first(stage: Stage, from_s: float) -> Rollout:
    """The first that has begun since a moment."""
    with stage.store() as store:
        return min((one for one in store.rollouts.of(STUDY) if one.began_s >= from_s), key=lambda one: one.number)


def _promoted_s(stage: Stage, rollout: Rollout) -> float:
    """When all new requests went to what came in, in s since 1970."""
    with stage.store() as store:
        events = [one for one in store.events.after(STUDY, 0) if one.kind == "rollout"]
    told = [(json.loads(one.data), one.at) for one in events]
    return max(at for one, at in told if one["number"] == rollout.number and one["step"] == Step.DRAINING.value)


def _moments(stage: Stage, from_s: float) -> dict[str, float]:
    """When each kind of what was noticed since a moment was told first."""
    with stage.store() as store:
        events = [one for one in store.events.after(STUDY, 0) if one.kind == NOTICED and one.at >= from_s]
    found: dict[str, float] = {}
    for one in sorted(events, key=lambda one: one.at):
        told = json.loads(one.data)
        if told["kind"] != "blind":
            found.setdefault(f"{told['kind'].replace('_', ' ')} of {told['of']}", one.at)
    return found


CASES: dict[str, tuple[Callable[[Stage], list[Row]], dict[str, Any], dict[str, Any]]] = {
    "node-lost": (node_lost, LOST, HOLDING),
    "prompts": (prompts, GROWING, retune_demo.POLICY),
    "joins": (joins, retune_demo.REQUEST, retune_demo.POLICY),
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Re-tuning on a real Ray cluster of several nodes on this machine.")
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--folder", type=Path, help="where store and timeline go; default: a temporary one")
    parser.add_argument("--out", type=Path, help="write the table there as well")
    parser.add_argument("--rate", type=float, help="requests/s; default: the case's own")
    options = parser.parse_args()
    play, request, policy = CASES[options.case]
    if options.rate is not None:
        arrival = {"process": "poisson", "requests_per_s": options.rate}
        request = request | {
            "workload": request["workload"] | {"arrival": arrival},
            "load": request["load"] | {"rates_req_per_s": [options.rate]},
        }
    folder = options.folder or Path(tempfile.mkdtemp(prefix="retune-"))
    stage = Stage(folder, request, policy, LIMIT_S)
    rows = play(stage)
    page = stage.end(("case", options.case))
    told = f"a look every {EVERY_S:g} s, the detectors' windows {SHORTENED:g} times shorter"
    text = table(options.case, rows, f"{told}, {stage.seconds:.0f} s in all")
    print(text)
    stage.tell(f"the timeline: {page}")
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
