"""Emitted specs: unchanged golden files, accepted by Ray's and KubeRay's own schemas, one source for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy.specs.holes import paths
from deploy.specs.pods import RAY_CLUSTER, chart_template
from deploy.specs.rayservice import Platform, kubernetes_name
from deploy.specs.shipment import FORMATS, Shipment
from deploy.specs.site_values import SITE_DEFAULTS
from deploy.specs.writing import FILES, emit, write_all, write_whole
from serve.launch.engine import engine_kwargs, environment, vllm_args
from tests import crd
from tests.spec_cases import CASES, Case, make_case
from tuner.ask.deployment import TwoPools
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput, ParlayError
from tuner.trial.launched import Launched, NoEngine, RayApplication, VllmServer

CHART = Path(__file__).parents[2] / "helm" / "parlay"
GOLDEN = Path(__file__).parents[1] / "golden"
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def emitted(case: Case, spec_format: str) -> str:
    return emit(spec_format, case.shipment, case.platform)


@EACH
@pytest.mark.parametrize("spec_format", FORMATS)
def test_golden_file(case: Case, spec_format: str) -> None:
    """Renew with PARLAY_UPDATE_GOLDEN=1, and read the difference before it is committed."""
    path = GOLDEN / case.name / FILES[spec_format]
    if os.environ.get("PARLAY_UPDATE_GOLDEN") == "1":
        write_whole(path, emitted(case, spec_format))
    assert emitted(case, spec_format) == path.read_text(encoding="utf-8")


def test_the_chart_has_the_pods_of_the_emitted_manifest() -> None:
    """Renewed as the golden files are: the chart's template is written from the pods, never by hand."""
    path = CHART / "templates" / "_cluster.tpl"
    if os.environ.get("PARLAY_UPDATE_GOLDEN") == "1":
        write_whole(path, chart_template())
    assert path.read_text(encoding="utf-8") == chart_template()


def test_pods_ask_for_values_that_the_chart_knows() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    serving = schema["properties"]["serving"]["properties"]
    kinds = serving["gpuTypes"]["additionalProperties"]["properties"]
    scopes = {"serving": serving, "group": serving["workerGroups"]["items"]["properties"], "kind": kinds}
    for path in paths(RAY_CLUSTER) - {"entry"}:  # of a list, whatever it holds
        scope, name, *inner = path.split(".")
        assert name in scopes[scope], path
        assert not inner or inner[0] in scopes[scope][name]["properties"], path


def test_a_site_that_sets_nothing_gets_the_same_from_the_chart_and_from_an_emitted_manifest() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["serving"]
    assert {name: values[name] for name in SITE_DEFAULTS} == SITE_DEFAULTS
    assert not SITE_DEFAULTS.keys() & yaml.safe_load(emitted(CASES[0], "helm-values"))["serving"].keys()


@pytest.mark.slow
@EACH
def test_ray_accepts_the_config_and_it_is_what_was_launched(case: Case) -> None:
    schema = pytest.importorskip("ray.serve.schema")
    document = yaml.safe_load(emitted(case, "ray-serve"))
    assert document == {"applications": [case.app]}
    assert schema.ServeDeploySchema.model_validate(document).applications[0].args == case.app["args"]


@pytest.mark.slow
@EACH
def test_kuberay_accepts_the_manifest(case: Case) -> None:
    manifest = yaml.safe_load(emitted(case, "rayservice"))
    assert crd.problems(manifest) == []
    assert manifest["spec"]["serveConfigV2"] == emitted(case, "ray-serve")


@pytest.mark.slow
def test_the_check_of_manifests_sees_a_misspelt_field_and_a_wrong_type() -> None:
    manifest = yaml.safe_load(emitted(CASES[0], "rayservice"))
    manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replica"] = 2
    manifest["spec"]["rayClusterConfig"]["enableInTreeAutoscaling"] = "no"
    found = crd.problems(manifest)
    assert len(found) == 2
    assert any("'replica' was unexpected" in problem for problem in found)


