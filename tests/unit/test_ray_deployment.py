"""One application of Ray Serve without a Ray: what its log shows from its start on, and after its teardown."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.launch import ray_deployment
from serve.launch.health import Waiting
from serve.launch.ray_deployment import RayServeDeployment
from tests.fakes import make_request
from tests.unit.test_replicas import HERE, application, replica
from tuner.app.tune.trial_log import log_text
from tuner.ask.deployment import parse_deployment
from tuner.trial.cancel import CancelHandle
from tuner.trial.launched import Launched, RayApplication
from tuner.trial.seams import LaunchOrder, Watch


def test_its_log_is_shown_from_its_start_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, trial, ended = tmp_path / "session", tmp_path / "trial-000", list[str]()
    session.mkdir()
    found = {"applications": {"app": application(replica("a", worker_id="w1"))}}
    for name, told in (("serve_details", found), ("ray_logs", session), ("own_ip", HERE)):
        monkeypatch.setattr(ray_deployment, name, lambda told=told: told)
    monkeypatch.setattr(ray_deployment, "delete_application", ended.append)
    order = LaunchOrder("s", 0, "app", parse_deployment("tp=1"), make_request(), trial, None)
    launched = Launched("ray-serve", {}, "org/model", RayApplication({}))
    deployment = RayServeDeployment(order, "http://127.0.0.1:1", launched, ended.append)
    waiting = Waiting(Watch(CancelHandle()))
    assert not deployment._is_up(waiting, 0.0)
    (session / "worker-w1-01-7.out").write_text("Loading weights\nHF_TOKEN=abc\n")
    assert not deployment._is_up(waiting, 1.0)
    assert log_text(trial, 10) == "==> worker-w1-01-7.out <==\nLoading weights\nHF_TOKEN=…\n"
    (session / "worker-w1-01-7.out").open("a").write("Capturing graphs\n")
    assert str(log_text(trial, 1)).endswith("Capturing graphs\n")
    deployment.teardown()
    (session / "worker-w1-01-7.out").unlink()
    assert str(log_text(trial, 1)).endswith("Capturing graphs\n")
    assert ended == ["app", "app"]
