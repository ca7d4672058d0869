"""A watched study on a place that is only simulated: its clock, its cluster, its load, and what its engines count."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve.measure.live_reader import Places
from tests.fakes import copy_of_empty_store, make_request
from tests.simulated_site import SimulatedPlace, SimulatedSite
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.app.watch.first import first_deployment
from tuner.app.watch.rounds import QueuedRounds
from tuner.app.watch.watcher import Watcher
from tuner.ask.deployment import Deployment
from tuner.ask.request import TuneRequest
from tuner.errors import ParlayError
from tuner.retune.policy import RetunePolicy
from tuner.retune.seen import Fingerprint, NodeSeen
from tuner.study.orders import Terms
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle
from tuner.trial.launched import Launched, NoEngine

TICK_S = 30.0
BOUNDS = (0.04, 0.1, 0.5, 2.5)  # of the histograms, in s
# Two nodes of one GPU: the study finds that one replica carries the load.
REQUEST = {
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 1,
    "space": {"tp": [1], "dp": [1, 2]},
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 100}],
    "objective": "min_gpus",
    "budget.launches": 2,
}
POLICY = RetunePolicy.model_validate(
    {"consent": "auto", "persists_minutes": 1, "regains_minutes": 1, "cool_down_hours": 0.01, "in_place": False}
    | {"canary": {"share": 0.25, "least_requests": 50, "most_minutes": 30}}
)


@dataclass
class Counted:
    """What the engines of one deployment have counted."""

    requests: float = 0.0
    tokens: float = 0.0
    fast: float = 0.0
    seconds: float = 0.0

    def text(self, model: str) -> str:
        """As vLLM shows it."""
        lines = []
        for name, within in (("time_to_first_token_seconds", self.fast), ("e2e_request_latency_seconds", self.fast)):
            for bound in BOUNDS:
                count = within if bound < 0.5 else self.requests
                lines.append(f'vllm:{name}_bucket{{le="{bound}",model_name="{model}"}} {count}')
            lines.append(f'vllm:{name}_bucket{{le="+Inf",model_name="{model}"}} {self.requests}')
            lines.append(f'vllm:{name}_count{{model_name="{model}"}} {self.requests}')
            lines.append(f'vllm:{name}_sum{{model_name="{model}"}} {self.seconds}')
        for name, total in (("request_prompt_tokens", self.tokens), ("request_generation_tokens", 16 * self.requests)):
            lines.append(f'vllm:{name}_count{{model_name="{model}"}} {self.requests}')
            lines.append(f'vllm:{name}_sum{{model_name="{model}"}} {total}')
        lines.append(f'vllm:request_success_total{{finished_reason="stop",model_name="{model}"}} {self.requests}')
        return "\n".join(lines) + "\n"


@dataclass
class WatchWorld:
    """``asked`` is what the study asks beside ``REQUEST``; ``slow`` are layouts that answer too late; ``nodes`` the
    cluster's; ``away``: nobody can be asked; ``unseen``: nobody says which nodes there are."""

    folder: Path
    policy: RetunePolicy = POLICY
    asked: dict[str, Any] = field(default_factory=dict)
    rate: float = 8.0
    prompt: float = 128.0
    slow: set[str] = field(default_factory=set)
    nodes: int = 2
    away: bool = False
    unseen: bool = False
    place: SimulatedPlace = field(default_factory=lambda: SimulatedPlace(devices=2, now_s=1_000_000.0))
    counted: dict[str, Counted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(copy_of_empty_store(self.folder / "store.db"))
        self.request: TuneRequest = make_request(REQUEST | self.asked)

    # -- what a watcher asks of its place --

    @property
    def site(self) -> SimulatedSite:
        return SimulatedSite(self.place)

    def told_at(self, names: Collection[str]) -> Places:
        if self.away:
            raise ParlayError("nobody is there")
        return Places(direct={name: (name,) for name in names})

    def fingerprint(self) -> Fingerprint:
        if self.away or self.unseen:
            raise ParlayError("nobody is there")
        return Fingerprint(tuple(NodeSeen(f"n{i}", "h100_sxm", 1) for i in range(self.nodes)), {"vllm": "0.29.0"})

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        return None

    def launched(self, name: str, deployment: Deployment, request: TuneRequest, measured: Launched | None) -> Launched:
        return measured or Launched("simulated", {}, request.model, NoEngine(name))

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass

    def fetch(self, name: str) -> tuple[str | None, str | None]:
        return self.counted.setdefault(name, Counted()).text("m"), None

    # -- what happens --

    def decide(self, name: str = "s") -> None:
        """Have the study, and whatever is queued, decided on a simulated cluster."""
        if self.store.find_study(name) is None:
            self.store.orders.submit(name, self.request, Terms("", "simulated", 0))
        Worker(self.store, WorkerSettings(("simulated",), None, self.folder), CancelHandle()).run(until_idle=True)

    def watcher(self, me: str = "me", dry: bool = False) -> Watcher:
        """A watcher as another process would begin."""
        claim = None if dry else self.store.watched.claim("s", me, lambda *_: True)
        rounds = QueuedRounds(self.store, "simulated", seed=0)
        return Watcher(self.store, "s", self, rounds, claim, clock=lambda: self.place.now_s, fetch=self.fetch)

    def deploy(self) -> Watcher:
        """Decide the study, and have its winner serve."""
        self.decide()
        self.store.watched.watch("s", self.policy, {"kind": "simulated"})
        watcher = self.watcher()
        first_deployment(self.store, self, watcher.claim, "s", None, self.place.now_s)
        self.run(watcher, until=lambda: bool(self.place.shares))
        return watcher

    def tick(self) -> None:
        """Let time go by: requests come, and go where the traffic goes."""
        self.place.now_s += TICK_S
        for live in self.store.live.of("s"):
            one, share = self.counted.setdefault(live.name, Counted()), self.place.shares.get(live.name, 0.0)
            came = self.rate * TICK_S * share
            one.requests += came
            one.tokens += came * self.prompt
            one.seconds += came * (0.010 + self.prompt * 30e-6)  # as the model has it: longer prompts take longer
            one.fast += 0.0 if str(live.deployment) in self.slow else came

    def run(self, watcher: Watcher, ticks: int = 60, until=None):
        """Iterate so often, or until something is so; the last standing."""
        found = watcher.iterate()
        for _ in range(ticks):
            if until is not None and until():
                return found
            self.tick()
            found = watcher.iterate()
        assert until is None or until(), f"it never came: {found}"
        return found

    def kinds(self) -> list[str]:
        """Kinds of the study's events that a watcher told."""
        return [event.kind for event in self.store.events.after("s", 0) if event.kind not in ("state", "planned")]