@pytest.mark.parametrize(
    ("layout", "per_node", "groups"),
    [
        ("tp=4,pp=1,dp=2", 8, [(2, 4)]),
        ("tp=1,pp=1,dp=1", 8, [(1, 1)]),
        ("tp=8,pp=2,dp=3,executor=ray", 8, [(6, 8)]),
        ("tp=4,pp=3,dp=2,executor=ray", 8, [(2, 8), (2, 4)]),
        ("tp=1,pp=1,dp=16,ep=true,executor=ray", 8, [(2, 8)]),
        ("tp=3,pp=1,dp=5,ep=true,executor=ray", 8, [(2, 6), (1, 3)]),
        ("tp=8,pp=2,dp=2,ep=true,executor=ray", 8, [(4, 8)]),
    ],
)
def test_workers_hold_what_a_replica_uses_of_a_node(layout: str, per_node: int, groups: list[tuple[int, int]]) -> None:
    case = make_case("a", layout, model="m/x", gpu="h100_sxm", nodes=8, per_node=per_node)
    cluster = yaml.safe_load(emitted(case, "rayservice"))["spec"]["rayClusterConfig"]
    found = []
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        found.append((group["replicas"], int(resources["limits"]["nvidia.com/gpu"])))
    assert found == groups
    assert sum(pods * gpus for pods, gpus in found) == case.layout.devices


def test_a_cpu_layout_asks_for_no_gpu() -> None:
    case = next(case for case in CASES if case.name == "cpu")
    text = emitted(case, "rayservice")
    assert "gpu" not in text.replace(case.request.model, "").lower()
    container = yaml.safe_load(text)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"][
        "containers"
    ][0]
    assert int(container["resources"]["limits"]["cpu"]) >= case.layout.devices_per_replica


@EACH
def test_pods_are_unprivileged_and_carry_no_secret(case: Case) -> None:
    cluster = yaml.safe_load(emitted(case, "rayservice"))["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            token = next(variable for variable in container["env"] if variable["name"] == "HF_TOKEN")
            assert "value" not in token
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
            assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] == 600
            assert {port["protocol"] for port in container["ports"]} == {"TCP"}


def run_by_sh(text: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """What a shell makes of a script: the words after the program's name, and the environment."""
    for program in ("vllm", "python3"):
        path = folder / program
        path.write_text(
            f"#!{sys.executable} -IS\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n",
            encoding="utf-8",
        )
        path.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh"], input=text, env={"PATH": str(folder)}, capture_output=True, text=True, check=True
    )
    words, environment = json.loads(done.stdout)
    return words, environment


@pytest.mark.slow
@EACH
def test_the_command_line_says_what_the_engine_was_given(case: Case, tmp_path: Path) -> None:
    words, environment = run_by_sh(emitted(case, "vllm"), tmp_path)
    config = case.app["args"].get("llm_config") or case.app["args"]["llm_configs"][0]
    assert config["runtime_env"]["env_vars"].items() <= environment.items()
    assert case.source in words
    for name, value in engine_kwargs(case.layout, case.request).items():
        flag = words.index("--" + name.replace("_", "-"))
        if not isinstance(value, bool):
            assert words[flag + 1] == (json.dumps(value) if isinstance(value, dict) else str(value))


def test_a_name_cannot_become_a_shell_word(tmp_path: Path) -> None:
    model = "/m/it's $(touch owned) `touch owned`; touch owned\ntouch owned #"
    case = make_case("a", "tp=1,pp=1,dp=1", model=model, gpu="h100_sxm", nodes=1, per_node=1)
    words, _ = run_by_sh(emitted(case, "vllm"), tmp_path)
    assert words[:2] == ["serve", model]


@pytest.mark.slow
@given(model=st.text(min_size=1, max_size=30))
def test_no_model_name_escapes_its_comment_or_its_quotes(model: str) -> None:
    case = make_case("a", "tp=1,pp=1,dp=1", model=model, gpu="h100_sxm", nodes=1, per_node=1)
    text = emitted(case, "ray-serve")
    assert yaml.safe_load(text) == {"applications": [case.app]}
    assert all(line.startswith("# ") for line in text.splitlines()[:3])


@given(st.text(max_size=80))
def test_kubernetes_names_are_dns_labels(text: str) -> None:
    name = kubernetes_name(text)
    assert 0 < len(name) <= 40
    assert name[0].isalpha()
    assert name[-1] != "-"
    assert all(letter.isascii() and (letter.islower() or letter.isdigit() or letter == "-") for letter in name)


