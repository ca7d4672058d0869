"""What is emitted is what was launched, wherever and whenever it is emitted, and by which launcher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from serve.launch.engine import environment, serve_app, vllm_args
from tests.fakes import make_candidate, make_request, make_step, steps_of
from tuner.app.cli.commands import app
from tuner.app.tune.report_data import USES
from tuner.app.wiring import decision_of, write_results
from tuner.ask.layout import ParallelLayout
from tuner.ask.request_document import parse_request
from tuner.errors import BadInput
from tuner.study.lifecycle import StudyState
from tuner.study.records import TrialClaim
from tuner.study.store import Store
from tuner.trial.devices import Placement
from tuner.trial.launched import Launched, RayApplication, VllmServer
from tuner.trial.results import Purpose, TrialResult, TrialState

REQUEST = make_request({"model": "tiny", "load.rates_req_per_s": [8]})
FACTS = {"ray": "2.58.1", "vllm": "0.26.0"}
Emit = Callable[..., Result]


def ray_record(layout: ParallelLayout) -> Launched:
    config = serve_app("parlay-s-0", layout, REQUEST, model_source="/then/tiny", route_prefix="/parlay-s-0")
    config["args"]["llm_configs"][0]["engine_kwargs"]["dtype"] = "float16"  # an older Parlay's choice, not today's
    return Launched("ray-serve", dict(FACTS), "/then/tiny", RayApplication(config))


def local_record(layout: ParallelLayout) -> Launched:
    words = vllm_args(layout, REQUEST, model_source="/then/tiny", host="127.0.0.1", port=41234)
    server = VllmServer(tuple(words), environment(layout, REQUEST, model_source="/then/tiny"))
    return Launched("local-process", {"vllm": "0.26.0"}, "/then/tiny", server)


def studied(folder: Path, launched: Launched | None, layout: ParallelLayout) -> Store:
    """A study of one measured layout."""
    store = Store(f"sqlite:///{folder}/parlay.db")
    store.create_study("s", REQUEST, FACTS)
    store.save_plan("s", 1, [make_candidate(layout)], [])
    claim = TrialClaim("me", layout, Purpose.EXPLORE, 0, 0.0, None, folder)
    assert store.claim_trial("s", claim, lambda held: Placement(((0, layout.devices),)), launches=1)
    if launched is not None:
        store.record_launch("s", 0, launched, "me")
    step = make_step(steps_of(REQUEST)[-1], REQUEST, ttft_ms=20.0)
    store.add_step("s", 0, step, "me")
    store.finish_trial("s", TrialResult(0, layout, TrialState.MEASURED, seconds=9.0, device_s=9.0), "me")
    store.change_state("s", StudyState.RUNNING)
    store.save_decision("s", decision_of(store, store.study("s"))[0])
    return store


@pytest.fixture
def emit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emit:
    """Emit the study from a folder in which another model has its name."""
    (tmp_path / "now" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "now")
    return lambda *words: CliRunner().invoke(app, ["emit", "s", "--out", str(tmp_path), *words])


def application(text: str) -> Any:
    return yaml.safe_load(text)["applications"][0]


TP2, UNI = ParallelLayout(tp=2), ParallelLayout(executor="uni")


@pytest.mark.slow
def test_the_application_is_the_one_that_was_launched(emit: Emit, tmp_path: Path) -> None:
    launched = ray_record(TP2)
    studied(tmp_path, launched, TP2)
    emitted = emit()
    assert isinstance(launched.payload, RayApplication)
    assert application(emitted.stdout) == launched.payload.config | {"name": "tiny", "route_prefix": "/"}
    assert "Measured with ray-serve: Ray 2.58.1, vLLM 0.26.0" in emitted.stdout
    assert emitted.stderr == ""
    words = emit("--format", "vllm").stdout
    assert "vllm serve /then/tiny" in words
    assert "--dtype float16" in words
    manifest = yaml.safe_load(emit("--format", "rayservice").stdout)["spec"]
    assert manifest["rayClusterConfig"]["rayVersion"] == "2.58.1"
    assert application(manifest["serveConfigV2"]) == application(emitted.stdout)


@pytest.mark.slow
def test_the_operators_ray_and_image_go_into_kubernetes_specs_alone(emit: Emit, tmp_path: Path) -> None:
    studied(tmp_path, ray_record(TP2), TP2)
    given = ("--ray-version", "2.61.0", "--image", "own/vllm:1")
    values = yaml.safe_load(emit("--format", "helm-values", *given).stdout)["serving"]
    assert (values["rayVersion"], values["image"]) == ("2.61.0", "own/vllm:1")
    assert values["annotations"]["parlay/ray-version"] == "given by the operator; measured: 2.58.1"
    assert isinstance(emit("--format", "vllm", *given).exception, BadInput)


def test_the_request_leaves_as_a_layout_request(emit: Emit, tmp_path: Path) -> None:
    studied(tmp_path, ray_record(TP2), TP2)
    document = yaml.safe_load(emit("--format", "layoutrequest", "--image", "registry/vllm:7").stdout)
    assert document["kind"] == "LayoutRequest"
    assert document["spec"]["target"] == {"image": "registry/vllm:7"}
    assert parse_request(document["spec"]["request"]).slo


@pytest.mark.slow
def test_a_study_without_records_is_recomputed_and_says_so(emit: Emit, tmp_path: Path) -> None:
    studied(tmp_path, None, TP2)
    emitted = emit("--format", "rayservice")
    said = "Recomputed for a study that kept no record of its launches; begun on Ray 2.58.1, vLLM 0.26.0"
    assert f"parlay: study s: {said}" in emitted.stderr
    assert f"# {said}\n" in emitted.stdout
    manifest = yaml.safe_load(emitted.stdout)
    assert manifest["spec"]["rayClusterConfig"]["rayVersion"] == "2.58.1"
    assert manifest["metadata"]["annotations"]["parlay/ray-version"] == "from the study"
    assert str(tmp_path / "now" / "tiny") in manifest["spec"]["serveConfigV2"]


@pytest.mark.slow
@pytest.mark.parametrize("launched", [local_record(UNI), None], ids=["recorded", "of an older Parlay"])
def test_a_local_process_leaves_its_command_line_alone(emit: Emit, tmp_path: Path, launched: Launched | None) -> None:
    """Ray Serve cannot run this layout at all: to write it down for Ray Serve failed after everything was measured."""
    store = studied(tmp_path, launched, UNI)
    assert "--distributed-executor-backend uni" in emit().stdout
    refused = emit("--format", "ray-serve").exception
    assert isinstance(refused, BadInput)
    assert "allowed: vllm; " in str(refused)
    record = store.study("s")
    written = write_results(tmp_path / "results", store, record, decision_of(store, record)[0])
    files = {kind: Path(path) for kind, path in written.files.items()}
    assert sorted(files) == ["decision", "report", "vllm"]
    winner = json.loads(files["decision"].read_text())["winner"]
    told = launched and {"launcher": "local-process", "versions": {"vllm": "0.26.0"}, "model_source": "/then/tiny"}
    assert winner["launched"] == told
    assert ("/then/tiny" in files["report"].read_text()) == (launched is not None)


def test_the_reports_command_of_helm_leaves_the_service_of_that_release_alone() -> None:
    """Helm forgets what a release was told, unless it is asked not to; the release of that name has the service."""
    _, command = USES["helm-values"]
    page = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    assert command.startswith("helm upgrade --install parlay ")
    assert "helm upgrade --install parlay " in page
    assert "--reuse-values" in command.split()
