"""The curl lines of a page, run as they stand there against a service."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
README, SERVICE, KUBERNETES = ROOT / "README.md", ROOT / "docs" / "service.md", ROOT / "docs" / "kubernetes.md"


def curl_lines(page: Path) -> list[str]:
    """Of a page's shell blocks, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


def run_line(line: str, folder: Path, url: str, token: str) -> subprocess.CompletedProcess[str]:
    """By a shell in ``folder``, with the two variables that the pages name."""
    environment = {**os.environ, "PARLAY_SERVER": url, "PARLAY_TOKEN": token}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, str]]:
    """``parlay serve`` on the store of ``folder`` as a process, and a token of it."""
    parlay = [sys.executable, "-m", "tuner.app.cli.commands"]
    made = subprocess.run(
        [*parlay, "token", "create", "--name", "me", "--out", str(folder)], capture_output=True, text=True
    )
    log = folder / "service.log"
    with log.open("w") as output:
        process = subprocess.Popen([*parlay, "serve", "--out", str(folder), "--port", "0", *words], stderr=output)
        try:
            while not (found := re.search(r"serving (\S+)", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield found[1], made.stdout.strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