def test_write_all_writes_every_format_and_leaves_nothing_else(tmp_path: Path) -> None:
    case = CASES[0]
    paths = write_all(tmp_path / "out", case.shipment)
    assert list(paths) == list(FORMATS)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES.values())
    assert paths["rayservice"].read_text(encoding="utf-8") == emitted(case, "rayservice")


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    texts = ["a" * 500_000, "b" * 500_000]
    write_whole(path, texts[0])
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text(encoding="utf-8"))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(20):
        write_whole(path, texts[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(texts)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    case = CASES[0]
    with pytest.raises(ParlayError, match="cannot be written"):
        write_all(tmp_path / "file", case.shipment)


def test_bad_input_is_refused() -> None:
    case = CASES[0]
    with pytest.raises(BadInput, match="ray-serve, rayservice, kustomize, helm-values, vllm"):
        emit("docker", case.shipment)
    with pytest.raises(BadInput, match="tp=4,pp=1,dp=2"):
        emit("vllm", replace(case.shipment, deployment=ParallelLayout(tp=2, dp=2)))
    app = case.app
    app["args"]["llm_configs"][0]["runtime_env"]["env_vars"]["HF_TOKEN"] = "hf_secret"
    with pytest.raises(BadInput, match="HF_TOKEN") as refused:
        emit("ray-serve", replace(case.shipment, launched=replace(case.launched, payload=RayApplication(app))))
    assert "hf_secret" not in str(refused.value)


@pytest.mark.parametrize("spec_format", FORMATS)
def test_two_pools_are_written_in_no_format_since_no_launcher_runs_them(spec_format: str) -> None:
    pools = TwoPools(ParallelLayout(tp=4), ParallelLayout(tp=4))
    simulated = Launched("simulated", {}, "m", NoEngine("a simulated cluster"))
    for case in (CASES[0].shipment, replace(CASES[0].shipment, launched=simulated)):
        with pytest.raises(BadInput, match="one engine group; two pools are simulated, not launched yet"):
            emit(spec_format, replace(case, deployment=pools))


def test_ray_and_image_follow_the_measurement_and_the_spec_says_so() -> None:
    case = CASES[0]
    measured = replace(case.launched, versions={"ray": "2.58.1", "vllm": "0.26.0"})
    for spec_format in ("rayservice", "helm-values"):
        text = emit(spec_format, replace(case.shipment, launched=measured))
        assert "2.60" not in text
        assert text.count("rayproject/ray-llm:2.58.1-py312-cu130") >= 2
        assert "# Ray 2.58.1: measured\n" in text
        assert "# Needs: vLLM 0.26.0 in the image (measured)" in text
        assert "# Measured with ray-serve: Ray 2.58.1, vLLM 0.26.0\n" in text
    metadata = yaml.safe_load(emit("rayservice", replace(case.shipment, launched=measured)))["metadata"]
    assert metadata["annotations"]["parlay/ray-version"] == "measured"


@pytest.mark.parametrize("spec_format", ["rayservice", "helm-values"])
def test_the_operator_may_choose_ray_and_image_and_the_spec_says_so(spec_format: str) -> None:
    platform = Platform(ray_version="2.61.0", image="registry/vllm:7")
    text = emit(spec_format, CASES[0].shipment, platform)
    assert 'rayVersion: "2.61.0"' in text
    assert "image: registry/vllm:7" in text
    assert text.count("given by the operator; measured: 2.60.0") == 2  # as a comment, and where kubectl shows it
    assert "# Image registry/vllm:7: given by the operator\n" in text


def test_a_study_that_does_not_know_its_ray_needs_to_be_told() -> None:
    unknown = replace(CASES[0].shipment, launched=replace(CASES[0].launched, versions={}), recomputed=True)
    with pytest.raises(BadInput, match=r"--ray-version: got None; allowed: the version of Ray"):
        emit("rayservice", unknown)
    text = emit("rayservice", unknown, Platform(ray_version="2.61.0"))
    assert "# Ray 2.61.0: given by the operator; measured: unknown\n" in text
    assert "# Recomputed for a study that kept no record of its launches; begun on unknown versions\n" in text


@pytest.mark.parametrize(
    ("changes", "where"),
    [({"ray_version": "latest"}, "--ray-version"), ({"image": "a b"}, "--image"), ({"image": ""}, "--image")],
)
def test_what_is_no_version_or_no_image_is_refused(changes: dict[str, str], where: str) -> None:
    with pytest.raises(BadInput, match=where):
        Platform(**changes)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("vllm", {"name": "vllm", "newTag": "latest"}),
        ("registry:5000/a/vllm", {"name": "registry:5000/a/vllm", "newTag": "latest"}),
        ("registry:5000/a/vllm:7", {"name": "registry:5000/a/vllm", "newTag": "7"}),
        ("registry/vllm:7@sha256:ab", {"name": "registry/vllm", "digest": "sha256:ab"}),
    ],
)
def test_kustomize_is_told_the_image_by_its_repository(image: str, said: dict[str, str]) -> None:
    document = yaml.safe_load(emit("kustomize", CASES[0].shipment, Platform(image=image)))
    assert document["resources"] == [FILES["rayservice"]]
    assert document["images"] == [said]


