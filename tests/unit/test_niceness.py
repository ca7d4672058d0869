"""Whether the load generator comes before the engines on a machine that they share, as a study's facts tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.launch.niceness import told


@pytest.fixture(autouse=True)
def at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpriority", lambda *which: 0)


def machine(folder: Path, **raylets: str) -> Path:
    """A /proc with a shell, and raylets by the end of their process ids, each with its environment."""
    for pid, (name, environment) in {"1": ("bash", "A=1")}.items() | {(k, ("raylet", v)) for k, v in raylets.items()}:
        (folder / pid.lstrip("p")).mkdir()
        (folder / pid.lstrip("p") / "comm").write_text(f"{name}\n")
        (folder / pid.lstrip("p") / "environ").write_text(environment)
    (folder / "meminfo").write_text("")
    return folder


@pytest.mark.parametrize(
    ("raylets", "said"),
    [
        ({}, "0, engines on other machines"),
        ({"p2": "A=1\0B="}, "0, engines of the Ray node on this machine 15; the load generator comes first"),
        ({"p2": "RAY_worker_niceness=0\0A=1"}, "0, engines of the Ray node on this machine 0"),
    ],
)
def test_a_running_ray_is_asked_for_its_workers_niceness(tmp_path: Path, raylets: dict[str, str], said: str) -> None:
    assert told("ray", "10.0.0.1:6379", machine(tmp_path, **raylets)) == said


@pytest.mark.parametrize(("launcher", "address"), [("local", None), ("ray", None)])
def test_engines_that_parlay_starts_itself_are_its_equals(tmp_path: Path, launcher: str, address: None) -> None:
    assert told(launcher, address, tmp_path) == "0, engines as the load generator"
