"""The images: linted, locked, listed, and built as far as that goes without a container engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import kube_tools

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
LOCK = IMAGES / "service.lock"


def locked(path: Path = LOCK) -> dict[str, str]:
    """Versions by package."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", path.read_text(encoding="utf-8"), re.M)
    return {canonicalize_name(name): version for name, version in found}


def test_the_lock_has_all_that_parlay_needs_each_with_hashes() -> None:
    """Renewed by deploy/images/lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    have = locked()
    for text in (*project["dependencies"], *extras["ray"], *extras["postgres"], *extras["kubernetes"]):
        needed = Requirement(text)
        assert needed.specifier.contains(have[canonicalize_name(needed.name)]), text
    blocks = re.split(r"\n(?=\S)", LOCK.read_text(encoding="utf-8").strip())
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_nobody_and_its_base_can_be_pinned(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert int(re.findall(r"^USER (\d+):\d+$", text, re.M)[-1]) >= 1000
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert all(re.fullmatch(r"\$\{\w+_IMAGE\}", base) for base in bases)


def test_the_service_starts_without_a_shell() -> None:
    text = (IMAGES / "service.Dockerfile").read_text(encoding="utf-8")
    final = text.rpartition("\nFROM ")[2]
    assert "RUN " not in final
    for word in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(re.findall(rf"^{word} (.*)$", final, re.M)[0]), list)


@pytest.mark.tools
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_no_remark(path: Path) -> None:
    done = subprocess.run([str(kube_tools.hadolint()), str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.tools
@pytest.mark.slow
def test_the_bill_of_materials_names_all_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "sbom.json"
    words = ["requirements", str(LOCK), "--of", "JSON", "-o", str(path)]
    subprocess.run([str(kube_tools.cyclonedx()), *words], check=True, capture_output=True, timeout=120)
    bill = json.loads(path.read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert {canonicalize_name(part["name"]): part["version"] for part in bill["components"]} == locked()


@pytest.mark.tools
@pytest.mark.slow
def test_the_steps_of_the_service_in_clean_environments(tmp_path: Path) -> None:
    """Every RUN of the first stage with folders of ours, then what the entry point is."""
    text = (IMAGES / "service.Dockerfile").read_text(encoding="utf-8")
    steps = re.findall(r"^RUN (.*)$", text.partition("\nFROM ${PYTHON_IMAGE}\n")[0], re.M)
    assert len(steps) >= 8
    folders = {
        "/opt/": f"{tmp_path}/opt/",
        "/wheels": f"{tmp_path}/wheels",
        "/data": f"{tmp_path}/data",
        "/src": str(ROOT),
    }
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTPS_"))}
    for step in steps:
        for ours, here in folders.items():
            step = re.sub(rf"(?<=[ ]){re.escape(ours)}|^{re.escape(ours)}", here, step)
        step = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", step)
        done = subprocess.run(["sh", "-c", step], capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, f"{step}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    parlay = tmp_path / "opt" / "parlay" / "bin" / "parlay"
    read_only = environment | {
        "HOME": str(tmp_path / "scratch"),
        "NUMBA_CACHE_DIR": str(tmp_path / "scratch" / "numba"),
    }
    for words in (
        ["worker", "--help"],
        ["serve", "--help"],
        ["token", "create", "--name", "a", "--out", str(tmp_path / "data")],
    ):
        done = subprocess.run([str(parlay), *words], capture_output=True, text=True, env=read_only, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
