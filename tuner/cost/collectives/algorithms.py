"""Textbook algorithms, one small strategy each: how many rounds, and which share of the message crosses which link.

A strategy is a pure function of the ranks and of the nodes that they span (G = ranks per node); its time is Hockney's:
rounds · α + share · M / β, reduction arithmetic left out. ``M`` is the whole buffer of one rank (see ``fits``). With
one α and one β for both links, the totals are the formulas of the sources:

- ring, recursive doubling, Rabenseifner, with MPICH's extra rounds for ranks that are no power of two: comments of
  MPICH's src/mpi/coll (Thakur, Rabenseifner, Gropp 2005);
- tree: binomial reduce, then binomial broadcast, not pipelined;
- one-shot, two-shot: vLLM's custom all-reduce kernels; dda-flat, dda-tree: Meta's direct data access (2025-10);
- nvls: in-switch reduction, each rank reads its reduced share and writes it to all;
- hierarchical: reduce-scatter in the node, ring across nodes, all-gather in the node;
- nccl-ring, nccl-tree, nccl-nvls: the forms behind NCCL's algorithms, whatever the protocol;
- nvrar: hierarchical with recursive doubling across nodes, each 4 bytes with a 4-byte flag (arXiv 2511.09557).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tuner.cost.collectives import nccl_tuning
from tuner.cost.collectives.cost import Array, Cost, cheapest, cost_of, ring_steps, sent_share
from tuner.errors import BadInput

NVRAR_FLAG_FACTOR = 2.0
MPICH_SHORT_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds and bytes of one algorithm; the shares are bytes that one rank sends per byte of the message.

    ``pipelined_share`` are bytes of which each crosses every kind of link in turn, so that the slowest one counts.
    """

    intra: float = 0.0
    inter: float = 0.0
    intra_share: float = 0.0
    inter_share: float = 0.0
    pipelined_share: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """α in microseconds per round and β in bytes per second and rank, inside a node and between nodes."""

    intra_alpha_us: float
    intra_bytes_per_s: float
    inter_alpha_us: float
    inter_bytes_per_s: float

    @staticmethod
    def uniform(alpha_us: float, bytes_per_s: float) -> LinkFigures:
        """One α and one β for every link: the plain Hockney model."""
        return LinkFigures(alpha_us, bytes_per_s, alpha_us, bytes_per_s)


Strategy = Callable[[int, int], Rounds]


def price(rounds: Rounds, links: LinkFigures, message_bytes: Array) -> Cost:
    """Hockney's time of an algorithm over given links, in microseconds, of the message's shape."""
    slowest = min(links.intra_bytes_per_s, links.inter_bytes_per_s if rounds.inter else links.intra_bytes_per_s)
    us_per_byte = 1e6 * (
        rounds.intra_share / links.intra_bytes_per_s
        + rounds.inter_share / links.inter_bytes_per_s
        + rounds.pipelined_share / slowest
    )
    alpha_us = rounds.intra * links.intra_alpha_us + rounds.inter * links.inter_alpha_us
    return cost_of(alpha_us, us_per_byte * message_bytes)


def _lg(ranks: int) -> int:
    return math.ceil(math.log2(ranks)) if ranks > 1 else 0


def _is_power_of_two(ranks: int) -> bool:
    return ranks & (ranks - 1) == 0


def _ring(operation: str) -> Strategy:
    def rounds(ranks: int, nodes: int) -> Rounds:
        across = ring_steps(operation, nodes)
        return Rounds(ring_steps(operation, ranks) - across, across, pipelined_share=sent_share(operation, ranks))

    return rounds


def _binomial(passes: int, halving: bool = False) -> Strategy:
    """Binomial tree, ``passes`` times: whole messages, or shares that halve on the way (gather)."""

    def rounds(ranks: int, nodes: int) -> Rounds:
        inter = passes * _lg(nodes)
        intra = passes * _lg(ranks) - inter
        if not halving:
            return Rounds(intra, inter, intra, inter)
        across = (nodes - 1) / nodes
        return Rounds(intra, inter, (ranks - 1) / ranks - across, across)

    return rounds


def _recursive_doubling(ranks: int, nodes: int) -> Rounds:
    """lg R rounds of the whole message; two more, in and out, to fold ranks beyond a power of two."""
    total = _lg(ranks) if _is_power_of_two(ranks) else int(math.log2(ranks)) + 2
    inter = min(total, _lg(nodes))
    return Rounds(total - inter, inter, total - inter, inter)


