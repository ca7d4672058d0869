"""The communication library under vLLM: NCCL between GPUs, gloo between CPU processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tuner.ask.profile import HardwareProfile
from tuner.cost.collectives import algorithms, kernels, nccl_tuning
from tuner.cost.collectives.cost import Array, Cost, cheapest, cost_of, ring_steps
from tuner.cost.collectives.fits import CollectiveFits, NcclFit, fits_of
from tuner.cost.collectives.topology import CommGroup, Fabric, Topology
from tuner.cost.collectives.topology import place as locate
from tuner.errors import BadInput

# NCCL's large-message share of PCIe's signalling rate: 12 GB/s of 15.75 on a Gen3 x16 slot (tuning.cc, PCI_BW).
_PCIE_BUS_SHARE = 12 / 15.75
_UNKNOWN_BUS_SHARE = 0.8  # of links whose generation NCCL's model does not know: as of NVLink's, 20 of 25 GB/s
# Host time to post one send to another node (NCCL's net overhead).
_POST_US = 1.0


class CommLibrary:
    """Prices what goes through the library: by its fit inside a node, by NCCL's tuning model between nodes."""

    def __init__(self, profile: HardwareProfile, fabric: Fabric, inter_bytes_per_s: float | None) -> None:
        self.profile, self.fabric = profile, fabric
        self._inter_bytes_per_s = inter_bytes_per_s
        self._fits = fits_of(profile)
        self._places: dict[CommGroup, Topology] = {}

    def price(self, operation: str, size: Array, group: CommGroup) -> tuple[Cost, NDArray[np.str_]]:
        """The communication library's own time and the algorithm it takes, by message size."""
        top, fits = self.place(group), self._fits
        if fits.host is not None:
            cost = kernels.host(fits.host, operation, group.ranks_per_node, size)
            if group.nodes > 1:
                across = algorithms.strategy(operation, algorithms.DEFAULTS[operation])(group.nodes, group.nodes)
                network = algorithms.price(across, self.links(group), size)
                cost = Cost(cost.alpha_us + network.alpha_us, cost.beta_us + network.beta_us)
            return cost, np.full(size.shape, "ring")
        fit = _nccl_fit(fits)
        if top.group.nodes == 1:
            cost, best = kernels.nccl(fit, operation, group.ranks, size, top.intra_bytes_per_s, top.link != "nvlink")
            return cost, np.array(kernels.NCCL_NAMES)[best]
        if operation not in nccl_tuning.TUNED_OPERATIONS:
            return self._peers(operation, size, top, fit), np.full(size.shape, "one-shot")
        tuned = self.tuned(top)
        names = nccl_tuning.available(operation, tuned)
        cost, best = cheapest([nccl_tuning.tuned_cost(operation, name, tuned, size) for name in names])
        return Cost(cost.alpha_us + self._measured_extra_us(operation, top, fit), cost.beta_us), np.array(names)[best]

    def _measured_extra_us(self, operation: str, top: Topology, fit: NcclFit) -> float:
        """By how much NCCL's model is too quick for the ranks of one node, in latency: it is so across nodes too."""
        inside = replace(self.tuned(top), ranks=top.group.ranks_per_node, nodes=1)
        steps = ring_steps(operation, inside.ranks)
        modelled = nccl_tuning.tuned_cost(operation, "nccl-ring-ll", inside, np.zeros(1)).alpha_us[0]
        measured = fit.launch_us + fit.step_us * steps
        return max(0.0, measured - float(modelled if steps else measured))

    def _peers(self, operation: str, size: Array, top: Topology, fit: NcclFit) -> Cost:
        """Grouped sends and receives across nodes: both kinds of link at once, so the slower one counts."""
        group = top.group
        name = "one-shot" if operation != "broadcast" else "tree"
        share = algorithms.strategy(operation, name)(group.ranks, group.nodes)
        peers = ring_steps(operation, group.ranks)
        remote = max(1, group.ranks - group.ranks_per_node) if peers > 1 else 1
        network_us = self.fabric.hop_us + self.fabric.nccl_latency_us + _POST_US * remote
        inside_us = share.intra_share * size / (self.links(group).intra_bytes_per_s / 1e6)
        across_us = share.inter_share * size / (top.inter_bytes_per_s / 1e6)
        alpha_us = fit.peers_launch_us + fit.peer_us * peers + network_us
        return cost_of(alpha_us, np.maximum(inside_us, across_us))

    def tuned(self, top: Topology) -> nccl_tuning.TunedGroup:
        """The group as NCCL's tuning model sees it."""
        generation = nccl_tuning.generation_of(self.profile.compute_capability)
        if top.link == "nvlink":
            bus = self.profile.nvlink.bytes_per_s / 1e9 * _UNKNOWN_BUS_SHARE
            if self.profile.compute_capability is not None:
                bus = self.profile.nvlink.links * nccl_tuning.NVLINK_GB_PER_S[generation]
        else:
            per_node, fit = top.group.ranks_per_node, _nccl_fit(self._fits)
            shared = kernels.shared_bytes_per_s(fit, per_node, top.intra_bytes_per_s, True)
            bus = shared / 1e9 * min(_PCIE_BUS_SHARE, fit.simple_efficiency)  # a node's own ranks reach no more of it
        if top.group.nodes > 1:
            bus = min(bus, top.inter_bytes_per_s / 1e9 * top.group.ranks_per_node)
        return nccl_tuning.TunedGroup(
            ranks=top.group.ranks,
            nodes=top.group.nodes,
            generation=generation,
            link="nvlink" if top.link == "nvlink" else "pcie",
            bus_gb_per_s=bus,
            network_us=self.fabric.nccl_latency_us,
            has_near_nics=self.fabric.has_near_nics,
            amd_hosts=self.fabric.amd_hosts,
        )

    def links(self, group: CommGroup) -> algorithms.LinkFigures:
        """α and β of this hardware for the textbook algorithms."""
        top, fits = self.place(group), self._fits
        if fits.host is not None:
            alpha_us, bytes_per_s = fits.host.alpha_us, fits.host.gb_per_s * 1e9
        else:
            fit = _nccl_fit(fits)
            alpha_us = fit.step_us
            per_node, is_shared = top.group.ranks_per_node, top.link != "nvlink"
            shared = kernels.shared_bytes_per_s(fit, per_node, top.intra_bytes_per_s, is_shared)
            bytes_per_s = fit.simple_efficiency * shared
        return algorithms.LinkFigures(alpha_us, bytes_per_s, self.fabric.hop_us, top.inter_bytes_per_s)

    def place(self, group: CommGroup) -> Topology:
        """The group on its links (kept between calls)."""
        if group not in self._places:
            self._places[group] = locate(group, self.profile, self.fabric, self._inter_bytes_per_s)
        return self._places[group]


def _nccl_fit(fits: CollectiveFits) -> NcclFit:
    if fits.nccl is None:
        raise BadInput("collectives.nccl", None, "a GPU profile with this section")
    return fits.nccl
