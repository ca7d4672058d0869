"""What planning costs: the whole command, candidates priced per second and core, memory, and parameters per profile.

    python -m tests.benchmarks.planning

Needs an installed ``parlay`` beside this Python. Every space is planned in a process of its own, whose peak resident
memory is printed with it. Targets are printed beside the figures; nothing fails on a slow machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.profile import PROFILE_DIR, load_profile
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.space import load_space
from tuner.cost.breakdown import breakdown
from tuner.cost.latency import StepCosts
from tuner.plan.prune import plan

RUNS = 5
COMMAND_TARGET_S = 0.5
CANDIDATES_TARGET_PER_S = 1e6
MEMORY_TARGET_GIB = 1.0
PARAMETERS_TARGET, USED_TARGET = 120, 40
MIN_CANDIDATES = 1_000_000

_POWERS = (1, 2, 4, 8, 16, 32, 64)
_EXECUTORS = ("mp", "ray")
# name: (model, nodes of 8 H100, axes); each has at least a million candidates.
SPACES: Mapping[str, tuple[str, int, Mapping[str, Sequence[Any]]]] = {
    "few structures, many knobs": (
        "Qwen/Qwen3-32B",
        2,
        {
            "tp": _POWERS[:5], "pp": _POWERS[:4], "dp": _POWERS[:5], "executor": _EXECUTORS,
            "max_num_batched_tokens": range(256, 25_601, 256), "max_num_seqs": range(8, 401, 8),
        },
    ),
    "dense, 512 GPUs, any pp and dp": (
        "meta-llama/Llama-3.1-405B",
        64,
        {
            "tp": _POWERS, "pp": range(1, 65), "dp": range(1, 65), "executor": _EXECUTORS,
            "max_num_batched_tokens": range(2048, 16_385, 2048), "max_num_seqs": (64, 128, 256, 512),
        },
    ),
    "experts, 128 GPUs": (
        "deepseek-ai/DeepSeek-V3",
        16,
        {
            "tp": _POWERS[:5], "pp": _POWERS[:5], "dp": (*_POWERS, 128), "ep": (False, True),
            "all2all": ("allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency"),
            "executor": _EXECUTORS,
            "max_num_batched_tokens": range(1024, 32_769, 1024), "max_num_seqs": range(16, 513, 16),
        },
    ),
    "context parallel, 64 GPUs": (
        "deepseek-ai/DeepSeek-V3",
        8,
        {
            "tp": _POWERS[:6], "pp": (1, 2, 3, 4, 6, 8), "dp": _POWERS[:4], "dcp": _POWERS[:4], "pcp": _POWERS[:4],
            "executor": _EXECUTORS,
            "max_num_batched_tokens": range(1024, 32_769, 1024), "max_num_seqs": range(16, 129, 16),
        },
    ),
}  # fmt: skip
# What one layout uses is counted for these: (model, layout).
PRICED = (
    ("meta-llama/Llama-3.1-8B", "tp=1"),
    ("Qwen/Qwen3-32B", "tp=4"),
    ("Qwen/Qwen3-32B", "tp=8,pp=2,executor=ray"),
    ("deepseek-ai/DeepSeek-V3", "tp=1,dp=16,ep=true,executor=ray"),
)


def request_document(model: str = "Qwen/Qwen3-32B", nodes: int = 2, space: object = "dense") -> dict[str, Any]:
    """A chat workload for ``model`` on ``nodes`` nodes of 8 H100; by default the one of the command's target."""
    return {
        "model": model,
        "cluster": {"gpu": "h100_sxm", "nodes": nodes, "gpus_per_node": 8},
        "workload": {"prompt_tokens": 1024, "output_tokens": 128, "arrival": {"requests_per_s": 8}},
        "slo": [{"metric": "ttft", "percentile": 99, "ms": 1500}, {"metric": "tpot", "percentile": 99, "ms": 60}],
        "space": space,
    }


def time_command(cold: bool) -> tuple[float, float]:
    """(median wall, median CPU) seconds of ``parlay plan`` as a process of its own, over ``RUNS`` runs.

    ``cold``: before every run, the files of this environment leave the page cache.
    """
    parlay = Path(sys.executable).with_name("parlay")
    walls, cpus = [], []
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder, "request.yaml")
        request.write_text(yaml.safe_dump(request_document()), encoding="utf-8")
        for _ in range(RUNS):
            if cold:
                _drop_from_page_cache()
            before, started = _children_cpu_s(), time.perf_counter()
            subprocess.run([parlay, "plan", request, "--json"], check=True, stdout=subprocess.DEVNULL)
            walls.append(time.perf_counter() - started)
            cpus.append(_children_cpu_s() - before)
    return statistics.median(walls), statistics.median(cpus)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _drop_from_page_cache() -> None:
    """Ask the kernel to forget what it holds of our packages and of the libraries that planning imports."""
    import numpy

    site, ours = Path(numpy.__file__).parents[1], PROFILE_DIR.parent
    libraries = ("numpy", "numpy.libs", "pydantic", "pydantic_core", "rich", "typer", "yaml", "_yaml")
    for folder in (ours, *(site / name for name in libraries)):
        for path in folder.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def price_space(name: str) -> dict[str, float]:
    """Plan one of ``SPACES`` in this process: candidates, those that the rules let through, CPU seconds, peak bytes."""
    model, nodes, axes = SPACES[name]
    request = parse_request(request_document(model, nodes, {axis: list(values) for axis, values in axes.items()}))
    shape, cluster, space = load_model(model), _cluster(request), load_space(request.space)
    started = time.process_time()
    found = plan(request, shape, cluster, space)
    cpu_s = time.process_time() - started
    unpriced = ("placement", "executor", "attention_heads", "kv_heads", "layers", "mlp_width", "context_parallel")
    illegal = sum(group.count for group in found.dropped if group.reason.value in unpriced)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "candidates": found.candidates, "priced": found.candidates - illegal, "cpu_s": cpu_s, "peak_bytes": peak_bytes
    }  # fmt: skip


