"""The command line as a person meets it: answers on stdout, one clear line on stderr, and the exit code."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import document
from tuner.app.cli.commands import main

REPO = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run ``parlay WORDS`` in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["parlay", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def written(changes: dict[str, Any] | None = None) -> str:
    """A request file in the current folder with these changes."""
    Path("request.yaml").write_text(yaml.safe_dump(document(changes)))
    return "request.yaml"


@pytest.mark.slow
def test_plan_answers_with_the_documented_keys(run: Run) -> None:
    code, out, _ = run("plan", written(), "--json")
    answer = json.loads(out)
    assert code == 0
    assert set(answer) >= {"candidates", "dropped", "ranked", "seconds"}
    assert set(answer["ranked"][0]) >= {
        "layout", "gpus", "ttft_ms", "tpot_ms", "goodput_req_per_s", "meets_slo", "breakdown",
    }  # fmt: skip
    assert all(set(group) >= {"reason", "count", "example", "figure"} for group in answer["dropped"])
    assert answer["candidates"] == len(answer["ranked"]) + sum(group["count"] for group in answer["dropped"])


@pytest.mark.slow
def test_a_breakdown_sums_to_the_idle_figures(run: Run) -> None:
    answer = json.loads(run("plan", written(), "--json")[1])
    best = answer["ranked"][0]
    for metric in ("ttft_ms", "tpot_ms"):
        assert sum(best["breakdown"][metric].values()) == pytest.approx(best[f"idle_{metric}"])


@pytest.mark.slow
def test_tables_are_shown_to_people(run: Run) -> None:
    code, out, _ = run("plan", written())
    assert code == 0
    assert "out of reach" not in out
    for words in ("candidates priced", "Where the milliseconds go", "Dropped before launch", "tp=1,pp=1,dp=1"):
        assert words in out


@pytest.mark.slow
def test_no_layout_within_the_slo_is_exit_code_3(run: Run) -> None:
    code, out, err = run("plan", written({"workload.arrival.requests_per_s": 1e5}), "--json")
    assert code == 3
    answer = json.loads(out)
    assert answer["ranked"]
    assert answer["infeasible"]["proven"] is True
    assert set(answer["infeasible"]["bounds"][0]) >= {"kind", "best", "needed", "unit", "proven", "layout", "text"}
    assert {change["kind"] for change in answer["infeasible"]["would_take"]} == {"rate"}
    assert "requests/s within the SLO" in err
    assert "more devices" in err


@pytest.mark.slow
def test_people_read_what_would_make_it_feasible(run: Run) -> None:
    code, out, _ = run("plan", written({"slo.0.ms": 2.0}))
    assert code == 3
    assert "out of reach: ttft: one request alone takes" in out
    assert re.search(r"Any of these would do, by the model:\n  a target of \d+ ms for ttft p99 instead of 2", out)


def test_volume_reproduces_the_papers_worked_example(run: Run) -> None:
    words = ["volume", "--model", "meta-llama/Llama-3.1-8B", "--tp", "2", "--pp", "2"]
    code, out, _ = run(*words, "--prompt-tokens", "128", "--output-tokens", "128", "--engine", "v0", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["paper"]["v_hybrid_bytes"]["total"] == 87_441_408
    assert answer["calls_all_ranks"]["prefill"]["send"] == 4
    first = next(op for op in answer["operations"] if op["operation"] == "allreduce" and op["phase"] == "decode")
    assert (first["stage"], first["calls"], first["message_bytes"]) == (0, 4191, 8192)


def test_volume_of_one_device_is_nothing(run: Run) -> None:
    code, out, _ = run("volume", "--model", "meta-llama/Llama-3.1-8B")
    assert code == 0
    assert "nothing is sent" in out


def llama_without_config() -> list[str]:
    Path("bare").mkdir()
    return ["plan", written({"model": "bare"})]


def unknown_architecture() -> list[str]:
    Path("odd").mkdir()
    Path("odd/config.json").write_text('{"architectures": ["NobodyForCausalLM"]}')
    return ["plan", written({"model": "odd"})]


def newer_store() -> list[str]:
    with sqlite3.connect("new.db") as db:
        db.execute("create table parlay_schema (version integer)")
        db.execute("insert into parlay_schema values (99)")
    return ["show", "--store", "sqlite:///new.db"]


MODEL = ["--model", "meta-llama/Llama-3.1-8B"]
BAD_INPUT: dict[str, tuple[Callable[[], list[str]], int, list[str]]] = {
    "unknown key": (lambda: ["plan", written({"colour": "red"})], 2, ["colour", "red", "known keys"]),
    "wrong type": (lambda: ["plan", written({"cluster.nodes": "two"})], 2, ["cluster.nodes", "two", "integer"]),
    "slo of 0 ms": (lambda: ["plan", written({"slo.0.ms": 0})], 2, ["slo.0.ms", "0", "greater than 0"]),
    "percentile 101": (lambda: ["plan", written({"slo.0.percentile": 101})], 2, ["slo.0.percentile", "101", "100"]),
    "no such file": (lambda: ["plan", "nowhere.yaml"], 2, ["nowhere.yaml", "readable"]),
    "no config.json": (llama_without_config, 2, ["model", "bare", "config.json"]),
    "architecture without a price": (unknown_architecture, 2, ["architectures", "NobodyForCausalLM", "have a reader"]),
    "unknown model": (lambda: ["plan", written({"model": "no/such"})], 2, ["model", "no/such", "config.json"]),
    "unknown gpu": (lambda: ["plan", written({"cluster.gpu": "h999"})], 2, ["h999", "h100_sxm"]),
    "tp that divides no heads": (lambda: ["volume", *MODEL, "--tp", "5"], 2, ["tp=5", "32 attention heads"]),
    "no legal layout": (lambda: ["plan", written({"space": {"tp": [3, 5]}})], 2, ["space", "none legal", "heads"]),
    "unknown space": (lambda: ["plan", written({"space": "sparse"})], 2, ["space", "sparse", "dense"]),
    "unknown axis": (lambda: ["plan", written({"space": {"zp": [1]}})], 2, ["space.zp", "max_num_seqs"]),
    "bad layout": (lambda: ["volume", *MODEL, "--layout", "tp=2,qq=3"], 2, ["qq=3", "axis=value"]),
    "unknown engine": (lambda: ["volume", *MODEL, "--engine", "v9"], 2, ["--engine", "v9", "v0, v1"]),
    "unknown launcher": (lambda: ["tune", written(), "--launcher", "slurm"], 2, ["--launcher", "slurm", "ray, local"]),
    "an image for no pod": (
        lambda: ["tune", written(), "--launcher", "local", "--image", "a:1"], 2, ["--image", "a:1", "--launcher ray"],
    ),
    "a version of no Ray": (lambda: ["tune", written(), "--ray-version", "new"], 2, ["--ray-version", "new", "2.60.0"]),
    "store of no kind": (lambda: ["tune", written(), "--store", "mud"], 2, ["--store", "mud", "sqlite:///"]),
    "store in no place": (lambda: ["tune", written(), "--store", "sqlite:////proc/x/y.db"], 1, ["cannot be opened"]),
    "store from a newer version": (newer_store, 1, ["schema version 99", "newer"]),
    "no study yet": (lambda: ["show"], 2, ["--out", "parlay tune"]),
    "ray that does not answer": (
        lambda: ["tune", written(), "--ray-address", "127.0.0.1:1"], 2, ["127.0.0.1:1", "a Ray cluster that answers"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD_INPUT))
def test_bad_input_is_one_clear_line(case: str, run: Run) -> None:
    prepare, expected, words = BAD_INPUT[case]
    code, out, err = run(*prepare())
    assert code == expected, err
    assert out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert lines[-1].startswith("parlay: error: ")
    assert not any("Traceback" in line for line in lines)
    for word in words:
        assert word in lines[-1]


def test_a_metrics_port_in_use_is_refused_before_anything_starts(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = run("tune", written(), "--metrics-port", port)
    assert code == 2
    assert port in err
    assert not list(Path("parlay-out").glob("*/logs/*"))
