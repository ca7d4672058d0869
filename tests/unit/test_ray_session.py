"""A Ray of one's own: what it is started with, and that nothing of it stays where its start fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from serve.launch import ray_session
from serve.launch.fronts import DIRECT, HAPROXY
from serve.launch.one_ray import OneRay
from serve.launch.processes import LauncherRecord
from serve.launch.ray_session import RaySession
from tuner.ask.request import ClusterSpec
from tuner.trial.seams import Watch


class FakeRay:
    """What a session asks of Ray; ``fails`` is raised where Ray starts."""

    def __init__(self, fails: BaseException | None = None) -> None:
        self.fails = fails
        self.options: dict[str, Any] = {}
        self.stopped = 0

    def init(self, **options: Any) -> None:
        self.options = options
        if self.fails is not None:
            raise self.fails

    def shutdown(self) -> None:
        self.stopped += 1

    def details(self) -> dict[str, Any]:
        return {"http_options": {"port": 8123}, "proxies": {}}


def session(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fails: BaseException | None = None
) -> tuple[RaySession, FakeRay, OneRay]:
    ray, one = FakeRay(fails), OneRay()
    fakes = {"ray_init": ray.init, "ray_shutdown": ray.shutdown, "serve_details": ray.details, "RAY": one}
    fakes |= {"serve_runs": lambda: True, "import_quietly": lambda: None}
    for name, fake in fakes.items():
        monkeypatch.setattr(ray_session, name, fake)
    return RaySession(None, None, LauncherRecord(folder, "ray-local")), ray, one


@pytest.mark.parametrize(
    ("gpu", "devices"), [("cpu", {"num_cpus": 6, "num_gpus": 6}), ("h100_sxm", {})], ids=["cores", "what Ray finds"]
)
def test_a_ray_of_ones_own_has_the_devices_of_the_cluster(
    gpu: str, devices: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, ray, one = session(tmp_path, monkeypatch)
    spec, told = ClusterSpec(gpu=gpu, nodes=2, gpus_per_node=3), list[str]()
    assert own.start(spec, Watch(progress=told.append)) == "http://127.0.0.1:8123"
    assert {name: ray.options[name] for name in ray.options if name in ("num_cpus", "num_gpus")} == devices
    assert told == ["starting Ray", "loading Ray Serve LLM"]
    assert own.start(spec, Watch(progress=told.append)) == "http://127.0.0.1:8123"
    assert len(told) == 2  # one Ray for all
    scratch = Path(ray.options["_temp_dir"]).parent
    assert scratch.is_dir()
    assert len(list(tmp_path.iterdir())) == 1  # the record, should this process be killed
    own.close()
    assert (ray.stopped, one.used, scratch.exists(), list(tmp_path.iterdir())) == (1, False, False, [])


@pytest.mark.parametrize("fails", [KeyboardInterrupt(), RuntimeError("no memory")], ids=["interrupted", "failed"])
def test_a_start_that_does_not_succeed_leaves_nothing(
    fails: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, ray, one = session(tmp_path, monkeypatch, fails)
    with pytest.raises(type(fails)):
        own.start(ClusterSpec(gpu="cpu", gpus_per_node=1), Watch())
    assert not Path(ray.options["_temp_dir"]).parent.exists()
    assert (ray.stopped, one.used, list(tmp_path.iterdir())) == (1, False, [])


def test_another_front_needs_another_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, ray, one = session(tmp_path, monkeypatch)
    seen, inits = list[dict[str, str]](), ray.init

    def init(**options: Any) -> None:
        seen.append({name: os.environ[name] for name in os.environ if name.startswith("RAY_SERVE_")})
        inits(**options)

    monkeypatch.setattr(ray_session, "ray_init", init)
    spec, told, direct = ClusterSpec(gpu="cpu", gpus_per_node=1), list[str](), {HAPROXY: "1", DIRECT: "1"}
    for environment in ({}, direct, direct, {}):
        own.start(spec, Watch(progress=told.append), environment)
    assert [{HAPROXY, DIRECT} & set(found) for found in seen] == [set(), {HAPROXY, DIRECT}, set()]
    assert told[0::2] == ["starting Ray", "starting Ray for another front", "starting Ray for another front"]
    assert (ray.stopped, one.used) == (2, True)
    scratch = Path(ray.options["_temp_dir"]).parent
    assert all(Path(path).is_relative_to(scratch) for name, path in seen[-1].items() if path.startswith("/"))
    assert HAPROXY not in os.environ
    own.close()
    assert list(tmp_path.iterdir()) == []