def local(layout: str) -> Shipment:
    """What a vLLM server of its own served, on the loopback."""
    case = make_case("tiny", layout, model="/models/tiny", gpu="h100_sxm", nodes=1, per_node=8)
    words = vllm_args(case.layout, case.request, model_source="/models/tiny", host="127.0.0.1", port=41234)
    server = VllmServer(tuple(words), environment(case.layout, case.request, model_source="/models/tiny"))
    launched = Launched("local-process", {"vllm": "0.26.0"}, "/models/tiny", server)
    return Shipment("tiny", case.layout, case.request, launched)


@pytest.mark.parametrize("layout", ["tp=1,pp=1,dp=1,executor=uni", "tp=2,pp=1,dp=2"])
def test_what_a_local_process_served_leaves_as_its_command_line_alone(layout: str, tmp_path: Path) -> None:
    shipment = local(layout)
    assert list(write_all(tmp_path / "out", shipment)) == ["vllm"]
    text = emit("vllm", shipment)
    assert "# Measured with local-process: vLLM 0.26.0\n" in text
    assert "Ray" not in text
    words, environment = run_by_sh(text, tmp_path)
    served = dict(zip(words, [*words[1:], ""], strict=True))
    assert (words[:2], served["--host"], served["--port"]) == (["serve", "/models/tiny"], "0.0.0.0", "8000")
    assert served["--distributed-executor-backend"] == shipment.layout.executor
    assert environment["HF_HUB_OFFLINE"] == "1"
    for spec_format in ("ray-serve", "rayservice", "kustomize", "helm-values"):
        with pytest.raises(BadInput, match="launched by local-process: no other configuration of it ever ran"):
            emit(spec_format, shipment)


def test_nothing_leaves_a_cluster_without_engines(tmp_path: Path) -> None:
    case = CASES[0]
    shipment = replace(case.shipment, launched=Launched("simulated", {}, "m", NoEngine("simulated cluster, seed 0")))
    assert write_all(tmp_path / "out", shipment) == {}
    with pytest.raises(BadInput, match="allowed: none"):
        emit("vllm", shipment)


def test_a_platform_of_ones_own_is_used() -> None:
    case = CASES[-1]
    text = emitted(case, "rayservice")
    for word in ("example/vllm:1", "amd.com/gpu", "weights", "own-models", "hub", "pool"):
        assert word in text
    assert emit("rayservice", case.shipment, Platform()) != text


@pytest.mark.real
def test_vllm_knows_every_flag_of_the_command_line(tmp_path: Path) -> None:
    """vLLM's own parser reads each command; nothing is started."""
    commands = [run_by_sh(emitted(case, "vllm"), tmp_path)[0] for case in CASES]
    server = "vllm.entrypoints.openai.api_server"
    program = (
        "import json, sys\n"
        "from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "parser = make_arg_parser(FlexibleArgumentParser())\n"
        "for words in json.load(sys.stdin):\n"
        "    parser.parse_args(words)\n"
    )
    plain = [words[2:] if words[:2] == ["-m", server] else ["--model", *words[1:]] for words in commands]
    done = subprocess.run([sys.executable, "-c", program], input=json.dumps(plain), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
