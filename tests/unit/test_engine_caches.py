"""Where engines keep compiled code: it reaches them, is in nothing that is emitted, and does not grow for ever."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.launch import local_launcher
from serve.launch.engine import serve_app
from serve.launch.engine_caches import NO_CACHES, EngineCaches, with_variables
from serve.launch.local_launcher import LocalProcessLauncher
from tests.fakes import make_request
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.trial.launched import VllmServer
from tuner.trial.seams import LaunchOrder, Watch

DAY_S = 86400.0
VARIABLES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def test_a_directory_has_a_name_or_is_the_users_or_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARLAY_ENGINE_CACHES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert EngineCaches.of() == EngineCaches(Path("/cache/parlay/engines"))
    assert EngineCaches.of("/mnt/shared") == EngineCaches(Path("/mnt/shared"), everywhere=True)
    monkeypatch.setenv("PARLAY_ENGINE_CACHES", "none")
    assert EngineCaches.of() == NO_CACHES
    assert NO_CACHES.environment(given={}) == {}
    assert NO_CACHES.clean() == []
    with pytest.raises(BadInput, match="absolute path"):
        EngineCaches.of("here")


def test_other_machines_have_it_only_where_an_operator_named_it() -> None:
    users = EngineCaches(Path("/c"))
    assert tuple(users.environment(given={})) == VARIABLES
    assert users.environment(own=False, given={}) == {}
    assert tuple(EngineCaches(Path("/c"), everywhere=True).environment(own=False, given={})) == VARIABLES
    assert "VLLM_CACHE_ROOT" not in users.environment(given={"VLLM_CACHE_ROOT": "/mine"})
    assert all("/c/vllm-" in place for place in users.environment(given={}).values())


def test_ray_is_given_them_and_the_record_is_not() -> None:
    found = EngineCaches(Path("/c")).environment(given={})
    for layout in (ParallelLayout(), ParallelLayout(dp=2)):
        app = serve_app("app", layout, make_request(), model_source="org/m")
        kept = str(app)
        config = with_variables(app, found)["args"]["llm_configs"][0]
        assert found.items() <= config["runtime_env"]["env_vars"].items()
        assert config["runtime_env"]["env_vars"]["DO_NOT_TRACK"] == "1"
        assert str(app) == kept
        assert "/c/" not in kept
    grouped = with_variables({"args": {"llm_config": {}}}, {"A": "1"})
    assert grouped["args"]["llm_config"]["runtime_env"]["env_vars"] == {"A": "1"}


def test_a_local_server_has_them_and_its_record_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    records: list[VllmServer] = []

    def popen(*_: object, env: dict[str, str], **__: object) -> None:
        seen.append(env)
        raise LaunchFailed(FailureReason.ENGINE_CRASHED, "no engine here")

    server = local_launcher._server

    def recorded(*args: Any) -> VllmServer:
        records.append(server(*args))
        return records[-1]

    monkeypatch.setattr(local_launcher, "_server", recorded)
    monkeypatch.setattr(subprocess, "Popen", popen)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    launcher = LocalProcessLauncher(None, state_dir=tmp_path / "state", caches=EngineCaches(tmp_path / "c"))
    order = LaunchOrder("s", 0, "app", ParallelLayout(), make_request(), tmp_path / "logs")
    with pytest.raises(LaunchFailed, match="no engine here"):
        launcher.launch(order, Watch())
    launcher.close()
    assert all(seen[0][name].startswith(str(tmp_path / "c")) for name in VARIABLES)
    assert str(tmp_path / "c") not in str(records)


def kept(root: Path, name: str, days: float, size: int) -> Path:
    """A key's files, unused for some days."""
    place = root / "vllm-0.29.0" / name
    place.mkdir(parents=True)
    (place / "model").write_bytes(b"0" * size)
    for one in (place / "model", place):
        os.utime(one, (100 * DAY_S - days * DAY_S,) * 2)
    return place


def test_old_code_goes_and_of_much_what_was_longest_unused(tmp_path: Path) -> None:
    aot = "vllm/torch_compile_cache/torch_aot_compile"
    fresh, week = kept(tmp_path, f"{aot}/a", 0.5, 50_000), kept(tmp_path, "vllm/torch_compile_cache/b", 7, 50_000)
    month, old = kept(tmp_path, "triton/c", 20, 50_000), kept(tmp_path, "inductor/d", 40, 10)
    caches = EngineCaches(tmp_path)
    assert caches.clean(100 * DAY_S) == [old]
    assert caches.clean(100 * DAY_S, most_bytes=130_000) == [month]
    assert caches.clean(100 * DAY_S, most_bytes=10) == [week]
    assert fresh.is_dir()


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 60), st.integers(1, 9000)), max_size=6), st.integers(0, 30000))
def test_what_was_used_today_stays(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[float, int]], most: int
) -> None:
    root = tmp_path_factory.mktemp("caches")
    places = [(kept(root, f"triton/{n}", days, size), days) for n, (days, size) in enumerate(said)]
    gone = EngineCaches(root).clean(100 * DAY_S, most_bytes=most)
    assert {place for place, days in places if days > 30} <= set(gone)
    assert not {place for place, days in places if days <= 1} & set(gone)
    assert all(place.exists() is (place not in gone) for place, _ in places)
