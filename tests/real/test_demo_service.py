"""``make demo-service``: a service asked over HTTP for a study on the real stack, from nothing to a deployment spec."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serve.launch.processes import writers_under
from tests.chart import documents, render
from tests.curl_lines import KUBERNETES, README, ROOT, curl_lines, run_line, serving

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the demo, and what it said."""
    out = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "PYTHON_BIN": sys.executable, "DEMO_OUT": str(out)}
    done = subprocess.run([ROOT / ".ci" / "demo-service"], env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr + (out / "service.log").read_text()
    return out, done.stdout


def test_it_tells_the_page_first_and_then_what_happens(demo: tuple[Path, str]) -> None:
    lines = demo[1].splitlines()
    assert lines[0].startswith("the page: http://127.0.0.1:")
    kinds = [line.split()[0] for line in lines if line.startswith("  ")]
    told = ["planned", "trial_started", "ready", "step_measured", "trial_finished", "ended"]
    assert [kind for kind in dict.fromkeys(kinds) if kind in told] == told


def test_it_leaves_a_decision_and_its_spec_and_no_process(demo: tuple[Path, str]) -> None:
    out, said = demo
    decided = json.loads((out / "decision.json").read_text())
    assert decided["simulated"] is False
    assert decided["why"] in said
    assert yaml.safe_load((out / "rayservice.yaml").read_text())["kind"] == "RayService"
    assert not writers_under([out])


@pytest.mark.tools
def test_the_lines_of_the_readme_fetch_the_same(demo: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = demo
    _, _, decision, spec = (line.replace("/llama/", "/demo/") for line in curl_lines(README))
    with serving(out, "--workers", "0") as (url, token):
        assert json.loads(run_line(decision, out, url, token).stdout) == json.loads((out / "decision.json").read_text())
        assert run_line(spec, out, url, token).stdout == (out / "rayservice.yaml").read_text()
        # And that of the page on Kubernetes, whose values render what was emitted.
        (line,) = (line for line in curl_lines(KUBERNETES) if "/STUDY/" in line)
        fetched = line.replace("http://localhost:8080", "$PARLAY_SERVER").replace("/STUDY/", "/demo/")
        assert run_line(fetched, out, url, token).returncode == 0
    values = yaml.safe_load((out / "helm-values.yaml").read_text())
    (rendered,) = (made for made in documents(render(values, tmp_path)) if made["kind"] == "RayService")
    assert rendered["spec"] == yaml.safe_load((out / "rayservice.yaml").read_text())["spec"]
