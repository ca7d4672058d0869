"""Other load generators, installed on demand at pinned versions and run on the same mock.

Each lives in an environment of its own below ``~/.cache/parlay/peers`` (aiperf 1.2 GB, guidellm 6 GB with its PyTorch)
which pip fills from wherever it is configured to look.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "parlay" / "peers"
LIMIT_S = 300.0


@dataclass(frozen=True)
class Reported:
    """What a load generator says of a flood: requests per second, median TTFT (ms); its wall time (s)."""

    requests_per_s: float
    ttft_p50_ms: float
    wall_s: float


def program(name: str, version: str) -> Path:
    """The installed program."""
    home = ROOT / f"{name}-{version}"
    found = home / "bin" / name
    if not found.exists():
        print(f"installing {name} {version} into {home} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"{name}=={version}"]
        subprocess.run(pip, check=True)
    return found


def run(command: Path, options: str, folder: Path) -> float:
    """Run it; its wall time in seconds. What it printed is shown when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    started_s = time.perf_counter()
    done = subprocess.run(
        [str(command), *options.split()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - started_s


def aiperf(url: str, users: int, seconds: float, tokens: int, tokenizer: Path, folder: Path) -> Reported:
    """aiperf 0.13.0, without its dashboard and its scrapes."""
    wall_s = run(
        program("aiperf", "0.13.0"),
        f"profile --model mock --url {url} --endpoint-type completions --streaming --concurrency {users} --isl 8"
        f" --benchmark-duration {seconds:g} --osl {tokens} --tokenizer {tokenizer} --ui none --export-level summary"
        f" --no-gpu-telemetry --no-server-metrics --artifact-dir {folder}",
        folder,
    )
    found = json.loads((folder / "profile_export_aiperf.json").read_text())
    return Reported(found["request_throughput"]["avg"], found["time_to_first_token"]["p50"], wall_s)


def guidellm(url: str, users: int, seconds: float, tokens: int, tokenizer: Path, folder: Path) -> Reported:
    """guidellm 0.8.1, without its console; it takes the tokenizer from the model's name."""
    answer = folder / "guidellm.json"
    wall_s = run(
        program("guidellm", "0.8.1"),
        f"run --disable-console --tokenizer kind=hf_auto --profile kind=concurrent,streams={users}"
        f" --backend kind=openai_http,target={url},model={tokenizer},request_format=/v1/completions"
        f" --constraint kind=max_duration,seconds={seconds:g} --output kind=json,path={answer}"
        f" --data kind=synthetic_text,prompt_tokens=8,output_tokens={tokens}",
        folder,
    )
    metrics: dict[str, Any] = json.loads(answer.read_text())["benchmarks"][0]["metrics"]
    rate, ttft_ms = (metrics[name]["successful"] for name in ("requests_per_second", "time_to_first_token_ms"))
    return Reported(rate["mean"], ttft_ms["percentiles"]["p50"], wall_s)


PEERS: dict[str, Callable[[str, int, float, int, Path, Path], Reported]] = {"aiperf": aiperf, "guidellm": guidellm}