def _halving(passes: int) -> Strategy:
    """Shares that halve or double in every round.

    Twice (Rabenseifner's all-reduce): 2 floor(lg R) rounds and 2(R-1)/R bytes, and beyond a power of two 2 rounds of
    the whole message more. Once (all-gather, reduce-scatter): ceil(lg R) rounds and (R-1)/R bytes, after Bruck.
    """

    def rounds(ranks: int, nodes: int) -> Rounds:
        per_node = ranks / nodes
        fold = 2 if passes == 2 and not _is_power_of_two(ranks) else 0
        total = passes * (int(math.log2(ranks)) if fold else _lg(ranks))
        inter = min(total, passes * _lg(nodes))
        inter_share = passes * (nodes - 1) / nodes / per_node
        intra_share = passes * (per_node - 1) / per_node
        if nodes == ranks:
            return Rounds(0, total + fold, 0, inter_share + fold)
        return Rounds(total - inter + fold, inter, intra_share + fold, inter_share)

    return rounds


def _direct(phases: int, share: Callable[[int], float]) -> Strategy:
    """Every rank talks to all others at once: ``phases`` rounds; peers of other nodes are reached by the network."""

    def rounds(ranks: int, nodes: int) -> Rounds:
        if ranks == 1:
            return Rounds()
        remote = (ranks - ranks / nodes) / (ranks - 1)
        whole = share(ranks)
        if nodes > 1:
            return Rounds(0, phases, whole * (1 - remote), whole * remote)
        return Rounds(phases, 0, whole)

    return rounds


