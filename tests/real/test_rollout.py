"""One deployment of a real engine takes another's place on a real Ray Serve, under load, and no request is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.launch.niceness import own_ray
from serve.launch.processes import end, free_port, writers_under
from tests.launcher_contract import eventually
from tests.real.test_launchers import refused

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a Ray that somebody else started; an engine takes one of its cores, and each application a little."""
    port, scratch = free_port(), Path(tempfile.mkdtemp(prefix="ray-"))
    words = f"start --head --block --num-cpus=4 --port={port} --include-dashboard=false --temp-dir={scratch}".split()
    command = [str(Path(sys.executable).with_name("ray")), *words, "--object-store-memory=100000000"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | own_ray()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment):
        yield f"127.0.0.1:{port}"
        end(writers_under([scratch]), patience_s=5)
    shutil.rmtree(scratch, ignore_errors=True)


def test_a_good_one_is_promoted_and_a_slow_one_taken_back_and_no_request_fails(
    cluster: str, tiny_model: Path, tmp_path: Path
) -> None:
    assert eventually(30, lambda: not refused(cluster))
    words = [sys.executable, "-m", "tests.real.rollout_driver", cluster, str(tmp_path), str(tiny_model)]
    done = subprocess.run(
        words, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, good, slow = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps([first, good, slow], indent=1))
    assert (first["step"], first["shares"]) == ("done", {first["new"]: 1.0})
    assert (good["step"], good["shares"], good["there"]) == ("done", {good["new"]: 1.0}, {good["new"]: "ready"})
    assert good["outcome"].startswith("it is not worse")
    assert good["failed"] == 0
    assert good["by_new"] >= 20
    assert (slow["step"], slow["shares"], slow["there"]) == ("rolled_back", {good["new"]: 1.0}, {good["new"]: "ready"})
    assert slow["outcome"].startswith("it is worse")
    assert slow["failed"] == 0
