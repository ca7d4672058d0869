"""Which all-reduce vLLM runs for a GPU, a tensor-parallel size and a message, and why.

Order of vLLM's ``CudaCommunicator.all_reduce`` as shipped (NCCL symmetric memory and FlashInfer's PCIe kernels are off
by default): FlashInfer, custom all-reduce, torch symmetric memory, NCCL. Gates from the wheels of vLLM 0.29, 0.30 and
0.33 (``all_reduce_utils.py``, ``flashinfer_all_reduce.py``, ``symm_mem.py``, ``custom_all_reduce.py/.cuh``) and
FlashInfer 0.6.18; messages are assumed to be bf16. Releases before 0.29 leave standalone FlashInfer off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tuner.errors import BadInput

MIB = 1 << 20
KIB = 1 << 10
DEFAULT_VLLM_VERSION = "0.33"
FLASHINFER_BY_DEFAULT_SINCE = (0, 29)
MNNVL_GATES_WIDENED_SINCE = (0, 33)
SYMMETRIC_BY_DEFAULT_SINCE = (0, 15)  # as measured: releases up to 0.14 show none of it, 0.18 does
CUSTOM_LIMIT_BYTES = 8 * MIB
FLASHINFER_ONE_SHOT_BYTES = MIB

_Gates = Mapping[int, Mapping[int, float]]
# MiB by compute capability (times ten) and ranks.
CUSTOM_MIB: _Gates = {
    90: {2: 64, 4: 32, 6: 0.5, 8: 0.25},
    100: {2: 2, 4: 2, 6: 1, 8: 1},
    103: {2: 4, 4: 4, 6: 8, 8: 4},
}
SYMMETRIC_MIB: _Gates = {
    90: {2: 64, 4: 32, 6: 64, 8: 64},
    100: {2: 8, 4: 32, 6: 128, 8: 128},
    103: {2: 4, 4: 32, 6: 32, 8: 64},
}
FLASHINFER_MIB: _Gates = {
    90: {2: 64, 4: 2, 8: 0.5},
    100: {2: 64, 4: 32, 8: 1, 16: 64},
    103: {2: 64, 4: 64, 8: 4, 16: 64},
}
FUSED_ONE_SHOT_MIB: _Gates = {
    90: {2: 32, 4: 2, 8: 0.5},
    100: {2: 32, 4: 4, 8: 1},
    103: {2: 32, 4: 4, 8: 2},
}
MULTIMEM_RANKS: Mapping[int, frozenset[int]] = {
    90: frozenset({4, 6, 8}),
    100: frozenset({6, 8}),
    103: frozenset({6, 8}),
}
# Standalone multi-node NVLink limits, exclusive: (compute capability, ranks, hosts) -> MiB.
MNNVL_MIB: Mapping[tuple[int, int, int], float] = {
    (103, 4, 1): 80,
    (103, 8, 1): 64,
    (103, 8, 2): 64,
    (103, 16, 4): 8,
}
MNNVL_MIB_SINCE_0_33: Mapping[tuple[int, int, int], float] = {(100, 8, 1): 128}


@dataclass(frozen=True, slots=True)
class Site:
    """Where an all-reduce runs, as far as vLLM's gates look: GPU, ranks, hosts, link and release."""

    capability: int | None
    ranks: int
    hosts: int
    nvlink: bool
    one_domain: bool
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The implementation that runs, its algorithm by our names, and one sentence that says why."""

    implementation: str
    algorithm: str
    why: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A choice and the largest message (bytes, inclusive; None without end) that it holds for."""

    up_to_bytes: int | None
    choice: Choice


def parse_version(text: str | None) -> tuple[int, ...]:
    """``0.33.0`` or ``vllm-0.33`` as numbers; None is the newest release that was read."""
    given = DEFAULT_VLLM_VERSION if text is None else text
    match = re.fullmatch(r"(?:vllm-)?v?(\d+)\.(\d+)(?:\.(\d+))?(?:[.+a-z].*)?", given)
    if match is None:
        raise BadInput("vllm_version", given, "a release such as 0.33 or 0.29.0")
    return tuple(int(part) for part in match.groups() if part is not None)