def _hierarchical(ranks: int, nodes: int) -> Rounds:
    per_node = -(-ranks // nodes)
    intra, inter = sent_share("allreduce", per_node), sent_share("allreduce", nodes) / per_node
    return Rounds(2 * (per_node - 1), 2 * (nodes - 1), intra, inter)


def _nvrar(ranks: int, nodes: int) -> Rounds:
    per_node = -(-ranks // nodes)
    inter = NVRAR_FLAG_FACTOR * _lg(nodes) / per_node
    return Rounds(2 * (per_node - 1), _lg(nodes), sent_share("allreduce", per_node), inter)


def nvrar(ranks: int, nodes: int, links: LinkFigures, message_bytes: Array) -> Cost:
    """NVRAR with the quicker of its two protocols for every message.

    One sends a flag with every word (``STRATEGIES``, 8 bytes for 4 of data); the other sends data alone and then a
    signal, one more message per round. Its callers choose by size (axonn-ai/yalis, protocols LL8 and SIMPLE).
    """
    flagged = _nvrar(ranks, nodes)
    signalled = replace(flagged, inter=2 * flagged.inter, inter_share=flagged.inter_share / NVRAR_FLAG_FACTOR)
    return cheapest([price(rounds, links, message_bytes) for rounds in (flagged, signalled)])[0]


def nvrar_as_transcribed(ranks: int, nodes: int) -> Rounds:
    """NVRAR with the inter-node bytes of a second-hand transcription: η(N-1)/N per shard in place of η·lg N.

    Kept to compare with: recursive doubling sends the whole shard in every round, so it is not used anywhere.
    """
    textbook = _nvrar(ranks, nodes)
    inter = NVRAR_FLAG_FACTOR * (nodes - 1) / nodes / -(-ranks // nodes)
    return Rounds(textbook.intra, textbook.inter, textbook.intra_share, inter)


def _double_tree(ranks: int, nodes: int) -> Rounds:
    """NCCL's tree: up and down a chain in the node and a double binary tree between nodes, pipelined: 2 M bytes."""
    return Rounds(2 * (-(-ranks // nodes) - 1), 2 * _lg(nodes), pipelined_share=2.0 if ranks > 1 else 0.0)


def _nvls(ranks: int, nodes: int) -> Rounds:
    return Rounds(2, 0, (ranks + 1) / ranks) if ranks > 1 else Rounds()


def _square(ranks: int) -> float:
    return ranks - 1.0


_ALLREDUCE: Mapping[str, Strategy] = {
    "ring": _ring("allreduce"),
    "tree": _binomial(2),
    "recursive-doubling": _recursive_doubling,
    "rabenseifner": _halving(2),
    "one-shot": _direct(1, _square),
    "two-shot": _direct(2, lambda ranks: sent_share("allreduce", ranks)),
    "nvls": _nvls,
    "nvrar": _nvrar,
    "dda-flat": _direct(1, _square),
    "dda-tree": _direct(2, lambda ranks: sent_share("allreduce", ranks)),
    "hierarchical": _hierarchical,
    "nccl-ring": _ring("allreduce"),
    "nccl-tree": _double_tree,
    "nccl-nvls": _nvls,
}
_SHARES: Mapping[str, Strategy] = {
    "ring": _ring("allgather"),
    "nccl-ring": _ring("allgather"),
    "recursive-doubling": _halving(1),
    "one-shot": _direct(1, lambda ranks: (ranks - 1) / ranks),
}
STRATEGIES: Mapping[str, Mapping[str, Strategy]] = {
    "allreduce": _ALLREDUCE,
    "allgather": _SHARES,
    "reducescatter": _SHARES,
    "alltoall": {"ring": _ring("alltoall"), "one-shot": _direct(1, lambda ranks: (ranks - 1) / ranks)},
    "sendrecv": {"one-shot": _direct(1, lambda ranks: 1.0)},
    "broadcast": {"tree": _binomial(1), "ring": _ring("broadcast"), "nccl-ring": _ring("broadcast")},
    "gather": {"tree": _binomial(1, halving=True), "one-shot": _direct(1, lambda ranks: (ranks - 1) / ranks)},
}
# Without a switch or a hierarchy of links, what one α and one β can tell apart.
PLAIN_ALLREDUCE = ("ring", "tree", "recursive-doubling", "rabenseifner", "one-shot", "two-shot")
DEFAULTS: Mapping[str, str] = {
    "allreduce": "ring",
    "allgather": "ring",
    "reducescatter": "ring",
    "alltoall": "one-shot",
    "sendrecv": "one-shot",
    "broadcast": "tree",
    "gather": "tree",
}


def form_of(operation: str, algorithm: str) -> str:
    """The textbook form behind a name: ``nccl-ring-ll128`` loses its protocol, ``nccl`` is its usual algorithm."""
    if algorithm == "nccl":
        return DEFAULTS[operation]
    if algorithm == "nccl-nvlstree":
        return "nccl-nvls"
    if algorithm.startswith("nccl-"):
        return algorithm.removesuffix("-ll").removesuffix("-ll128").removesuffix("-simple")
    return algorithm


def names_of(operation: str) -> tuple[str, ...]:
    """All algorithm names that can be asked for an operation, NCCL's protocols and ``mpi`` included."""
    own = [name for name in STRATEGIES[operation] if not name.startswith("nccl-")]
    tuned = [f"nccl-ring-{protocol}" for protocol in nccl_tuning.PROTOCOLS]
    if operation == "allreduce":
        tuned += [f"nccl-tree-{protocol}" for protocol in nccl_tuning.PROTOCOLS] + ["nccl-nvls", "nccl-nvlstree"]
    return (*own, "mpi", "nccl", *(tuned if operation in nccl_tuning.TUNED_OPERATIONS else ()))


def check_name(operation: str, algorithm: str) -> None:
    """Raise ``BadInput`` for a name that the operation does not have, listing those that it has."""
    if algorithm not in names_of(operation):
        raise BadInput("algorithm", algorithm, f"for {operation}: {', '.join(names_of(operation))}")


def strategy(operation: str, algorithm: str) -> Strategy:
    """The strategy of that name for an operation; ``BadInput`` lists the names that the operation has."""
    known = STRATEGIES[operation]
    if algorithm not in known:
        raise BadInput("algorithm", algorithm, f"as a textbook form of {operation}: {', '.join(known)}")
    return known[algorithm]


def reducing_rounds(operation: str, ranks: int) -> int:
    """Rounds of ``mpi`` that reduce what arrived: on GPUs a kernel each (HPE Cray MPICH, GPU_ALLREDUCE_USE_KERNEL)."""
    return _lg(ranks) if operation in ("allreduce", "reducescatter") else 0


def mpi(operation: str, ranks: int, nodes: int, links: LinkFigures, message_bytes: Array) -> Cost:
    """What MPICH would run: an all-reduce by recursive doubling up to 2 KiB, by Rabenseifner's algorithm above.

    Other operations by their default strategy. Source: MPICH's MPIR_Allreduce and its short-message limit.
    """
    if operation != "allreduce":
        return price(strategy(operation, DEFAULTS[operation])(ranks, nodes), links, message_bytes)
    short = price(_recursive_doubling(ranks, nodes), links, message_bytes)
    long = price(_halving(2)(ranks, nodes), links, message_bytes)
    is_short = message_bytes <= MPICH_SHORT_BYTES
    return Cost(
        np.where(is_short, short.alpha_us, long.alpha_us),
        np.where(is_short, short.beta_us, long.beta_us),
    )
