"""The image of the service without a container engine: its steps in folders of ours, its entry point confined.

Where this machine lets us (root, with namespaces), all is read-only to it but the data and its home, as in a pod, and
it runs as the image's user, who may read everything here, since the interpreter may lie in somebody's home.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_USER = "10001"
_CONFINE = """
mount --make-rprivate /
for kept in "$1" "$2"; do mount --bind "$kept" "$kept"; done
mount -o remount,ro,bind /
grep -q " $3 " /proc/self/mounts && mount -o remount,ro,bind "$3"
shift 3
exec setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all,+dac_read_search \\
  --ambient-caps=-all,+dac_read_search -- "$@"
""".replace("{user}", _USER)


@dataclass(frozen=True)
class BuiltService:
    """``folder`` has what the image has: ``opt`` and ``data``; ``scratch`` is its /tmp."""

    folder: Path
    steps: tuple[str, ...]
    confined: bool

    @classmethod
    def of(cls, dockerfile: Path, folder: Path) -> BuiltService:
        """Run the steps of the first stage; raises AssertionError for one that fails."""
        text = dockerfile.read_text(encoding="utf-8")
        build, _, final = text.partition("\nFROM ${PYTHON_IMAGE}\n")
        steps = re.findall(r"^RUN (.*)$", build, re.M)
        minor = re.findall(r"^ARG PYTHON_IMAGE=python:(3\.\d+)-slim$", text, re.M)[0]
        assert f"USER {_USER}:{_USER}" in final
        here = {"/opt/": f"{folder}/opt/", "/wheels": f"{folder}/wheels", "/data": f"{folder}/data", "/src": str(ROOT)}
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        kept = ("PIP_", "SSL_", "HTTPS_")
        environment |= {name: value for name, value in os.environ.items() if name.startswith(kept)}
        for step in steps:
            for theirs, ours in here.items():
                step = re.sub(rf"(?<=[ ]){re.escape(theirs)}|^{re.escape(theirs)}", ours, step)
            step = re.sub(r"^python ", f"{python(minor)} ", step)
            done = subprocess.run(["sh", "-c", step], capture_output=True, text=True, env=environment, cwd=folder)
            assert done.returncode == 0, f"{step}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        made = cls(folder, tuple(steps), False)
        made.scratch.mkdir()
        can = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("setpriv")
        confined = cls(folder, made.steps, True)
        if can and confined.run("--help").returncode == 0:
            for path in (made.data, made.scratch):
                shutil.chown(path, int(_USER), int(_USER))
            return confined
        return made

    @property
    def data(self) -> Path:
        """/var/lib/parlay of the image."""
        return self.folder / "data"

    @property
    def scratch(self) -> Path:
        """/tmp of its pod."""
        return self.folder / "scratch"

    def files(self) -> dict[str, int]:
        """When whatever the image is made of was last written."""
        return {str(path): path.stat().st_mtime_ns for path in (self.folder / "opt").rglob("*")}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The entry point, to its end."""
        return subprocess.run(
            self._words(*words), capture_output=True, text=True, env=self._environment, cwd=self.folder, timeout=120
        )

    @contextmanager
    def serving(self, *words: str) -> Iterator[str]:
        """``parlay serve`` as the image starts it, at a port of this machine."""
        log = self.folder / "service.log"
        command = self._words("serve", "--out", str(self.data), "--port", "0", *words)
        with log.open("w") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=self._environment, cwd=self.data
            )
        try:
            while not (found := re.search(r"serving (\S+)", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()

    def _words(self, *words: str) -> list[str]:
        parlay = [str(self.folder / "opt" / "parlay" / "bin" / "parlay"), *words]
        if not self.confined:
            return parlay
        kept = [str(self.data), str(self.scratch), str(ROOT)]
        return ["unshare", "--mount", "bash", "-ec", _CONFINE, "confine", *kept, *parlay]

    @property
    def _environment(self) -> dict[str, str]:
        """That of the image, and nothing of ours."""
        path = f"{self.folder / 'opt' / 'parlay' / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        home = str(self.scratch)
        return {"PATH": path, "HOME": home, "TMPDIR": home, "NUMBA_CACHE_DIR": f"{home}/numba", "PYTHONUNBUFFERED": "1"}


def python(minor: str) -> Path:
    """An interpreter of that version, where this machine has one; else the one that runs the tests."""
    shims = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{minor}.*/bin/python"))
    for path in (*filter(None, [shutil.which(f"python{minor}")]), *shims):
        said = subprocess.run(
            [path, "-c", "import sys, venv, ensurepip; print(sys.version)"], capture_output=True, text=True
        )
        if said.returncode == 0 and said.stdout.startswith(f"{minor}."):
            return Path(path)
    return Path(sys.executable)
