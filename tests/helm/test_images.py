"""The images: linted, locked, listed, and built as far as that goes without a container engine."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import kube_tools
from tests.built_service import BuiltService

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
    """By the command of the page, in a folder that is left as it was."""
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^cyclonedx-py .*$", page, re.M)
    path = tmp_path / "sbom.json"
    words = [str(path) if word == "sbom.json" else word for word in shlex.split(line)]
    subprocess.run([str(kube_tools.cyclonedx()), *words[1:]], check=True, capture_output=True, timeout=120, cwd=ROOT)
    bill = json.loads(path.read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert {canonicalize_name(part["name"]): part["version"] for part in bill["components"]} == locked()


@pytest.fixture(scope="module")
def built() -> Iterator[BuiltService]:
    """In a folder that every user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="parlay-image-") as folder:
        Path(folder).chmod(0o755)
        yield BuiltService.of(IMAGES / "service.Dockerfile", Path(folder))


@pytest.mark.tools
@pytest.mark.slow
@pytest.mark.long
def test_the_steps_of_the_service_leave_every_command(built: BuiltService) -> None:
    """Every RUN of the first stage, in folders of ours and by the image's Python where this machine has it."""
    assert len(built.steps) >= 8
    for words in (["serve", "--help"], ["worker", "--help"], ["controller", "--help"], ["token", "--help"]):
        done = built.run(*words)
        assert done.returncode == 0, done.stderr


@pytest.mark.tools
@pytest.mark.slow
@pytest.mark.long
def test_its_entry_point_answers_as_nobody_on_a_read_only_root(built: BuiltService) -> None:
    """Nothing is written but below what is mounted: the data, and /tmp as home."""
    before = built.files()
    token = built.run("token", "create", "--name", "me", "--out", str(built.data))
    assert token.stdout.startswith("parlay_"), token.stderr
    with built.serving("--workers", "1", "--launchers", "simulated") as url:
        for path in ("healthz", "readyz"):
            with urllib.request.urlopen(f"{url}/{path}", timeout=30) as answer:
                assert answer.status == 200
    assert built.files() == before
    assert (built.data / "parlay.db").exists()
    if built.confined:
        assert {path.stat().st_uid for path in built.data.iterdir()} == {10001}