def capability_of(compute_capability: float | None) -> int | None:
    """9.0 as 90: vLLM's tables are keyed this way."""
    return None if compute_capability is None else round(compute_capability * 10)


@lru_cache(maxsize=4096)
def segments(site: Site) -> tuple[Segment, ...]:
    """The choices by rising message size; together they cover every size from 0 bytes."""
    edges = sorted(edge for edge in _edges(site) if edge > 0)
    found: list[Segment] = []
    for edge in [*edges, None]:
        probe = edge if edge is not None else (edges[-1] + 1 if edges else 0)
        choice = choose(site, probe)
        if found and _kind(found[-1].choice) == _kind(choice):
            found.pop()
        found.append(Segment(edge, choice))
    return tuple(found)


def choose(site: Site, message_bytes: int) -> Choice:
    """What vLLM runs for one message of ``message_bytes`` (bytes of the tensor that is reduced)."""
    for gate in (_flashinfer, _custom, _symmetric):
        choice = gate(site, message_bytes)
        if choice is not None:
            return choice
    return Choice("nccl", "nccl", _why_nccl(site))


def choose_fused(site: Site, message_bytes: int) -> Choice | None:
    """FlashInfer's all-reduce fused with the RMSNorm that follows it; None where vLLM's fusion pass leaves it apart.

    The pass takes tensors up to ``FLASHINFER_MIB`` and asks for one shot up to ``FUSED_ONE_SHOT_MIB``.
    """
    if site.capability is None or not site.nvlink or (site.hosts > 1 and not site.one_domain):
        return None
    limit = FLASHINFER_MIB.get(site.capability, {}).get(site.ranks)
    if limit is None or message_bytes > limit * MIB:
        return None
    one_shot = FUSED_ONE_SHOT_MIB.get(site.capability, {}).get(site.ranks, 0.0)
    base = f"fused with RMSNorm up to {limit:g} MiB at {_at(site)}"
    if message_bytes <= one_shot * MIB:
        return Choice("flashinfer-fused", "one-shot", f"{base}, in one shot up to {one_shot:g} MiB")
    return Choice("flashinfer-fused", "two-shot", f"{base}, in two shots past {one_shot:g} MiB")


def _flashinfer(site: Site, message_bytes: int) -> Choice | None:
    limit = _flashinfer_limit(site)
    if limit is None or message_bytes > limit:
        return None
    limit_text = f"FlashInfer's all-reduce (on by default from vLLM 0.29) takes up to {_mib(limit)} at {_at(site)}"
    if site.ranks * message_bytes <= FLASHINFER_ONE_SHOT_BYTES:
        return Choice("flashinfer", "one-shot", f"{limit_text}, in one shot while ranks x bytes stay within 1 MiB")
    return Choice("flashinfer", "two-shot", f"{limit_text}, in two shots when ranks x bytes pass 1 MiB")


def _flashinfer_limit(site: Site) -> int | None:
    """Largest message in bytes, inclusive; None where FlashInfer is off."""
    if site.version < FLASHINFER_BY_DEFAULT_SINCE or not site.nvlink or site.capability is None:
        return None
    if site.hosts > 1 and not site.one_domain:
        return None
    default = FLASHINFER_MIB.get(site.capability, {}).get(site.ranks)
    if default is None:
        return None
    key = (site.capability, site.ranks, site.hosts)
    tuned = MNNVL_MIB.get(key)
    if tuned is None and site.version >= MNNVL_GATES_WIDENED_SINCE:
        tuned = MNNVL_MIB_SINCE_0_33.get(key)
    return int(default * MIB) if tuned is None else int(tuned * MIB) - 1


