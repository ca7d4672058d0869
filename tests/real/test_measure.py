"""``parlay measure`` against a real vLLM: lengths, the engine's own figures, chats, sessions, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serve.launch.local_launcher import LocalProcessLauncher
from tests.real.conftest import request_for
from tuner.ask.layout import ParallelLayout
from tuner.trial.seams import LaunchOrder, RunningDeployment, Watch

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
LENGTHS = ("--prompt-tokens", "32", "--output-tokens", "8", "--seconds", "3", "--warmup-seconds", "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[RunningDeployment]:
    root = tmp_path_factory.mktemp("measured")
    launcher = LocalProcessLauncher(None, state_dir=root / "state")
    layout = ParallelLayout(executor="uni")
    order = LaunchOrder("measured", 0, "measured", layout, request_for(tiny_model), root / "logs")
    yield launcher.launch(order, Watch())
    launcher.close()


def measure(server: RunningDeployment, *words: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "tuner.app.cli.commands", "measure", server.url, "--json", *LENGTHS, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_window_has_the_engines_own_figures_and_exact_prompts(server: RunningDeployment, tmp_path: Path) -> None:
    out, page = tmp_path / "requests.jsonl", tmp_path / "report.html"
    words = ("--rate", "4", "--slo", "ttft:p50:60000", "--requests-out", str(out), "--report", str(page))
    _, found = measure(server, *words, "--whole-windows")
    assert found["failed"] == 0
    assert {(one["counted_prompt_tokens"], one["output_tokens"]) for one in records(out)} == {(32, 8)}
    engine = found["engine"]
    assert (engine["missing"], engine["preemptions"]) == (None, 0)
    assert None not in (engine["waiting_mean"], engine["running_max"], engine["kv_cache_share_max"])
    assert page.stat().st_size > 1e6


def test_a_target_that_none_meets_ends_with_code_3(server: RunningDeployment) -> None:
    code, found = measure(server, "--users", "2", "--slo", "ttft:p50:0.001")
    assert (code, found["meets_slo"]) in {(3, False), (1, None)}  # 1: other work on the machine made the client late
    assert found["load"]["users"] == 2


def test_chats_have_exactly_the_asked_tokens(server: RunningDeployment, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "requests.jsonl"
    _, found = measure(server, "--users", "1", "--chat", "--tokenizer", str(tiny_model), "--requests-out", str(out))
    assert {one["counted_prompt_tokens"] for one in records(out)} == {32}
    assert (found["protocol"], found["failed"]) == ("chat", 0)


def test_the_turns_of_a_session_find_their_conversation_in_the_prefix_cache(
    server: RunningDeployment, tmp_path: Path
) -> None:
    trace, out = tmp_path / "trace.csv", tmp_path / "requests.jsonl"
    turns = "".join(f"{turn},{128 + 32 * turn},8,a\n" for turn in range(4))
    trace.write_text("timestamp,prompt_tokens,output_tokens,session\n" + turns)
    _, found = measure(server, "--trace", str(trace), "--trace-speed", "2", "--requests-out", str(out))
    assert found["failed"] == 0
    sent = records(out)
    assert all(after["sent_s"] >= before["end_s"] for before, after in pairwise(sent))
    assert found["engine"]["prefix_hit_share"] == pytest.approx(3 * 128 / 704)  # vLLM's blocks hold 128 tokens on CPUs
