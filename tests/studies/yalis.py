"""The YALIS poster (Singhania et al.): Llama-3.1-70B, 16 sequences at once, 2480 + 2048 tokens.

Perlmutter (4 A100 per node) and Alps (4 GH200 per node), both with Slingshot-11; TP over all GPUs, or TP in the node
and PP across.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.studies.ordering import Finding, Ordering, falling, rising, shown
from tests.studies.pricing import KIB, Batch, Setting, setting

STUDY = "YALIS poster, Llama-3.1-70B, batch 16"
MACHINES = {"Perlmutter": "yalis_perlmutter", "Alps": "yalis_alps"}
PER_NODE = 4
GPUS = (4, 8, 16, 32)
BATCH = 16
ABOUT = 1.25  # figures within this factor are about the same


def machine(name: str) -> Setting:
    """The request of one machine."""
    return setting(MACHINES[name])


def solved(name: str, scheme: str, gpus: int) -> Batch:
    """The batch on that many GPUs: ``TP`` over all of them, or ``PP`` across nodes with TP inside."""
    tp, pp = (gpus, 1) if scheme == "TP" else (PER_NODE, gpus // PER_NODE)
    return machine(name).batch(tp, pp, BATCH)


def _totals_s(name: str, scheme: str) -> dict[str, float]:
    return {f"{gpus} GPUs": solved(name, scheme, gpus).total_s for gpus in GPUS}


def _no_gain_beyond_a_node() -> Finding:
    holds, text = True, []
    for name in MACHINES:
        for scheme in ("TP", "PP"):
            found = _totals_s(name, scheme)
            beyond = list(found.values())[1:]
            holds &= min(beyond) > 0.95 * beyond[0]
            text.append(f"{name} {scheme}: {shown(found, 's', 1)}")
    return Finding(holds, "; ".join(text))


def _pipeline_rises(name: str) -> Finding:
    found = _totals_s(name, "PP")
    return Finding(rising(list(found.values())), shown(found, "s", 1))


def _constant_on_perlmutter() -> Finding:
    found = _totals_s("Perlmutter", "TP")
    return Finding(max(found.values()) < ABOUT * min(found.values()), shown(found, "s", 1))


def _jump_on_alps() -> Finding:
    found = _totals_s("Alps", "TP")
    return Finding(rising(list(found.values())), shown(found, "s", 1))


def _step(name: str, kind: str) -> dict[str, float]:
    return {f"{gpus} GPUs": solved(name, "TP", gpus).step_parts_ms[kind] for gpus in GPUS}


def _matmul_falls(name: str) -> Finding:
    found = _step(name, "matmul")
    return Finding(falling(list(found.values())), shown(found, "ms per step"))


def _communication_grows(name: str) -> Finding:
    found = _step(name, "communication")
    one, two, *_ = found.values()
    return Finding(rising(list(found.values())) and two > 4 * one, shown(found, "ms per step"))


def _faster_gpu_is_more_bound() -> Finding:
    shares = {}
    for name in MACHINES:
        for gpus in GPUS[1:]:
            parts = solved(name, "TP", gpus).step_parts_ms
            shares[f"{name} {gpus}"] = 100 * parts["communication"] / sum(parts.values())
    ok = all(shares[f"Alps {gpus}"] > shares[f"Perlmutter {gpus}"] for gpus in GPUS[1:])
    return Finding(ok, shown(shares, "% of a decode step", 0))


def _message_sizes() -> Finding:
    study = machine("Perlmutter")
    row_bytes = 2 * study.model.hidden
    decode, prefill = BATCH * row_bytes, BATCH * study.request.workload.prompt_tokens.mean * row_bytes
    ok = 10 * KIB <= decode < 1e6 and 1e8 <= prefill < 1e9
    return Finding(ok, f"decode {decode / KIB:.0f} KiB, prefill {prefill / 1e6:.0f} MB")


def _nccl_in_node(name: str) -> Finding:
    sizes = [KIB << power for power in range(3, 12)]
    nccl, mpi = (machine(name).allreduce_us(library, sizes, PER_NODE) for library in ("nccl", "mpi"))
    ratios = {f"{size // KIB} KiB": mpi_us / nccl_us for size, nccl_us, mpi_us in zip(sizes, nccl, mpi, strict=True)}
    # decode messages: tens to hundreds of KB
    return Finding(min(list(ratios.values())[:7]) > 1, shown(ratios, "(time of MPI over NCCL, one node)"))


def _mpi_across_nodes(name: str) -> Finding:
    sizes = [256 * KIB, 512 * KIB, 1024 * KIB]
    ratios: dict[str, float] = {}
    for gpus in GPUS[1:]:
        nccl, mpi = (machine(name).allreduce_us(library, sizes, gpus) for library in ("nccl", "mpi"))
        ratios |= {f"{gpus} GPUs {s // KIB} KiB": n / m for s, n, m in zip(sizes, nccl, mpi, strict=True)}
    return Finding(min(ratios.values()) > 1, shown(ratios, "(time of NCCL over MPI)"))


_PIPELINE_GAP = (
    "the model lets the parts of the batch overlap in prefill and shortens each part's attention, so that two nodes "
    "save a few per cent before links and steps of more stages take them back; the host of vLLM V0, which served all "
    "parts of the batch in turn, has no term"
)
_EACH: tuple[tuple[str, Callable[[str], Finding], str | None], ...] = (
    ("With PP across nodes, time to solution rises with every doubling of the GPUs", _pipeline_rises, _PIPELINE_GAP),
    ("Matmul time falls with GPUs", _matmul_falls, None),
    ("Communication grows drastically beyond a node, and further with nodes", _communication_grows, None),
    ("Inside a node NCCL beats MPI at the sizes of decode messages", _nccl_in_node, None),
    ("Across nodes MPI beats NCCL between 256 and 1024 KiB", _mpi_across_nodes, None),
)
ORDERINGS = (
    Ordering(STUDY, "Beyond one node, more GPUs do not shorten time to solution (5 %)", _no_gain_beyond_a_node),
    Ordering(STUDY, "With TP, time to solution stays about constant on Perlmutter", _constant_on_perlmutter),
    Ordering(STUDY, "With TP, it jumps from one node to two on Alps, then keeps rising", _jump_on_alps),
    Ordering(STUDY, "The faster GPU is more communication-bound", _faster_gpu_is_more_bound),
    Ordering(STUDY, "Decode messages are hundreds of KB, prefill messages hundreds of MB", _message_sizes),
    *(
        Ordering(STUDY, f"{claim}: {name}", lambda check=check, name=name: check(name), gap)  # type: ignore[misc]
        for claim, check, gap in _EACH
        for name in MACHINES
    ),
)
