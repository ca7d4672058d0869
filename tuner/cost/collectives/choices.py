"""One collective explained for people and machines, and the prediction of measured rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.ask.measured import device_notes
from tuner.ask.profile import HardwareProfile, load_profile
from tuner.cost.collectives import algorithms
from tuner.cost.collectives.cost import Array, Cost, check_operation
from tuner.cost.collectives.pricing import CollectiveModel
from tuner.cost.collectives.topology import CommGroup, Fabric
from tuner.errors import BadInput

DEFAULT_PROFILE = "h100_sxm"
_OPERATION_BY_COLUMN = {
    "all_reduce": "allreduce",
    "all_gather": "allgather",
    "reduce_scatter": "reducescatter",
    "alltoall": "alltoall",
}
_MODE_BY_SOURCE = {"vLLM_custom_graph": "graph", "vLLM_custom_eager": "eager", "NCCL": "graph"}


@dataclass(frozen=True, slots=True)
class CollectiveReport:
    """One collective: the terms, in microseconds, add up to its latency; ``why`` this algorithm.

    ``profile``, ``fabric`` and ``implementation`` are None for the plain Hockney form, which has none of them.
    ``notes`` are sentences on a device whose collectives were never measured.
    """

    operation: str
    message_bytes: int
    ranks: int
    nodes: int
    algorithm: str
    latency_us: float
    terms_us: Mapping[str, float]
    why: str
    profile: str | None = None
    fabric: str | None = None
    implementation: str | None = None
    notes: tuple[str, ...] = ()


def collective_report(
    operation: str,
    message_bytes: int,
    ranks: int,
    nodes: int = 1,
    profile: HardwareProfile | str | None = None,
    algorithm: str | None = None,
    alpha_us: float | None = None,
    gb_per_s: float | None = None,
    fabric: Fabric | str | None = None,
    vllm_version: str | None = None,
) -> CollectiveReport:
    """Algorithm, microseconds, the terms that add up to them, and why.

    With ``alpha_us`` and ``gb_per_s`` (10^9 bytes per second) the plain Hockney form; ``BadInput`` when one lacks the
    other, and for unknown names and impossible sizes.
    """
    check_operation(operation)
    if message_bytes < 0:
        raise BadInput("bytes", message_bytes, "0 or more")
    group = CommGroup(ranks, nodes)
    if alpha_us is not None or gb_per_s is not None:
        return _plain(operation, message_bytes, group, algorithm, _hockney(alpha_us, gb_per_s))
    hardware = profile if isinstance(profile, HardwareProfile) else load_profile(profile or DEFAULT_PROFILE)
    model = CollectiveModel.of(hardware, fabric, vllm_version)
    found = model.estimate(operation, float(message_bytes), group, algorithm)
    name = str(found.algorithm)
    return CollectiveReport(
        operation=operation,
        message_bytes=message_bytes,
        ranks=ranks,
        nodes=nodes,
        algorithm=name,
        latency_us=float(found.latency_us),
        terms_us={term: float(value) for term, value in found.terms.items()},
        why=found.why[name],
        profile=hardware.name,
        fabric=model.fabric.name,
        implementation=str(found.implementation),
        notes=device_notes(hardware) if "collectives" in hardware.unmeasured_sections else (),
    )


def _hockney(alpha_us: float | None, gb_per_s: float | None) -> algorithms.LinkFigures:
    if alpha_us is None or not alpha_us >= 0:
        raise BadInput("alpha_us", alpha_us, "0 or more, together with gb_per_s")
    if gb_per_s is None or not gb_per_s > 0:
        raise BadInput("gb_per_s", gb_per_s, "above 0, together with alpha_us")
    return algorithms.LinkFigures.uniform(alpha_us, gb_per_s * 1e9)


def _plain(
    operation: str, message_bytes: int, group: CommGroup, algorithm: str | None, links: algorithms.LinkFigures
) -> CollectiveReport:
    size = np.array(float(message_bytes))

    def price(name: str) -> Cost:
        if name == "mpi":
            return algorithms.mpi(operation, group.ranks, group.nodes, links, size)
        form = algorithms.form_of(operation, name)
        return algorithms.price(algorithms.strategy(operation, form)(group.ranks, group.nodes), links, size)

    if algorithm is not None:
        algorithms.check_name(operation, algorithm)
        cost, why = price(algorithm), "forced: the plain Hockney form"
    else:
        names = algorithms.PLAIN_ALLREDUCE if operation == "allreduce" else algorithms.STRATEGIES[operation]
        costs = {name: price(name) for name in names if not name.startswith("nccl-")}
        algorithm = min(costs, key=lambda name: float(costs[name].latency_us))
        cost, why = costs[algorithm], f"the quickest textbook form of {', '.join(costs)}"
    terms = {"alpha_us": float(cost.alpha_us), "beta_us": float(cost.beta_us)}
    return CollectiveReport(
        operation, message_bytes, group.ranks, group.nodes, algorithm, float(cost.latency_us), terms, why
    )  # fmt: skip


_COLUMNS = ("system", "library", "kernel_source", "op_name", "num_gpus", "message_bytes")
Columns = Mapping[str, Sequence[Any] | np.ndarray[Any, Any]]


def predict_collective_rows(columns: Columns) -> Array:
    """Microseconds for rows of measured collectives, in their order.

    ``columns``: ``system`` (profile name), ``library`` (``vllm-0.24.0``, ``nccl-2.29.2``), ``kernel_source``
    (``vLLM_custom_graph``, ``vLLM_custom_eager``, ``NCCL``), ``op_name``, ``num_gpus`` and ``message_bytes``, of one
    length. ``BadInput`` for a missing column, and for a name in one that cannot be priced.
    """
    for name in _COLUMNS:
        if name not in columns:
            raise BadInput("columns", sorted(columns), f"a column {name}")
    systems = np.asarray(columns["system"])
    predicted_us = np.empty(len(systems))
    for system in np.unique(systems):
        mask = systems == system
        rows = {name: np.asarray(columns[name])[mask] for name in _COLUMNS}
        predicted_us[mask] = predict_rows_with(load_profile(str(system)), rows)
    return predicted_us


def predict_rows_with(profile: HardwareProfile, columns: Columns) -> Array:
    """Microseconds for rows of one system, by a given profile (see ``predict_collective_rows``)."""
    size = np.asarray(columns["message_bytes"], dtype=np.float64)
    index_by_key: dict[tuple[str, str, str, int], list[int]] = {}
    fields = zip(*(columns[name] for name in ("library", "kernel_source", "op_name", "num_gpus")), strict=True)
    for index, (library, source, op_name, ranks) in enumerate(fields):
        index_by_key.setdefault((str(library), str(source), str(op_name), int(ranks)), []).append(index)
    predicted_us = np.empty_like(size)
    for (library, source, op_name, ranks), indices in index_by_key.items():
        if op_name not in _OPERATION_BY_COLUMN:
            raise BadInput("op_name", op_name, ", ".join(_OPERATION_BY_COLUMN))
        if source not in _MODE_BY_SOURCE:
            raise BadInput("kernel_source", source, ", ".join(_MODE_BY_SOURCE))
        operation, group, sizes = _OPERATION_BY_COLUMN[op_name], CommGroup(ranks), size[indices]
        if source == "NCCL":
            found = CollectiveModel.of(profile).estimate(operation, sizes, group, "nccl").latency_us
        else:
            model = CollectiveModel.of(profile, vllm_version=library)
            found = model.latency_us(operation, sizes, group, _MODE_BY_SOURCE[source])
        predicted_us[indices] = found
    return predicted_us
