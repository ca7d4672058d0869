"""Fewer or faster all-reduces: sync-point drop, direct data access, and NVRAR."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.cost.collectives import CommGroup
from tuner.cost.stages import stage_layers
from tuner.cost.step_batch import Floats
from tuner.cost.techniques.base import Hardware, Operations, Technique
from tuner.errors import BadInput

NVRAR_FROM_BYTES = 128 * 1024  # below, NVRAR was measured as no faster than NCCL (arXiv 2511.09557)


@dataclass(frozen=True, slots=True)
class SyncPointDrop(Technique):
    """SPD: in a share of the blocks the all-reduce after attention is left out."""

    name: ClassVar[str] = "spd"
    setting: ClassVar[str] = "spd=S with S from 0 to 1, the share of blocks without that all-reduce"
    source: ClassVar[str] = "arXiv 2502.20727 (ICML 2025)"
    acts_on: ClassVar[str] = "the all-reduce of the attention output, where tp > 1"
    priced: ClassVar[str] = "all-reduces of a pass = 2L + 1 − n, n = round(S·L)"
    exact: ClassVar[bool] = False
    outputs: ClassVar[str] = "outputs change: blocks read partial sums; the authors report < 1 % of accuracy"
    missing: ClassVar[str] = "vLLM's decoder layers always reduce, and blocks have to be chosen and distilled per model"
    blocks: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.blocks <= 1:
            raise BadInput("--what-if", f"spd={self.blocks:g}", self.setting)

    def __str__(self) -> str:
        return f"spd={self.blocks:g}"

    def operations(self, model: ModelShape, layout: ParallelLayout, operations: Operations) -> Operations:
        """Each stage drops its share; rounded over the stages before it, so that the total is round(S·L)."""
        ends = np.cumsum([0, *stage_layers(model.layers, layout.pp)])
        dropped = [round(self.blocks * float(end)) for end in ends]
        found = []
        for op in operations:
            if op.operation == "allreduce" and op.where == "attention output":
                op = replace(op, calls=op.calls - (dropped[op.stage + 1] - dropped[op.stage]))
            found.append(op)
        return tuple(op for op in found if op.calls)


@dataclass(frozen=True, slots=True)
class DirectDataAccess(Technique):
    """DDA: every rank reads its peers' memory, all at once (flat) or in reduce-scatter and all-gather (tree)."""

    name: ClassVar[str] = "dda"
    source: ClassVar[str] = "Meta engineering blog, 17 October 2025"
    acts_on: ClassVar[str] = "all-reduces within one NVLink domain"
    priced: ClassVar[str] = (
        "the least of the engine's choice, flat α + (R−1)·M/β and tree 2(R−1)/R·M/β, with α and β as measured for the "
        "one-shot and two-shot kernels of this GPU"
    )
    exact: ClassVar[bool] = True
    outputs: ClassVar[str] = "outputs stay the same but for the order of a floating-point sum"
    missing: ClassVar[str] = (
        "it is part of Meta's CTran and was measured on MI300X against RCCL; vLLM's own one-shot and two-shot kernels "
        "have its form, so that little is left to gain where they run"
    )

    def collective_us(
        self, hardware: Hardware, operation: str, message_bytes: Floats, group: CommGroup, engine_us: Floats
    ) -> Floats:
        """The least of three, where all ranks reach each other's memory."""
        model = hardware.collectives
        in_one_domain = group.nodes == 1 or group.ranks <= (model.fabric.nvlink_domain_gpus or 0)
        if operation != "allreduce" or group.ranks == 1 or not in_one_domain or not model.profile.nvlink.links:
            return engine_us
        found = engine_us
        for kernel in ("one-shot", "two-shot"):
            found = np.minimum(found, model.estimate(operation, message_bytes, group, kernel).latency_us)
        return found


@dataclass(frozen=True, slots=True)
class Nvrar(Technique):
    """NVRAR: reduce-scatter in the node, recursive doubling across nodes, all-gather in the node."""

    name: ClassVar[str] = "nvrar"
    source: ClassVar[str] = "arXiv 2511.09557"
    acts_on: ClassVar[str] = "all-reduces between nodes, of 128 KiB and more"
    priced: ClassVar[str] = (
        "the least of the engine's choice and of two protocols, 2(G−1)·α_in + r·α_out + M/G·(2(G−1)/β_in + "
        "s/β_out) with three kernel launches: a flag in every word (r = lg N, s = 2·lg N), or a signal after the "
        "data (r = 2·lg N, s = lg N)"
    )
    exact: ClassVar[bool] = True
    outputs: ClassVar[str] = "outputs stay the same but for the order of a floating-point sum"
    missing: ClassVar[str] = "its NVSHMEM kernels are not in vLLM, which has NCCL alone between nodes"

    def collective_us(
        self, hardware: Hardware, operation: str, message_bytes: Floats, group: CommGroup, engine_us: Floats
    ) -> Floats:
        """The lesser of two, between nodes and from 128 KiB."""
        model = hardware.collectives
        in_one_domain = group.nodes == 1 or group.ranks <= (model.fabric.nvlink_domain_gpus or 0)
        if operation != "allreduce" or in_one_domain or model.profile.kind.collective_library != "nccl":
            return engine_us
        nvrar_us = model.estimate(operation, message_bytes, group, "nvrar").latency_us
        return np.where(message_bytes >= NVRAR_FROM_BYTES, np.minimum(engine_us, nvrar_us), engine_us)
