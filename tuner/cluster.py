"""The devices to plan for, and which of them a layout's ranks would sit on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from tuner.layout import ParallelLayout
from tuner.profile import HardwareProfile, load_profile
from tuner.request import ClusterSpec


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal nodes of equal devices.

    ``inter_node_gb_per_s`` is 10^9 bytes per second, device and direction; None: what the fabric's NICs give.
    """

    profile: HardwareProfile
    nodes: int
    gpus_per_node: int
    fabric: str
    inter_node_gb_per_s: float | None = None

    @classmethod
    def from_spec(cls, spec: ClusterSpec) -> Cluster:
        """Resolve the request's cluster section; raises BadInput for a device without a profile."""
        profile = load_profile(spec.gpu)
        fabric = spec.fabric or profile.fabric
        return cls(profile, spec.nodes, spec.gpus_per_node, fabric, spec.inter_node_gb_per_s)

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.nodes * self.gpus_per_node

    def nodes_spanned(self, ranks: int, stride: int = 1) -> int:
        """Nodes under a group of ``ranks`` devices, ``stride`` apart, that starts at a node's first device.

        Ranks are numbered as vLLM numbers them: tensor-parallel innermost, then prefill context, pipeline, data.
        """
        return -(-ranks * stride // self.gpus_per_node) if stride < self.gpus_per_node else ranks

    def crossing_links(self, layout: ParallelLayout) -> int:
        """Of a replica's pp − 1 stage links, how many join two nodes."""
        width = layout.tp * layout.pcp
        first_nodes = [stage * width // self.gpus_per_node for stage in range(layout.pp)]
        return sum(1 for a, b in pairwise(first_nodes) if a != b)
