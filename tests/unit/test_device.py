"""Kinds of devices: told by the profile alone, known to models and launchers, and branched on nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.specs.rayservice import Platform, plan_serving
from deploy.specs.shipment import Shipment
from serve.launch.device import device_of, devices_of
from serve.launch.engine import engine_kwargs, environment, serve_app
from tests.spec_cases import make_case
from tuner.ask.device import ARCHITECTURES, KINDS, kind_of
from tuner.ask.layout import ParallelLayout
from tuner.ask.profile import PROFILE_DIR, known_profiles, load_profile
from tuner.ask.request import ClusterSpec

ROOT = Path(__file__).parents[2]
KNOWS = {ROOT / "tuner/ask/device.py", ROOT / "serve/launch/device.py"}
SOURCES = [path for folder in ("tuner", "serve", "deploy") for path in (ROOT / folder).rglob("*.py")]


@pytest.fixture
def own_cpu(tmp_path: Path) -> str:
    """A profile of another processor, by its path."""
    profile: dict[str, Any] = yaml.safe_load((PROFILE_DIR / "cpu.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "epyc.yaml"
    path.write_text(yaml.safe_dump(profile | {"name": "epyc"}), encoding="utf-8")
    return str(path)


def test_a_cpu_of_its_own_profile_is_launched_and_deployed_as_a_cpu(own_cpu: str) -> None:
    """It was a GPU to the launchers, which went by the profile's name, and a CPU to the models."""
    layout = "tp=2,executor=ray"
    known, own = (make_case("a", layout, model="/m/x", gpu=gpu, nodes=1, per_node=2) for gpu in ("cpu", own_cpu))
    assert own.app == known.app
    shipments: list[Shipment] = [known.shipment, own.shipment]
    pods = [plan_serving(shipment, Platform(), "").values()["workerGroups"] for shipment in shipments]
    assert pods[0] == pods[1]
    assert pods[1][0]["gpus"] == 0


@pytest.mark.parametrize("name", known_profiles())
def test_every_profile_is_of_a_kind_that_can_be_launched(name: str) -> None:
    profile, spec = load_profile(name), ClusterSpec(gpu=name, gpus_per_node=2)
    assert profile.kind in KINDS
    assert kind_of(profile.arch) is profile.kind
    assert devices_of(spec).pods.memory_gib_per_device > 0


def test_an_architecture_is_of_one_kind() -> None:
    assert len(set(ARCHITECTURES)) == len(ARCHITECTURES)
    assert kind_of("riscv") is None


def test_what_a_launch_is_given_is_its_own() -> None:
    """Two launches share no nested document that one of them could change."""
    case = make_case("a", "tp=2", model="m", gpu="cpu", nodes=1, per_node=2)
    first = serve_app("a", case.layout, case.request, model_source="m")
    engine_kwargs(case.layout, case.request)["compilation_config"]["mode"] = "another"
    environment(case.layout, case.request, model_source="m")["OMP_NUM_THREADS"] = "2"
    device_of(case.layout, case.request).bundles(ParallelLayout(tp=2))[0]["CPU"] = 7
    assert serve_app("a", case.layout, case.request, model_source="m") == first


@pytest.mark.slow
def test_no_other_module_asks_which_kind_a_device_is() -> None:
    found = []
    for path in set(SOURCES) - KNOWS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            kinds = {kind.name for kind in KINDS}
            if any(isinstance(side, ast.Constant) and side.value in kinds for side in sides):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found
