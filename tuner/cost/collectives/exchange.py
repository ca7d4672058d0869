"""Time of tokens that travel to their experts and back by DeepEP's kernels: dispatch and combine.

    t = ||start, e x start + bytes over the slower link||_8

High throughput (``deepep_ht``) sends a token once to each rank that holds one of its experts, low latency
(``deepep_ll``) once per expert: the caller's message says so. A few multiprocessors copy, so that a link is never full:
the efficiencies are fitted, per kernel and phase. Part of the start-up runs beside the copying (the host waits for the
counts of a dispatch, kernels poll for their peers): ``e`` of it is left, all of it where a combine knows its counts.
Times of the low-latency kernels outside CUDA graphs, as they were measured. Source of the kernels: DeepEP
(github.com/deepseek-ai/DeepEP), vLLM 0.29's ``prepare_finalize`` for them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.compressed_fits import ExchangeFit
from tuner.ask.profile import HardwareProfile
from tuner.cost.collectives.cost import Array
from tuner.cost.collectives.topology import Topology
from tuner.errors import BadInput

PHASES = ("dispatch", "combine")
BACKENDS = ("deepep_ht", "deepep_ll", "deepep_v2_context", "deepep_v2_generation")
_OF_LAYOUTS = {"deepep_high_throughput": "deepep_ht", "deepep_low_latency": "deepep_ll"}
_OF_PURPOSES = {"expert dispatch": "dispatch", "expert combine": "combine"}
_LEFT = 0.6  # of the start-up, once bytes are on their way
_ALL_LEFT = ("deepep_ht_combine",)
_ASSUMED: Mapping[str, ExchangeFit] = {  # between Hopper's figures and Blackwell's
    "deepep_ht_dispatch": ExchangeFit(280.0, 0.3),
    "deepep_ht_combine": ExchangeFit(90.0, 0.25),
    "deepep_ll_dispatch": ExchangeFit(60.0, 0.25),
    "deepep_ll_combine": ExchangeFit(60.0, 0.38),
    "deepep_v2_context_dispatch": ExchangeFit(380.0, 0.45),
    "deepep_v2_context_combine": ExchangeFit(150.0, 0.25),
    "deepep_v2_generation_dispatch": ExchangeFit(215.0, 0.2),
    "deepep_v2_generation_combine": ExchangeFit(170.0, 0.4),
}
_ORDER = 8.0


def exchange_of(all2all: str, where: str) -> tuple[str, str] | None:
    """Backend and phase by which a layout with this ``all2all`` sends what ``tuner.cost.volume`` has ``where`` it does;
    None for what no kernel of DeepEP sends."""
    backend, phase = _OF_LAYOUTS.get(all2all), _OF_PURPOSES.get(where)
    return None if backend is None or phase is None else (backend, phase)


def exchange_us(profile: HardwareProfile, backend: str, phase: str, message_bytes: ArrayLike, top: Topology) -> Array:
    """Microseconds of one ``phase`` of ``backend``, of the message's shape; 0 for a single rank.

    ``message_bytes`` is all that one rank's tokens weigh, a copy for each place they go to, its own included; it is
    spread evenly over the ranks of ``top``. Raises ``BadInput`` for an unknown backend or phase.
    """
    if backend not in BACKENDS:
        raise BadInput("all2all backend", backend, ", ".join(BACKENDS))
    if phase not in PHASES:
        raise BadInput("phase", phase, ", ".join(PHASES))
    size = np.asarray(message_bytes, dtype=float)
    group, name = top.group, f"{backend}_{phase}"
    if group.ranks == 1:
        return np.zeros_like(size)
    fit = profile.expert_exchange.get(name, _ASSUMED[name])
    inside = (group.ranks_per_node - 1) / group.ranks * size / (top.intra_bytes_per_s * fit.efficiency)
    across = (group.ranks - group.ranks_per_node) / group.ranks * size / top.inter_bytes_per_s
    left = 1.0 if name in _ALL_LEFT else _LEFT
    busy = left * fit.start_us + np.maximum(inside, across) * 1e6
    return np.asarray((fit.start_us**_ORDER + busy**_ORDER) ** (1 / _ORDER))
