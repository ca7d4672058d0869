"""Singhania et al., "LLM Inference Beyond a Single Node" (arXiv 2511.09557): strong scaling and the NVRAR all-reduce.

Llama-3.1-70B and 405B on Perlmutter (4 A100 per node, Slingshot-11) and Vista (one GH200 per node, NDR InfiniBand).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.studies.ordering import Finding, Ordering, falling, rising, shown
from tests.studies.pricing import KIB, Batch, Setting, setting

STUDY = "Singhania et al. 2511.09557"
MACHINES = {"Perlmutter": ("nvrar_perlmutter", 4), "Vista": ("nvrar_vista", 1)}
MODELS = {"70B": "meta-llama/Llama-3.1-70B", "405B": "meta-llama/Llama-3.1-405B"}
GPUS = {"70B": (8, 16, 32), "405B": (16, 32, 64, 128)}
PREFILL_HEAVY, DECODE_HEAVY = (2048, 128), (1024, 2048)
SIZES = tuple(size * KIB for size in (128, 256, 512, 1024, 2048))
BATCH = 16


def machine(name: str, model: str = "405B", lengths: tuple[int, int] = DECODE_HEAVY, nvrar: bool = False) -> Setting:
    """The request of one machine, with or without NVRAR in the engine."""
    what_if = ("nvrar",) if nvrar else ()
    return setting(MACHINES[name][0], MODELS[model], *lengths, what_if=what_if)


def solved(name: str, model: str, scheme: str, gpus: int, lengths: tuple[int, int]) -> Batch:
    """A batch on that many GPUs: ``TP`` over all, or ``PP`` across nodes with TP inside."""
    per_node = MACHINES[name][1]
    tp, pp = (gpus, 1) if scheme == "TP" else (per_node, gpus // per_node)
    return machine(name, model, lengths).batch(tp, pp, BATCH)


def gain(name: str, model: str, gpus: int) -> float:
    """How many times sooner a decode-heavy batch is done with NVRAR."""
    without, with_it = (machine(name, model, nvrar=flag).batch(gpus, 1, BATCH).total_s for flag in (False, True))
    return without / with_it


def speedups(name: str, gpus: int, sizes: tuple[int, ...] = SIZES) -> dict[str, float]:
    """Time of NCCL's all-reduce over NVRAR's, by message."""
    nccl, nvrar = (machine(name).allreduce_us(algorithm, sizes, gpus) for algorithm in ("nccl", "nvrar"))
    return {f"{size // KIB} KiB": float(ratio) for size, ratio in zip(sizes, nccl / nvrar, strict=True)}


def _prefill_compute_falls(model: str) -> Finding:
    text, holds = [], True
    for scheme in ("TP", "PP"):
        found: dict[str, float] = {}
        for gpus in GPUS[model]:
            parts = solved("Perlmutter", model, scheme, gpus, PREFILL_HEAVY).prefill_parts_ms
            found[f"{scheme} {gpus} GPUs"] = parts["matmul"] + parts["attention"]
        holds &= falling(list(found.values()))
        text.append(shown(found, "ms", 0))
    return Finding(holds, "; ".join(text))


def _prefill_prefers_pipelines(model: str) -> Finding:
    found: dict[str, float] = {}
    holds = True
    for gpus in GPUS[model]:
        tp, pp = (solved("Perlmutter", model, scheme, gpus, PREFILL_HEAVY).prefill_parts_ms for scheme in ("TP", "PP"))
        holds &= pp["communication"] < tp["communication"] and sum(pp.values()) < sum(tp.values())
        found |= {f"TP {gpus}": sum(tp.values()), f"PP {gpus}": sum(pp.values())}
    return Finding(holds, shown(found, "ms of prefill", 0))


def _pipelines_end_sooner(model: str) -> Finding:
    found, holds = dict[str, float](), True
    for gpus in GPUS[model]:
        tp, pp = (solved("Perlmutter", model, scheme, gpus, PREFILL_HEAVY).total_s for scheme in ("TP", "PP"))
        holds &= pp < tp
        found |= {f"TP {gpus}": tp, f"PP {gpus}": pp}
    return Finding(holds, shown(found, "s in all", 1))


def _decode_matmul(model: str) -> Finding:
    tp, pp = (
        {
            f"{scheme} {g}": solved("Perlmutter", model, scheme, g, DECODE_HEAVY).step_parts_ms["matmul"]
            for g in GPUS[model]
        }
        for scheme in ("TP", "PP")
    )
    flat = list(pp.values())
    ok = falling(list(tp.values())) and min(flat) > 0.95 * flat[0]
    return Finding(ok, shown(tp | pp, "ms of matmul per step"))


def _decode_pays_in_allreduce(model: str) -> Finding:
    found = {
        f"{g} GPUs": solved("Perlmutter", model, "TP", g, DECODE_HEAVY).step_parts_ms["communication"]
        for g in GPUS[model]
    }
    return Finding(rising(list(found.values())), shown(found, "ms of communication per step"))


def _nccl_slower_than_mpi() -> Finding:
    found: dict[str, float] = {}
    for gpus in (16, 32, 64, 128):
        nccl, mpi = (machine("Perlmutter").allreduce_us(library, SIZES[2:4], gpus) for library in ("nccl", "mpi"))
        found |= {f"{gpus} GPUs {s // KIB} KiB": n / m for s, n, m in zip(SIZES[2:4], nccl, mpi, strict=True)}
    return Finding(min(found.values()) > 1.3 and max(found.values()) < 2.2, shown(found, "(time of NCCL over MPI)"))


def _small_messages_scale_poorly() -> Finding:
    gpus = (8, 16, 32, 64, 128)
    found = {f"{g} GPUs": float(machine("Perlmutter").allreduce_us("nccl", [256 * KIB], g)[0]) for g in gpus}
    return Finding(rising(list(found.values())), shown(found, "µs for 256 KiB", 0))


def _nvrar_is_faster(name: str) -> Finding:
    found: dict[str, float] = {}
    for gpus in (8, 16, 32):
        found |= {f"{gpus} GPUs {size}": ratio for size, ratio in speedups(name, gpus).items()}
    return Finding(min(found.values()) > 1, shown(found, "(time of NCCL over NVRAR)"))


def _gain_grows_with_nodes(name: str) -> Finding:
    means = {f"{nodes} nodes": _mean_speedup(name, nodes) for nodes in (2, 4, 8, 16)}
    few, *_, many = means.values()
    return Finding(
        many > few == min(means.values()), shown(means, "(time of NCCL over NVRAR, mean of 128 KiB to 2 MiB)")
    )


def _mean_speedup(name: str, nodes: int) -> float:
    return float(np.mean(list(speedups(name, nodes * MACHINES[name][1]).values())))


def _no_gain_for_small_messages(gpus: int) -> Callable[[], Finding]:
    def check() -> Finding:
        found = speedups("Perlmutter", gpus, (16 * KIB, 32 * KIB, 64 * KIB))
        return Finding(max(found.values()) < 1.05, shown(found, f"(time of NCCL over NVRAR, {gpus} GPUs)"))

    return check


def _whole_requests_gain(model: str) -> Finding:
    found = {f"{gpus} GPUs": gain("Perlmutter", model, gpus) for gpus in GPUS[model]}
    few, *_, many = found.values()
    ok = 1 <= few < many and max(found.values()) < 1.9
    return Finding(ok, shown(found, "times sooner on Perlmutter"))


_BY_MODEL: tuple[tuple[str, Callable[[str], Finding]], ...] = (
    ("Prefill-heavy: TP and PP both cut compute time", _prefill_compute_falls),
    ("Prefill-heavy: PP has the quicker prefill, as it communicates less", _prefill_prefers_pipelines),
    ("Decode-heavy: TP cuts matmul time, PP does not", _decode_matmul),
    ("Decode-heavy: TP pays in all-reduce", _decode_pays_in_allreduce),
    ("NVRAR ends decode-heavy batches sooner, little on few nodes, more on many (at most 1.72 and 1.86 times)",
     _whole_requests_gain),
)  # fmt: skip
ORDERINGS = (
    *(
        Ordering(STUDY, f"{claim}: {model}", lambda check=check, model=model: check(model))  # type: ignore[misc]
        for claim, check in _BY_MODEL
        for model in MODELS
    ),
    *(
        Ordering(
            STUDY,
            f"Prefill-heavy: with PP the whole batch ends sooner too: {model}",
            lambda model=model: _pipelines_end_sooner(model),  # type: ignore[misc]
            "the published lengths are not known; after 2048 tokens of prompt, the 127 decode steps assumed here read "
            "all weights stage after stage, which outweighs the quicker prefill of 405B, and of 70B on two nodes",
        )
        for model in MODELS
    ),
    Ordering(STUDY, "NCCL's small all-reduces take longer with every doubling of nodes", _small_messages_scale_poorly),
    Ordering(STUDY, "Between nodes NCCL is 1.5 to 2 times slower than MPI at 512 KiB to 1 MiB", _nccl_slower_than_mpi),
    *(
        Ordering(STUDY, f"{claim}: {name}", lambda check=check, name=name: check(name))  # type: ignore[misc]
        for claim, check in (
            ("NVRAR is faster than NCCL from 128 KiB to 2 MiB", _nvrar_is_faster),
            ("NVRAR gains least on two nodes", _gain_grows_with_nodes),
        )
        for name in MACHINES
    ),
    Ordering(STUDY, "No gain below 128 KiB on few nodes", _no_gain_for_small_messages(8)),
    Ordering(
        STUDY,
        "No gain below 128 KiB on many nodes",
        _no_gain_for_small_messages(64),
        "NCCL's tuning model counts 2·lg N network hops for its tree, NVRAR lg N and three kernel launches; what its "
        "kernels add for small messages is not published, so the what-if applies NVRAR from 128 KiB alone",
    ),
)  # fmt: skip
