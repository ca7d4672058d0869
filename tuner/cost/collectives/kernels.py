"""Times of the implementations that were measured, inside one node: NCCL and vLLM's custom all-reduce kernels.

All take bytes (any array shape) and links in bytes per second and direction, and return a ``Cost`` in microseconds.
Scope: one call, all ranks together (the time until the last rank has its result).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tuner.cost.collectives.cost import Array, Cost, cheapest, cost_of, ring_steps, sent_share
from tuner.cost.collectives.fits import HostFit, KernelFit, NcclFit, SymmetricFit

NCCL_NAMES = ("nccl-ring-ll", "nccl-ring-ll128", "nccl-ring-simple", "nccl-nvls")
_US = 1e6


def nccl(
    fit: NcclFit, operation: str, ranks: int, message_bytes: Array, link_bytes_per_s: float, is_shared: bool
) -> tuple[Cost, NDArray[np.intp]]:
    """NCCL in one node; the second value indexes ``NCCL_NAMES`` with the protocol that is quickest.

    T = launch + steps · step + start-up(protocol) + sent bytes / (efficiency(protocol) · link), and for Simple the
    rank's own share over the local copy bandwidth. ``is_shared``: all ranks reach each other through host bridges.
    """
    shared = shared_bytes_per_s(fit, ranks, link_bytes_per_s, is_shared) / _US
    sent = sent_share(operation, ranks) * message_bytes
    if operation in ("alltoall", "sendrecv", "gather"):
        alpha_us = fit.peers_launch_us + fit.peer_us * ring_steps(operation, ranks)
    else:
        alpha_us = fit.launch_us + fit.step_us * ring_steps(operation, ranks)
    own = message_bytes / ranks if operation in ("allgather", "reducescatter", "alltoall") else 0.0 * message_bytes
    simple_us = sent / (fit.simple_efficiency * shared) + own / (fit.local_copy_efficiency * link_bytes_per_s / _US)
    costs = [
        cost_of(alpha_us, sent / (fit.ll_efficiency * shared)),
        cost_of(alpha_us + fit.ll128_us, sent / (fit.ll128_efficiency * shared)),
        cost_of(alpha_us + fit.simple_us, simple_us),
    ]
    if operation == "allreduce" and ranks >= 4 and fit.nvls_us is not None and fit.nvls_efficiency is not None:
        costs.append(cost_of(fit.nvls_us, sent / (fit.nvls_efficiency * shared)))
    return cheapest(costs)


def shared_bytes_per_s(fit: NcclFit, ranks: int, link_bytes_per_s: float, is_shared: bool) -> float:
    """What is left of a link, in bytes per second, when all ranks of the node send at once."""
    return link_bytes_per_s * (max(ranks, 2) / 2) ** -fit.contention if is_shared else link_bytes_per_s


def one_shot(fit: KernelFit, ranks: int, message_bytes: Array, link_bytes_per_s: float) -> Cost:
    """Every rank reads all others' buffers and reduces them itself: (R-1)·M bytes over its link."""
    return _kernel(fit, ranks, (ranks - 1) * message_bytes, link_bytes_per_s)


def two_shot(fit: KernelFit, ranks: int, message_bytes: Array, link_bytes_per_s: float) -> Cost:
    """Each rank reduces its share, then all gather the shares: 2(R-1)/R·M bytes over its link."""
    return _kernel(fit, ranks, sent_share("allreduce", ranks) * message_bytes, link_bytes_per_s)


def _kernel(fit: KernelFit, ranks: int, sent_bytes: Array, link_bytes_per_s: float) -> Cost:
    alpha_us = fit.launch_us + fit.peer_us * (math.log2(ranks) - 1)
    return cost_of(alpha_us, sent_bytes / (fit.efficiency * link_bytes_per_s / _US))


def multimem(fit: SymmetricFit, message_bytes: Array, link_bytes_per_s: float) -> Cost:
    """In-switch reduction on symmetric memory, with vLLM's copies into and out of the symmetric buffer."""
    return cost_of(fit.launch_us, message_bytes / (fit.efficiency * link_bytes_per_s / _US))


def symmetric_two_shot(
    fit: SymmetricFit, kernel: KernelFit, ranks: int, message_bytes: Array, links: tuple[float, float]
) -> Cost:
    """Two-shot on symmetric memory; ``links`` are the link's and the staging copies' bytes per second.

    The copies in and out read and write the message: 4·M bytes of memory traffic.
    """
    wire_us = sent_share("allreduce", ranks) * message_bytes / (kernel.efficiency * links[0] / _US)
    return cost_of(fit.launch_us, wire_us + 4 * message_bytes / (links[1] / _US))


def host(fit: HostFit, operation: str, ranks: int, message_bytes: Array) -> Cost:
    """Processes of one host: one latency per doubling of the ranks, and the ring's bytes at the fitted bandwidth."""
    rounds = math.ceil(math.log2(ranks)) if ranks > 1 else 0
    return cost_of(rounds * fit.alpha_us, sent_share(operation, ranks) * message_bytes / (fit.gb_per_s * 1e9 / _US))
