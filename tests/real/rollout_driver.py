"""Rolls deployments of a tiny real model out on a running Ray, under load, and prints what came of it as JSON.

A process of its own: there is one Ray in a process. Requests go through the front; which deployment answered each is
told by its header. The second candidate is slowed on purpose: its engine is stopped and continued all the time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.rollout.application import planned
from deploy.rollout.front_config import ANSWERED_BY
from deploy.rollout.machine import RolloutMachine
from deploy.rollout.ray_site import RaySite, named_after
from serve.launch.processes import group_of
from tests.real.conftest import command_of, request_for
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.retune.canary import LOOK, CanaryLook, judge
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.moves import CanaryAnswer
from tuner.retune.policy import CanaryPolicy, RetunePolicy
from tuner.retune.rollout import ENDS, Rollout, Step, Way
from tuner.stats.buckets import Within
from tuner.study.live import live_name
from tuner.study.store import Store

CANARY = CanaryPolicy(share=0.5, least_requests=20, most_minutes=2, alpha=0.05, tolerance=0.1)
LIMIT_S = 0.6  # to the first token
LOOK_S = 0.5


@dataclass
class Answered:
    """A request: who answered, how soon, and whether all went well."""

    by: str
    first_s: float
    well: bool


class Load:
    """Two clients that stream one answer after another, until they are told to end."""

    def __init__(self, url: str, model: str) -> None:
        self._at, self._model = urlsplit(url).netloc, model
        self.answered: list[Answered] = []
        self._ended = threading.Event()
        self._clients = [threading.Thread(target=self._run) for _ in range(2)]
        for client in self._clients:
            client.start()

    def end(self) -> None:
        self._ended.set()
        for client in self._clients:
            client.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.answered.append(self._ask())
            time.sleep(0.05)

    def _ask(self) -> Answered:
        body = {"model": self._model, "prompt": "a b c", "max_tokens": 4, "stream": True, "ignore_eos": True}
        sent, by, text, first_s = time.perf_counter(), "", b"", float("inf")
        try:
            connection = http.client.HTTPConnection(self._at, timeout=60)
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            by = str(answer.headers[ANSWERED_BY]).strip("/")
            text = answer.readline()
            first_s = time.perf_counter() - sent
            text += answer.read()
            return Answered(by, first_s, answer.status == 200 and text.rstrip().endswith(b"data: [DONE]"))
        except OSError:
            return Answered(by, first_s, False)


class Watcher:
    """What a watcher does, as little as there is to it."""

    def __init__(self, address: str, folder: Path, request: TuneRequest) -> None:
        self.request, self.store = request, Store(f"sqlite:///{folder}/store.db")
        self.store.create_study("s", request, {})
        self.store.watched.watch("s", RetunePolicy(canary=CANARY), {"kind": "ray-serve"})
        claim = self.store.watched.claim("s", "me", lambda *_: True)
        assert claim is not None
        self.claim = claim
        self.site = RaySite(address, folder / "site", named_after(live_name("s", 1)))
        self.machine = RolloutMachine(self.store, self.site, claim)
        self.load: Load | None = None
        self._seen = 0

    def begin(self, way: Way, old: str | None) -> Rollout:
        name, now_s = self.store.live.next_name("s"), time.time()
        layout = ParallelLayout.parse("tp=1")
        launched = planned(name, layout, self.request)
        live = LiveDeployment("s", name, "s", None, layout, launched, "ray-serve", LiveState.WANTED, now_s)
        rollout = Rollout("s", 0, way, old, name, Step.PLANNED, "a test", now_s, now_s, approved=True)
        return self.store.rollouts.begin(rollout, live, self.claim)

    def run(self, rollout: Rollout, slowed: bool = False) -> dict[str, Any]:
        """To its end."""
        began, first = time.perf_counter(), len(self.load.answered) if self.load else 0
        with contextlib.ExitStack() as stack:
            while True:
                found = self.machine.advance(self.judged)
                said = found.waits.why if found.waits else "no rollout is under way"
                print(f"{time.perf_counter() - began:6.1f} s: {said}", file=sys.stderr, flush=True)
                now = self.store.rollouts.get("s", rollout.number)
                if now.step in ENDS:
                    break
                if slowed and now.step is Step.CANARY:
                    stack.enter_context(self.slowed(now.new))
                    slowed = False
                assert time.perf_counter() - began < 380, found
                time.sleep(LOOK_S)
        answered = self.load.answered[first:] if self.load else []
        there = {name: one.readiness.value for name, one in self.site.see().deployments.items()}
        return {
            "new": now.new, "step": now.step.value, "outcome": now.outcome, "there": there,
            "shares": dict(self.site.see().shares), "seconds": time.perf_counter() - began,
            "failed": sum(not one.well for one in answered), "requests": len(answered),
            "late_by_others": sum(one.first_s > LIMIT_S for one in answered if one.by != now.new),
            "by_new": sum(one.by == now.new for one in answered),
        }  # fmt: skip

    def judged(self, rollout: Rollout) -> CanaryAnswer:
        assert self.load is not None
        new = self.load.answered[self._seen :]
        self._seen += len(new)
        look = CanaryLook(counted(new, rollout.new), counted(new, rollout.old or ""))
        self.store.rollouts.add_look(rollout, LOOK.dump_python(look, mode="json"), self.claim)
        looks = [LOOK.validate_python(one) for one in self.store.rollouts.looks(rollout)]
        return judge(looks, self.request.slo, CANARY)

    @contextlib.contextmanager
    def slowed(self, name: str) -> Iterator[None]:
        """Its engine stands still nine tenths of the time."""
        leaders = self.site._histories[name].leaders
        engines = [one for leader in leaders for one in group_of(leader) if "VLLM::" in command_of(one)]
        assert engines
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                for number, seconds in ((signal.SIGSTOP, 1.5), (signal.SIGCONT, 0.15)):
                    for engine in engines:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(engine.pid, number)
                    ended.wait(seconds)
            for engine in engines:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(engine.pid, signal.SIGCONT)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        ended.set()
        thread.join()


def counted(answered: list[Answered], name: str) -> dict[str, Within]:
    mine = [one for one in answered if one.by == name]
    soon = sum(one.first_s <= LIMIT_S for one in mine)
    return {"ttft:p90": Within(len(mine), soon, soon, soon)} if mine else {}


def main(address: str, folder: Path, model: Path) -> None:
    document = request_for(model, start_timeout_s=390).model_dump(mode="json")
    document["slo"] = [{"metric": "ttft", "percentile": 90, "ms": LIMIT_S * 1000}]
    watcher = Watcher(address, folder, TuneRequest.model_validate(document))
    told = []
    try:
        told.append(watcher.run(watcher.begin(Way.REPLACE, None)))
        assert watcher.site.url is not None
        watcher.load = Load(watcher.site.url, "tiny")
        told.append(watcher.run(watcher.begin(Way.BESIDE, told[0]["new"])))
        told.append(watcher.run(watcher.begin(Way.BESIDE, told[1]["new"]), slowed=True))
    finally:
        if watcher.load is not None:
            watcher.load.end()
        watcher.site._front.close()
        watcher.site.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