def _cluster(request: TuneRequest) -> Cluster:
    assert request.cluster != "ray"
    return Cluster.from_spec(request.cluster)


def leaves(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all numbers of a profile."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)


def parameters(profile: str) -> tuple[int, int]:
    """(numbers in the profile's file and in those of its relatives that it takes over, those that were fitted)."""
    document = _document(profile)
    found = list(leaves(document))
    return len(found), sum(map(is_fitted, found))


def is_fitted(path: tuple[str, ...]) -> bool:
    """Is this number of a profile one of ours (fitted or assumed), not of a datasheet?"""
    return len(path) > 1 and path[0] not in ("peak_flops_per_s", "nvlink")


def used_parameters(model: str, layout: str, profile: str = "h100_sxm") -> list[tuple[str, ...]]:
    """Numbers of the profile that TTFT or TPOT of a layout depends on: each is changed by 1 %, the layout repriced."""
    document = _document(profile)
    given = _prices(document, model, layout)
    used = []
    for path in leaves(document):
        changed = copy.deepcopy(document)
        place: Any = changed
        for key in path[:-1]:
            place = place[key]
        exact = isinstance(place[path[-1]], int)
        place[path[-1]] = place[path[-1]] + 1 if exact else place[path[-1]] * 1.01
        if _prices(changed, model, layout) != given:
            used.append(path)
    return used


def _prices(document: Mapping[str, Any], model: str, layout: str) -> object:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(dict(document), file)
        file.flush()
        request = parse_request(request_document(model))
        cluster = Cluster(load_profile(file.name), 2, 8, str(document["fabric"]))
        split = breakdown(StepCosts(load_model(model), cluster), ParallelLayout.parse(layout), request)
    return split.ttft_ms, split.tpot_ms


def _document(profile: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((PROFILE_DIR / f"{profile}.yaml").read_text(encoding="utf-8"))
    relative = document.pop("efficiencies_from", None)
    return {**_document(relative), **document} if relative else document


def _against(figure: float, target: float, at_most: bool) -> str:
    return "met" if (figure <= target if at_most else figure >= target) else "missed"


def main() -> None:
    """Print all figures, or as JSON those of one space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=tuple(SPACES), help=argparse.SUPPRESS)
    name = parser.parse_args().space
    if name is not None:
        print(json.dumps(price_space(name)))
        return
    print(f"parlay plan, Qwen3-32B on 16 H100, median of {RUNS} (target {COMMAND_TARGET_S} s)")
    for label, cold in (("warm", False), ("cold", True)):
        wall_s, cpu_s = time_command(cold)
        print(f"  {label}: {wall_s:.2f} s, of which CPU {cpu_s:.2f} s: {_against(wall_s, COMMAND_TARGET_S, True)}")
    print(f"space: candidates, those priced, candidates per second and core (target {CANDIDATES_TARGET_PER_S:g}), peak")
    for name in SPACES:
        command = [sys.executable, "-m", "tests.benchmarks.planning", "--space", name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert found["candidates"] >= MIN_CANDIDATES
        per_s, gib = found["candidates"] / found["cpu_s"], found["peak_bytes"] / 2**30
        print(
            f"  {name:32} {found['candidates']:9,d} {found['priced']:9,d} {per_s:12,.0f}/s "
            f"{_against(per_s, CANDIDATES_TARGET_PER_S, False)}; {found['priced'] / found['cpu_s']:11,.0f} priced/s; "
            f"{gib:.2f} GiB (target {MEMORY_TARGET_GIB:g}) {_against(gib, MEMORY_TARGET_GIB, True)}"
        )
    print(f"parameters per profile (target {PARAMETERS_TARGET}): in all, of which fitted or assumed")
    for path in sorted(PROFILE_DIR.glob("*.yaml")):
        count, fitted = parameters(path.stem)
        print(f"  {path.stem:16} {count:4d} {fitted:4d} {_against(count, PARAMETERS_TARGET, True)}")
    print(f"of those of h100_sxm, used by one layout (target {USED_TARGET}): in all, of which fitted or assumed")
    for model, layout in PRICED:
        used = used_parameters(model, layout)
        fitted = sum(map(is_fitted, used))
        print(f"  {model:28} {layout:36} {len(used):3d} {fitted:3d} {_against(len(used), USED_TARGET, True)}")


if __name__ == "__main__":
    main()
