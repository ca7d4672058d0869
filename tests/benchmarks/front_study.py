"""What a choice of the path is worth on the real stack: one engine, behind Ray Serve as it is and behind the best path.

    python -m tests.benchmarks.front_study [--case short|demo] [--out FILE]

Two studies of real Ray Serve and vLLM (CPU) by ``parlay tune``, with the same model, load and SLO. In the first the
path is fixed to Ray Serve's default, token by token; in the second the search may choose it. ``short``: prompts of 32
and answers of 64 tokens of the smallest model, an engine fast enough that the path is the limit. ``demo``: the load and
the model of ``make demo`` on one core, where the engine is. Takes some 4 minutes on two cores, alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from serve.tiny_model import build_tiny_model
from tuner.ask.layout import FRONTS

ROOT = Path(__file__).parents[2]
RATES = (2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0)
ENGINE = {"tp": [1], "dp": [1], "max_num_batched_tokens": [1024]}
FIXED = {"front": ["ray_serve"], "stream_interval_ms": [0]}
OPEN = {"front": [front for front in FRONTS if front.startswith("ray_")], "stream_interval_ms": [0, 50]}
SHORT: dict[str, Any] = {
    "workload": {
        "prompt_tokens": {"mean": 32},
        "output_tokens": {"mean": 64},
        "arrival": {"process": "poisson", "requests_per_s": 8},
    },
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 500}, {"metric": "tpot", "percentile": 90, "ms": 50}],
    "engine": {"dtype": "bfloat16", "max_model_len": 256, "start_timeout_s": 180},
    "load": {"rates_req_per_s": RATES, "seconds": 10, "warmup_seconds": 3},
}


def asked(case: str, model: Path, path: dict[str, list[Any]]) -> dict[str, Any]:
    """The request of a case, for one engine behind some paths."""
    demo = yaml.safe_load((ROOT / "demo.yaml").read_text(encoding="utf-8"))
    own = SHORT if case == "short" else {name: demo[name] for name in ("workload", "slo", "engine", "load")}
    return {
        **json.loads(json.dumps(own)),
        "model": str(model),
        "cluster": {"gpu": "cpu", "nodes": 1, "gpus_per_node": 1},
        "objective": "max_goodput",
        "space": ENGINE | path,
        "budget": {"launches": 5, "minutes": 15},
    }


def study(name: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run it; its answer as ``parlay show --json`` gives it. Raises CalledProcessError where it fails."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(request), encoding="utf-8")
    command = [sys.executable, "-m", "tuner.app.cli.commands"]
    subprocess.run([*command, "tune", str(file), "--study", name, "--out", str(folder)], check=True, cwd=ROOT)
    shown = [*command, "show", name, "--out", str(folder), "--json"]
    answer = subprocess.run(shown, check=True, cwd=ROOT, stdout=subprocess.PIPE).stdout
    found: dict[str, Any] = json.loads(answer)
    return found


def held(answer: dict[str, Any]) -> float:
    """The highest measured rate at which the winner meets the SLO, requests/s; 0: at none."""
    met = [step["rate_req_per_s"] for step in answer["winner"]["steps"] if step["meets_slo"]]
    return max(met, default=0.0)


def table(answers: dict[str, dict[str, Any]]) -> str:
    """Every measured step of each winner, and what each holds."""
    lines = ["| path | layout | requests/s | TTFT p90, ms | TPOT p90, ms | attained | SLO |", "|---" * 7 + "|"]
    for name, answer in answers.items():
        for step in answer["winner"]["steps"]:
            lines.append(
                f"| {name} | {answer['winner']['layout']} | {step['rate_req_per_s']:g} | {step['ttft_ms']['p90']:.0f} "
                f"| {step['tpot_ms']['p90']:.1f} "
                f"| {step['attainment']:.0%} | {'met' if step['meets_slo'] else 'missed'} |"
            )
    before, after = (held(answer) for answer in answers.values())
    launches = ", ".join(f"{name} {answer['spent']['launches']}" for name, answer in answers.items())
    lines += [
        "",
        f"SLO held up to {before:g} and {after:g} requests/s: {after / before:.2f} times. Launches: {launches}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run both studies, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("short", "demo"), default="short")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="front-study-") as scratch:
        folder = Path(scratch)
        model = build_tiny_model(folder / "model", "test" if options.case == "short" else "demo")
        paths = {"Ray Serve as it is": FIXED, "chosen": OPEN}
        answers = {
            name: study(name.split()[0].lower(), asked(options.case, model, path), folder)
            for name, path in paths.items()
        }
    text = table(answers)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
