"""Real launchers and the real meter keep ``tests.launcher_contract``, and what only they can promise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serve.launch.health import served_models
from serve.launch.processes import end, free_port, require_free_port, writers_under
from serve.launch.ray_api import require_ray_address, serve_details
from serve.launch.ray_launcher import RayServeLauncher
from serve.measure.engine_latencies import fetch_latencies
from serve.measure.http_meter import ServesMetrics
from tests.launcher_contract import LaunchContract, RunningContract, eventually
from tests.real.conftest import MAKERS, Bench, command_of, request_for
from tuner.ask.request import Metric
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.trial.launched import ENGINES, RayApplication, VllmServer, installed
from tuner.trial.seams import RunningDeployment, Watch

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]


class TestRunning(RunningContract):
    """The shared cases, and what only real processes have."""

    def test_the_engine_and_its_log_are_real(self, bench: Bench, deployment: RunningDeployment) -> None:
        assert deployment.model_id == "tiny"
        assert any("INFO" in line for line in deployment.log_tail())
        assert any("loading the engine's code" in words for words in bench.said)

    def test_its_engines_tell_their_latencies(self, bench: Bench, deployment: RunningDeployment) -> None:
        """By vLLM's server, or by the agent of Ray's node; the agent hears of them every few seconds."""
        assert bench.answers(deployment)
        if isinstance(deployment, ServesMetrics):
            (url,) = deployment.metrics_urls
        else:
            import ray

            (node,) = ray.nodes()
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

        def told() -> bool:
            engines, _ = fetch_latencies(url)
            ours = [one for one in (engines or {}).values() if one.model == deployment.model_id]
            return any(set(one.latencies) == set(Metric) and one.latencies[Metric.E2E].total for one in ours)

        assert eventually(60, told)

    def test_it_is_no_nicer_than_its_client(self, bench: Bench, deployment: RunningDeployment) -> None:
        """Ray would run it at 15, and the load generator of the same machine before it."""
        engines = bench.left_running()
        assert engines
        assert {os.getpriority(os.PRIO_PROCESS, process.pid) for process in engines} == {
            os.getpriority(os.PRIO_PROCESS, 0)
        }

    def test_the_record_is_what_runs(self, bench: Bench, deployment: RunningDeployment) -> None:
        payload = deployment.launched.payload
        if isinstance(payload, VllmServer):
            words = " ".join(payload.arguments)
            (server,) = (p for p in writers_under([bench.root / "logs"]) if words in command_of(p))
            found = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
            assert {f"{name}={value}" for name, value in payload.environment.items()} <= set(found)
            return
        assert isinstance(payload, RayApplication)
        running = serve_details()["applications"][payload.config["name"]]
        assert running["route_prefix"] == payload.config["route_prefix"]
        assert deployment.url.endswith(payload.config["route_prefix"])
        assert versions_of_a_worker() == deployment.launched.versions

    def test_only_the_loopback_is_listened_on(self, deployment: RunningDeployment) -> None:
        port = urlsplit(deployment.url).port
        own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
        for address in own:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                assert probe.connect_ex((address, port)) != 0


def versions_of_a_worker() -> dict[str, str]:
    """As a worker of the connected Ray finds them."""
    import ray

    found: dict[str, str] = ray.get(ray.remote(num_cpus=0)(installed).remote(*ENGINES), timeout=60)
    return found


class TestLaunching(LaunchContract):
    """The shared cases, and what only real processes do."""

    def test_a_worker_that_a_signal_kills_while_it_starts_is_named(self, bench: Bench) -> None:
        """vLLM 0.29 hangs after that, and would be taken for an engine that starts slowly."""
        killed = []

        def kill(words: str) -> None:
            if not killed and (workers := [p for p in bench.left_running() if "VLLM::Worker" in command_of(p)]):
                os.kill(workers[0].pid, signal.SIGILL)
                killed.append(words)

        with pytest.raises(LaunchFailed, match="killed by SIGILL") as failed:
            bench.launcher.launch(bench.order(bench.request(start_timeout_s=390)), Watch(progress=kill))
        assert failed.value.reason is FailureReason.ENGINE_CRASHED
        assert not bench.left_running()


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_port_in_use_is_refused_before_anything_starts(kind: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"http_port: got {port}; allowed: a free port"):
            MAKERS[kind](port, tmp_path)
    assert not list(tmp_path.iterdir())


DRIVER = """
import sys, time
from pathlib import Path
from serve.measure.http_meter import HttpMeter
from tests.real.conftest import MAKERS, Bench, command_of, request_for
kind, root, model, port = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
bench = Bench(kind, MAKERS[kind](port, root / "state"), HttpMeter(), root)
print(bench.launch(request_for(model)).url, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_what_a_killed_run_leaves_is_removed_by_the_next(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    unused_port = free_port()
    words = [sys.executable, "-c", DRIVER, kind, str(tmp_path), str(tiny_model), str(unused_port)]
    with subprocess.Popen(words, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        url = driver.stdout.readline().strip()
        assert url.startswith("http://")
        driver.kill()
    left = Bench(kind, None, None, tmp_path)  # type: ignore[arg-type]
    before = left.left_running()
    successor = MAKERS[kind](unused_port, left.state_dir)
    assert not any(process.alive for process in before)
    assert not left.left_running()
    require_free_port(unused_port, "http_port")
    assert successor.remove_orphan("parlay-test-1")
    assert not successor.remove_orphan("parlay-test-1")
    successor.close()
    assert not list(left.state_dir.iterdir())


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:0", "127.0.0.1:70000", "host:12:x"])
def test_a_malformed_ray_address_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="HOST:PORT"):
        RayServeLauncher(address, None, state_dir=tmp_path)


@pytest.mark.parametrize("listening", [True, False])
def test_a_ray_address_that_does_not_answer_is_refused_soon(listening: bool, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        if listening:
            probe.listen()
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        started = time.perf_counter()
        with pytest.raises(BadInput, match="a Ray cluster that answers"):
            RayServeLauncher(address, None, state_dir=tmp_path)
    assert time.perf_counter() - started < 15


@pytest.mark.parametrize("bench", ["ray-serve"], indirect=True)
def test_a_ray_of_its_own_answers_nobody_without_its_token(
    bench: Bench, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LaunchFailed, match="not ready"):  # Ray is up after this
        bench.launch(request_for(tiny_model, start_timeout_s=0.1))
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(BadInput, match="a Ray cluster that answers"):
        RayServeLauncher(ray.get_runtime_context().gcs_address, None, state_dir=tmp_path)


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a Ray that somebody else started, with two cores."""
    port, scratch = free_port(), Path(tempfile.mkdtemp(prefix="ray-"))
    words = f"start --head --block --num-cpus=2 --port={port} --include-dashboard=false --temp-dir={scratch}".split()
    command = [str(Path(sys.executable).with_name("ray")), *words, "--object-store-memory=100000000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}):
        yield f"127.0.0.1:{port}"
        end(writers_under([scratch]), patience_s=5)
    shutil.rmtree(scratch, ignore_errors=True)


ATTACHED = """
import sys, time
from dataclasses import replace
from pathlib import Path
from serve.launch.ray_launcher import RayServeLauncher
from tests.real.conftest import Bench, request_for
from tuner.trial.devices import Placement
from tuner.trial.seams import Watch
address, root, model = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
bench = Bench("ray-serve", RayServeLauncher(address, None, state_dir=root / "state"), None, root)
order = replace(bench.order(request_for(model)), placement=Placement(((0, 1),)))  # pinned to the only node
print(bench.launcher.launch(order, Watch(progress=bench.said.append)).url, flush=True)
time.sleep(600)
"""

NEXT = """
import json, sys
from pathlib import Path
from serve.launch.ray_launcher import RayServeLauncher
from serve.launch.ray_api import discover_cluster
address, root = sys.argv[1], Path(sys.argv[2])
found = discover_cluster(address)
launcher = RayServeLauncher(address, None, state_dir=root / "state")
removed = [launcher.remove_orphan("parlay-test-1") for _ in range(2)]
launcher.close()
print(json.dumps([found.gpu, found.devices, removed]))
"""


@pytest.mark.long
def test_a_running_cluster_is_used_and_rid_of_a_killed_runs_deployment(
    cluster: str, tiny_model: Path, tmp_path: Path
) -> None:
    at, words = Path(__file__).parents[2], [cluster, str(tmp_path), str(tiny_model)]
    assert eventually(30, lambda: not refused(cluster))
    with subprocess.Popen([sys.executable, "-c", ATTACHED, *words], cwd=at, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        url = run.stdout.readline().strip()
        run.kill()
    assert served_models(url, timeout_s=10) == ("tiny",)
    done = subprocess.run(
        [sys.executable, "-c", NEXT, *words], cwd=at, capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout.splitlines()[-1]) == ["cpu", 2, [True, False]]
    assert served_models(url, timeout_s=10) == ()


def refused(address: str) -> bool:
    try:
        require_ray_address(address)
    except BadInput:
        return True
    return False
