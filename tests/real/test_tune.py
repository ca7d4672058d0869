"""The main job on the real stack: killed in the middle and resumed, and its emitted configuration served."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.launch.engine_processes import EngineProcesses
from serve.launch.processes import ProcessId, identify, writers_under
from tests.chart import documents, render
from tests.real.conftest import DTYPE, command_of
from tests.real.rendered_cluster import RenderedCluster

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
REPO = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def request_file(folder: Path, model: Path) -> Path:
    """Two layouts of one device that nothing tells apart under this load: one is launched, for some seconds."""
    path = folder / "request.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "model": str(model),
                "cluster": {"gpu": "cpu", "gpus_per_node": 2},
                "workload": {
                    "prompt_tokens": 32,
                    "output_tokens": 8,
                    "arrival": {"process": "poisson", "requests_per_s": 4},
                },
                "slo": [{"metric": "ttft", "percentile": 90, "ms": 20_000}],
                "objective": "min_latency",
                "space": {"tp": [1], "max_num_batched_tokens": [256, 512], "max_num_seqs": [16]},
                "engine": {"dtype": DTYPE, "kv_cache_gib": 0.25, "max_model_len": 128, "start_timeout_s": 240},
                "load": {"rates_req_per_s": [2, 4], "seconds": 3, "warmup_seconds": 1},
                "budget": {"launches": 2, "minutes": 10},
            }
        )
    )
    return path


def tune(folder: Path, *words: str) -> list[str]:
    command = [sys.executable, "-m", "tuner.app.cli.commands", "tune", str(folder / "request.yaml")]
    return [*command, "--out", str(folder / "out"), "--study", "killed", "--json", *words]


def processes_of(folder: Path) -> list[str]:
    """Command lines of whatever still writes below this study's folders."""
    places = [folder / "out"]
    for record in (folder / "out" / "state").glob("*.json"):
        places += [Path(place) for place in json.loads(record.read_text())["directories"]]
    return [command_of(process) for process in writers_under(places)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """A study whose driver was killed while its trial was up, and that was then resumed."""
    folder = tmp_path_factory.mktemp("tune")
    request_file(folder, tiny_model)
    first: list[str] = []
    with subprocess.Popen(
        tune(folder), cwd=REPO, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            first.append(line)
            if "ready after" in line:
                break
        assert "ready after" in first[-1], "".join(first)
        driver.send_signal(signal.SIGKILL)
    left = processes_of(folder)
    second = subprocess.run(tune(folder, "--resume"), cwd=REPO, capture_output=True, text=True, timeout=400)
    return {"folder": folder, "first": "".join(first), "left": left, "second": second}


def test_a_killed_study_goes_on_where_it_was(study: dict[str, Any]) -> None:
    second = study["second"]
    assert second.returncode == 0, second.stderr
    assert study["left"], "the kill left nothing to clean up: the test proves nothing"
    assert "0 trials are finished and will not run again; torn down: parlay-killed-0" in second.stderr
    assert second.stderr.count("ready after") == 1
    answer = json.loads(second.stdout)
    (trial,) = answer["trials"]
    assert (trial["number"], trial["state"], trial["layout"]) == (0, "measured", answer["winner"]["layout"])
    assert answer["stopped"]["ties"] == 1
    assert all(step["completed"] == step["sent"] > 0 for t in answer["trials"] for step in t["steps"])


def test_a_finished_study_leaves_no_process(study: dict[str, Any]) -> None:
    assert study["second"].returncode == 0
    assert processes_of(study["folder"]) == []


def test_the_emitted_config_serves_with_serve_run(study: dict[str, Any], tmp_path: Path) -> None:
    """``serve run`` of the emitted file on a Ray of its own, and an answer from it."""
    emitted = Path(json.loads(study["second"].stdout)["files"]["ray-serve"])
    config = yaml.safe_load((REPO / emitted).read_text())
    port = free_port()
    config["http_options"] = {"host": "127.0.0.1", "port": port}  # where it listens is the cluster's affair
    path = tmp_path / "ray-serve.yaml"
    path.write_text(yaml.safe_dump(config))
    program = (
        "import sys, ray; from ray.serve.scripts import cli\n"
        "ray.init(num_cpus=2, include_dashboard=False, _node_ip_address='127.0.0.1', _temp_dir=sys.argv[2])\n"
        "cli(['run', sys.argv[1]])"
    )
    words = [sys.executable, "-c", program, str(path), f"/tmp/parlay-serve-run-{os.getpid()}"]
    log = tmp_path / "serve.log"
    with (
        log.open("w") as output,
        subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True) as server,
    ):
        try:
            answer = answer_or_death(f"http://127.0.0.1:{port}/v1/completions", server, log)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(timeout=60)
            finally:
                print(log.read_text()[-3000:])
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.tools
@pytest.mark.long
def test_the_rendered_rayservice_serves_on_a_cluster_of_its_pods(study: dict[str, Any], tmp_path: Path) -> None:
    """The study's Helm values, the chart under a real Helm, and what that renders on nodes as large as its pods."""
    emitted = json.loads(study["second"].stdout)["files"]
    values = yaml.safe_load((REPO / emitted["helm-values"]).read_text())
    (service,) = (made for made in documents(render(values, tmp_path)) if made["kind"] == "RayService")
    assert service["spec"]["serveConfigV2"] == (REPO / emitted["ray-serve"]).read_text()
    with RenderedCluster(service) as cluster:
        cluster.apply()
        assert cluster.answer("tiny")["usage"]["completion_tokens"] == 4
        assert set(cluster.statuses().values()) == {"RUNNING"}
        assert set(cluster.probes().values()) == {0}


def answer_or_death(url: str, server: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """The first answer, to a prompt of three tokens: short prompts are answered by kernels of their own.

    No clock: on a slow machine it takes as long as it takes, up to the test's own limit, and an engine that dies says
    so; Serve would restart it for ever.
    """
    body = json.dumps({"model": "tiny", "prompt": [11, 12, 13], "max_tokens": 4, "ignore_eos": True}).encode()
    leader, engine = identify(server.pid), EngineProcesses()
    assert leader is not None
    while True:
        groups = {leader, *engine_groups(server)}
        if server.poll() is not None or (lost := engine.look(groups)):
            died = "serve run ended" if server.poll() is not None else "; ".join(map(str, lost))
            raise AssertionError(f"{died}\n{log.read_text()[-3000:]}")
        try:
            call = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(call, timeout=30) as reply:
                found: dict[str, Any] = json.load(reply)
                return found
        except OSError:
            time.sleep(1)


def engine_groups(server: subprocess.Popen[bytes]) -> set[ProcessId]:
    """Leaders of the process groups of Ray's workers below that Ray, in which replicas and their engines live."""
    scratch = Path(f"/tmp/parlay-serve-run-{os.getpid()}")
    leaders = (identify(group_id(process)) for process in writers_under([scratch]) if process.pid != server.pid)
    return {leader for leader in leaders if leader is not None}


def group_id(process: ProcessId) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:  # it ended meanwhile
        return 0
