"""What tests of windows of load have in common: a deployment elsewhere, a request of small prompts, a load step."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tuner.ask.request_document import parse_request
from tuner.errors import FailureReason
from tuner.trial.launched import Launched, RayApplication
from tuner.trial.results import LoadStep

DEAD = (FailureReason.REPLICA_DIED, "exit code -9")


@pytest.fixture(autouse=True)
def quiet_client(monkeypatch):
    """Here the machine's other work must not decide whether a window is valid."""
    monkeypatch.setattr("serve.measure.window_runner.client_bound", lambda *_: None)


@dataclass
class FakeDeployment:
    """A deployment at ``url``; ``died`` is what it says of itself."""

    url: str
    died: tuple[FailureReason, str] | None = None
    model_id: str = "tiny"
    ready_after_s: float = 0.0
    router: str = "PowerOfTwoChoicesRequestRouter"

    @property
    def launched(self):
        config = {"request_router_config": {"request_router_class": f"ray.serve.llm.request_router.{self.router}"}}
        return Launched("fake", {}, "tiny", RayApplication({"args": {"deployment_config": config}}))

    def failure(self):
        return self.died

    def log_tail(self, lines=20):
        return ("last words",)

    def teardown(self):
        self.died = DEAD


def request(**changes):
    workload = {
        "prompt_tokens": {"mean": 24, "min": 16, "max": 32},
        "output_tokens": 4,
        "arrival": {"process": "constant", "requests_per_s": 20},
        "shared_prefix_tokens": 8,
    }
    return parse_request(
        {
            "model": "tiny",
            "cluster": {"gpu": "cpu", "gpus_per_node": 2},
            "workload": workload | changes.pop("workload", {}),
            "slo": [{"metric": "ttft", "percentile": 99, "ms": 500}, {"metric": "tpot", "percentile": 90, "ms": 50}],
            "load": {"request_timeout_s": 10},
            **changes,
        }
    )


def step(rate=20.0, seconds=0.5, seed=3, **other):
    return LoadStep(index=1, rate_req_per_s=rate, duration_s=seconds, seed=seed, **other)
