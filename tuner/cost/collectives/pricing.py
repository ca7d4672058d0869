"""The time of one collective call on a given GPU and network, as the engine would run it or as it is forced to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.profile import HardwareProfile
from tuner.cost.collectives import algorithms, dispatch, exchange, kernels, nccl_tuning
from tuner.cost.collectives.cost import Array, Cost, check_operation
from tuner.cost.collectives.dispatch import Choice, Segment
from tuner.cost.collectives.fits import KernelFit, fits_of
from tuner.cost.collectives.library import CommLibrary
from tuner.cost.collectives.topology import CommGroup, Fabric, load_fabric
from tuner.errors import BadInput

MODES = ("graph", "eager")
_NCCL_ALONE = (Segment(None, Choice("nccl", "nccl", "vLLM's own all-reduce kernels are switched off")),)
# Kernels launched one after another by algorithms of three phases.
_LAUNCHES = {"hierarchical": 3, "nvrar": 3}


@dataclass(frozen=True, slots=True)
class Estimate:
    """One operation's time by message size, and how it comes about.

    ``latency_us`` and every term have the message's shape, and the terms add up to the latency: ``alpha_us`` does not
    depend on the message, ``beta_us`` is its bytes on the links, ``held_us`` holds a larger message at the time of a
    smaller one where the engine changes to a quicker algorithm between them; in eager mode ``copy_us`` is the copy into
    a registered buffer and ``host_launch_us`` the wait for a host that is slower than the GPU. ``algorithm`` and
    ``implementation`` are names, of the message's shape; ``why`` has one sentence for each that occurs.
    """

    operation: str
    algorithm: NDArray[np.str_]
    implementation: NDArray[np.str_]
    latency_us: Array
    terms: Mapping[str, Array]
    why: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Segment:
    up_to_bytes: float
    choice: Choice
    least_us: float


class CollectiveModel:
    """Prices collectives on one kind of GPU and one network, for one vLLM release.

    ``message_bytes`` is the whole buffer of one rank: what an all-reduce reduces, an all-gather ends with, a
    reduce-scatter or an all-to-all starts with, a send sends. ``inter_node_gb_per_s`` (10^9 bytes per
    second, GPU and direction) overrules the fabric's NICs; without ``custom_kernels`` every all-reduce goes to NCCL.
    Plans of the dispatch are kept between calls.
    """

    def __init__(
        self,
        profile: HardwareProfile,
        fabric: Fabric,
        vllm_version: tuple[int, ...],
        inter_node_gb_per_s: float | None = None,
        custom_kernels: bool = True,
    ) -> None:
        self.profile, self.fabric, self.vllm_version = profile, fabric, vllm_version
        self._custom_kernels = custom_kernels
        self._fits = fits_of(profile)
        inter_bytes_per_s = None if inter_node_gb_per_s is None else inter_node_gb_per_s * 1e9
        self._library = CommLibrary(profile, fabric, inter_bytes_per_s)
        self._plans: dict[CommGroup, tuple[_Segment, ...]] = {}

    @classmethod
    def of(
        cls,
        profile: HardwareProfile,
        fabric: Fabric | str | None = None,
        vllm_version: str | None = None,
        inter_node_gb_per_s: float | None = None,
        custom_kernels: bool = True,
    ) -> CollectiveModel:
        """A model from names; ``fabric`` None takes the profile's, ``vllm_version`` None the newest release known.

        ``BadInput`` for an unknown fabric or a version that is none.
        """
        chosen = fabric if isinstance(fabric, Fabric) else load_fabric(fabric or profile.fabric)
        return cls(profile, chosen, dispatch.parse_version(vllm_version), inter_node_gb_per_s, custom_kernels)

    def latency_us(self, operation: str, message_bytes: ArrayLike, group: CommGroup, mode: str = "graph") -> Array:
        """Microseconds of one call as the engine runs it, of the message's shape; 0 for a single rank."""
        check_operation(operation)
        _check_mode(mode)
        size = np.asarray(message_bytes, dtype=np.float64)
        if group.ranks == 1:
            return np.zeros_like(size)
        total = np.zeros_like(size)
        for term in self._terms(operation, size, group, mode).values():
            total = total + term
        return total

    def estimate(
        self,
        operation: str,
        message_bytes: ArrayLike,
        group: CommGroup,
        algorithm: str | None = None,
        mode: str = "graph",
    ) -> Estimate:
        """Time, terms, names and reasons; ``algorithm`` None lets the engine choose.

        A forced ``nccl-*`` algorithm is priced by NCCL's own tuning model, ``nccl`` by its measured fit, the kernels of
        vLLM by theirs, all others by their textbook form over this hardware's links. ``BadInput`` for unknown names.
        """
        check_operation(operation)
        _check_mode(mode)
        size = np.asarray(message_bytes, dtype=np.float64)
        if group.ranks == 1:
            return _single(operation, size, algorithm, Cost(0 * size, 0 * size), "one rank sends nothing")
        if algorithm is not None:
            algorithms.check_name(operation, algorithm)
            cost, why = self._forced(operation, size, group, algorithm)
            return _single(operation, size, algorithm, cost, why)
        names, makers, why_by_name = self._names(operation, size, group)
        terms = self._terms(operation, size, group, mode)
        latency_us = np.sum(np.stack(list(terms.values())), axis=0)
        return Estimate(operation, names, makers, latency_us, terms, why_by_name)

    def exchange_us(self, backend: str, phase: str, message_bytes: ArrayLike, group: CommGroup) -> Array:
        """Microseconds of tokens that travel to their experts by DeepEP's kernels; see ``exchange.exchange_us``."""
        return exchange.exchange_us(self.profile, backend, phase, message_bytes, self._library.place(group))

    # -- what the engine runs ------------------------------------------------------------------------------------------

    def _terms(self, operation: str, size: Array, group: CommGroup, mode: str) -> dict[str, Array]:
        if operation != "allreduce" or not self.profile.kind.all_reduce_kernels:
            cost = self._library.price(operation, size, group)[0]
            terms = {"alpha_us": cost.alpha_us, "beta_us": cost.beta_us}
            symmetric: NDArray[np.bool_] = np.zeros_like(size, dtype=bool)
        else:
            terms, symmetric = self._dispatched(size, group)
        eager = self._fits.eager
        if mode == "graph" or eager is None:
            return terms
        terms["copy_us"] = 2 * size / (eager.copy_efficiency * self.profile.memory_bytes_per_s / 1e6)
        gpu_us = np.sum(np.stack(list(terms.values())), axis=0)
        launch_us = np.where(symmetric, eager.symmetric_us or eager.kernel_us, eager.kernel_us)
        return terms | {"host_launch_us": np.maximum(launch_us - gpu_us, 0.0)}

    def _dispatched(self, size: Array, group: CommGroup) -> tuple[dict[str, Array], NDArray[np.bool_]]:
        """Terms of an all-reduce through vLLM's gates, and where it takes the symmetric-memory path."""
        plan = self._plan(group)
        which = np.searchsorted([segment.up_to_bytes for segment in plan], size)
        if len(plan) == 1 or (which == which.flat[0]).all():
            first = plan[0 if size.size == 0 else int(which.flat[0])]
            cost = self._run(first.choice, size, group)
            held_us = np.maximum(first.least_us - cost.latency_us, 0.0)
            symmetric = np.full(size.shape, first.choice.implementation == "symmetric-memory")
            return {"alpha_us": cost.alpha_us, "beta_us": cost.beta_us, "held_us": held_us}, symmetric
        costs = [self._run(segment.choice, size, group) for segment in plan]
        alpha_us = np.choose(which, [cost.alpha_us for cost in costs])
        beta_us = np.choose(which, [cost.beta_us for cost in costs])
        least_us = np.array([segment.least_us for segment in plan])[which]
        is_symmetric = np.array([segment.choice.implementation == "symmetric-memory" for segment in plan])
        held_us = np.maximum(least_us - alpha_us - beta_us, 0.0)
        return {"alpha_us": alpha_us, "beta_us": beta_us, "held_us": held_us}, is_symmetric[which]

    def _plan(self, group: CommGroup) -> tuple[_Segment, ...]:
        """vLLM's choices by message size, each with the longest time of the sizes before it."""
        if group in self._plans:
            return self._plans[group]
        top = self._library.place(group)
        site = dispatch.Site(
            capability=dispatch.capability_of(self.profile.compute_capability),
            ranks=group.ranks,
            hosts=group.nodes,
            nvlink=top.link == "nvlink",
            one_domain=top.group.nodes == 1,
            version=self.vllm_version,
        )
        plan: list[_Segment] = []
        least_us = 0.0
        for segment in dispatch.segments(site) if self._custom_kernels else _NCCL_ALONE:
            edge = np.inf if segment.up_to_bytes is None else float(segment.up_to_bytes)
            plan.append(_Segment(edge, segment.choice, least_us))
            if segment.up_to_bytes is not None:
                at_edge = self._run(segment.choice, np.array([edge]), group).latency_us
                least_us = max(least_us, float(at_edge[0]))
        self._plans[group] = tuple(plan)
        return self._plans[group]

    def _run(self, choice: Choice, size: Array, group: CommGroup) -> Cost:
        """Time of one choice of the dispatch, without what comes before it in the order of sizes."""
        top, fits = self._library.place(group), self._fits
        link = top.intra_bytes_per_s
        if choice.implementation == "nccl":
            return self._library.price("allreduce", size, group)[0]
        if choice.algorithm == "one-shot":
            return kernels.one_shot(_kernel(fits.one_shot, "one_shot"), group.ranks, size, link)
        two_shot = _kernel(fits.two_shot, "two_shot")
        if choice.implementation != "symmetric-memory" or fits.symmetric is None:
            return kernels.two_shot(two_shot, group.ranks, size, link)
        if choice.algorithm == "nvls":
            return kernels.multimem(fits.symmetric, size, link)
        copies = self.profile.memory_bytes_per_s * (fits.eager.copy_efficiency if fits.eager else 1.0)
        return kernels.symmetric_two_shot(fits.symmetric, two_shot, group.ranks, size, (link, copies))

    def _names(
        self, operation: str, size: Array, group: CommGroup
    ) -> tuple[NDArray[np.str_], NDArray[np.str_], dict[str, str]]:
        if operation != "allreduce" or not self.profile.kind.all_reduce_kernels:
            names = self._library.price(operation, size, group)[1]
            maker = self.profile.kind.collective_library
            why = f"vLLM runs {operation} by {maker}" + (", the quickest protocol" if maker == "nccl" else "")
            return names, np.full(size.shape, maker), {str(name): why for name in np.unique(names)}
        plan = self._plan(group)
        which = np.searchsorted([segment.up_to_bytes for segment in plan], size)
        library = self._library.price(operation, size, group)[1]
        picked = np.array([segment.choice.algorithm for segment in plan])[which]
        makers = np.array([segment.choice.implementation for segment in plan])[which]
        names = np.where(makers == "nccl", library, picked)
        why_by_name = {}
        for name, index in zip(np.ravel(names), np.ravel(which), strict=True):
            why_by_name[str(name)] = plan[index].choice.why
        return names, makers, why_by_name

    # -- what the operator forces --------------------------------------------------------------------------------------

    def _forced(self, operation: str, size: Array, group: CommGroup, algorithm: str) -> tuple[Cost, str]:
        top, fits = self._library.place(group), self._fits
        if algorithm == "nccl":
            return self._library.price(operation, size, group)[0], "forced: NCCL, which takes its quickest protocol"
        if algorithm == "mpi":
            hop_us = self.fabric.mpi_hop_us
            links = replace(self._library.links(group), intra_alpha_us=hop_us, inter_alpha_us=hop_us)
            cost = algorithms.mpi(operation, group.ranks, top.group.nodes, links, size)
            launches = algorithms.reducing_rounds(operation, group.ranks) if fits.nccl is not None else 0
            launch_us = launches * fits.nccl.launch_us if fits.nccl is not None else 0.0
            why = f"forced: MPICH's own choice over this hardware's links, and {launches} kernels that reduce"
            return Cost(cost.alpha_us + launch_us, cost.beta_us), why
        if algorithm.startswith("nccl-"):
            cost = nccl_tuning.tuned_cost(operation, algorithm, self._library.tuned(top), size)
            return cost, "forced: by the constants of NCCL's own tuning model"
        if operation == "allreduce" and fits.host is None and top.group.nodes == 1:
            fitted = {"one-shot": "custom", "two-shot": "custom", "nvls": "symmetric-memory"}
            parts = {"one-shot": fits.one_shot, "two-shot": fits.two_shot, "nvls": fits.symmetric}
            if parts.get(algorithm) is not None:
                cost = self._run(Choice(fitted[algorithm], algorithm, ""), size, group)
                return cost, "forced: by the fit of vLLM's own kernel on this GPU"
        links = self._library.links(group)
        if algorithm == "nvrar":
            cost = algorithms.nvrar(group.ranks, top.group.nodes, links, size)
        else:
            cost = algorithms.price(
                algorithms.strategy(operation, algorithm)(group.ranks, top.group.nodes), links, size
            )
        launches = _LAUNCHES.get(algorithm, 1) if fits.nccl is not None else 0
        launch_us = launches * fits.nccl.launch_us if fits.nccl is not None else 0.0
        why = f"forced: the textbook form over this hardware's links, and {launches} kernel launches"
        return Cost(cost.alpha_us + launch_us, cost.beta_us), why


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise BadInput("mode", mode, ", ".join(MODES))


def _single(operation: str, size: Array, algorithm: str | None, cost: Cost, why: str) -> Estimate:
    name = algorithm or "none"
    return Estimate(
        operation,
        np.full(size.shape, name),
        np.full(size.shape, "forced" if algorithm else "none"),
        cost.latency_us,
        {"alpha_us": cost.alpha_us, "beta_us": cost.beta_us},
        {name: why},
    )


def _kernel(fit: KernelFit | None, name: str) -> KernelFit:
    if fit is None:
        raise BadInput(f"collectives.{name}", None, "a GPU profile with this section")
    return fit