def _custom(site: Site, message_bytes: int) -> Choice | None:
    limit = _custom_limit(site)
    if limit is None or message_bytes >= limit:
        return None
    base = f"custom all-reduce takes less than {_mib(limit)} at {_at(site)}"
    one_shot = _custom_one_shot_limit(site)
    if one_shot is None:
        return Choice("custom", "one-shot", f"{base}, and two ranks always go in one shot")
    if message_bytes < one_shot:
        return Choice("custom", "one-shot", f"{base}, in one shot below {_mib(one_shot)}")
    return Choice("custom", "two-shot", f"{base}, in two shots from {_mib(one_shot)}")


def _custom_limit(site: Site) -> int | None:
    """First message in bytes that custom all-reduce refuses; None where it is disabled."""
    if site.hosts > 1 or site.ranks not in (2, 4, 6, 8) or (site.ranks > 2 and not site.nvlink):
        return None
    if not _has_symmetric(site) or site.capability is None:
        return CUSTOM_LIMIT_BYTES
    return min(CUSTOM_LIMIT_BYTES, int(CUSTOM_MIB[site.capability][site.ranks] * MIB))


def _custom_one_shot_limit(site: Site) -> int | None:
    """First message in bytes that takes two shots; None for two ranks, which never do."""
    if site.ranks == 2:
        return None
    return 512 * KIB if site.ranks <= 4 else 256 * KIB


def _symmetric(site: Site, message_bytes: int) -> Choice | None:
    if not _has_symmetric(site) or site.capability is None or site.version < SYMMETRIC_BY_DEFAULT_SINCE:
        return None
    limit = int(SYMMETRIC_MIB[site.capability][site.ranks] * MIB)
    if message_bytes > limit:
        return None
    base = f"past custom all-reduce, torch symmetric memory takes bf16 up to {_mib(limit)} at {_at(site)}"
    if site.ranks in MULTIMEM_RANKS[site.capability]:
        return Choice("symmetric-memory", "nvls", f"{base}, reduced in the switch (multimem)")
    return Choice("symmetric-memory", "two-shot", f"{base}, in two shots (no multimem at this size)")


def _has_symmetric(site: Site) -> bool:
    gates = SYMMETRIC_MIB.get(site.capability or 0, {})
    return site.ranks in gates and site.nvlink and site.hosts == 1


def _why_nccl(site: Site) -> str:
    if site.hosts > 1 and not site.one_domain:
        return f"the group spans {site.hosts} nodes, where vLLM has NCCL alone"
    if not site.nvlink and site.ranks > 2:
        return f"{site.ranks} ranks without NVLink: custom all-reduce takes two PCIe-only GPUs at most"
    edges = _edges(site)
    if not edges:
        return f"no custom kernel of vLLM takes {_at(site)}"
    return f"above {_mib(max(edges))} at {_at(site)} every custom kernel of vLLM passes on to NCCL"


def _edges(site: Site) -> set[int]:
    """Largest message, inclusive, of every gate that is open here."""
    edges: set[int] = set()
    flashinfer, custom = _flashinfer_limit(site), _custom_limit(site)
    if flashinfer is not None:
        edges |= {min(flashinfer, FLASHINFER_ONE_SHOT_BYTES // site.ranks), flashinfer}
    if custom is not None:
        one_shot = _custom_one_shot_limit(site)
        edges |= {custom - 1} if one_shot is None else {custom - 1, min(custom, one_shot) - 1}
    if _has_symmetric(site) and site.capability is not None:
        edges.add(int(SYMMETRIC_MIB[site.capability][site.ranks] * MIB))
    return edges


def _kind(choice: Choice) -> tuple[str, str]:
    return choice.implementation, choice.algorithm


def _at(site: Site) -> str:
    gpu = "an unknown GPU" if site.capability is None else f"sm{site.capability}"
    return f"{site.ranks} ranks of {gpu}"


def _mib(size_bytes: int) -> str:
    rounded = round(size_bytes / MIB, 3)
    return f"{rounded:g} MiB"
