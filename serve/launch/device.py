"""What a kind of device is to those that launch and deploy engines: a further kind is a further class here.

How each kind is priced says ``tuner.ask.device``. Names are those of vLLM 0.29 and of Ray 2.60.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from serve.launch import cpu_dtype
from serve.launch.accelerators import PROFILES, accelerator_resource, accelerators
from serve.launch.vllm_server import MODULE, SERVE
from tuner.ask.device import CPU
from tuner.ask.layout import ParallelLayout
from tuner.ask.profile import load_profile
from tuner.ask.request import ClusterSpec, Engine, TuneRequest
from tuner.errors import BadInput

GIB = 1 << 30
CPU_ON_RAY = "parlay_cpu_on_ray"  # the plugin of serve.launch.cpu_on_ray, which only engines import

Bundle = dict[str, float]


@dataclass(frozen=True, slots=True)
class PodNeeds:
    """What pods of a kind of device are given where nobody says otherwise.

    ``image`` is Ray's own, with its version left open, and ``image_has_engine`` where vLLM is in it, else ``engine``
    says in words what has to be added to it. ``plugin_devices``
    are devices that Kubernetes hands out by a device plugin, on nodes that keep other pods away; others are CPU cores.
    """

    image: str
    image_has_engine: bool
    plugin_devices: bool
    memory_gib_per_device: int
    shared_memory_gib: int
    engine: str = "vLLM"


class Device(Protocol):
    """How engines are launched on one kind of device."""

    @property
    def pods(self) -> PodNeeds:
        """What Kubernetes is asked for."""

    @property
    def server(self) -> tuple[str, ...]:
        """The words that start vLLM's server in a shell; with ``serve`` the model follows as the first argument."""

    @property
    def servers(self) -> tuple[str, ...]:
        """The same, where several processes are to speak HTTP."""

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """vLLM's engine arguments that every engine on these devices has, beside those of its memory."""

    @property
    def taken(self) -> Mapping[str, str]:
        """vLLM's arguments that no request may give here, and what stands against each."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables of the engine's processes, beside those of every kind."""

    def memory(self, engine: Engine) -> dict[str, Any]:
        """vLLM's engine arguments that size the KV cache."""

    def caution(self, engine: Engine) -> str | None:
        """What whoever waits for an engine on these devices of this machine has to be told."""

    def counts_as_gpus(self, layout: ParallelLayout) -> bool:
        """True where Ray's executor places ranks on devices that are no GPUs, which Ray then counts as GPUs."""

    @property
    def ingress_cpus(self) -> int:
        """CPUs that each replica of Serve's ingress claims."""

    def replica(self, layout: ParallelLayout) -> dict[str, Any]:
        """What the replica's own actor claims (``ray_actor_options``)."""

    def bundles(self, layout: ParallelLayout) -> list[Bundle]:
        """Bundles of one replica's placement group. Serve adds the replica's own resources to the first."""

    def check(self, layout: ParallelLayout) -> None:
        """Raise BadInput for a node group that Ray cannot tell from others."""

    def own_ray(self, devices: int) -> dict[str, int]:
        """Options of ``ray.init`` for a Ray of our own that is to have so many of them; absent: what Ray finds."""

    def stands_in(self, resources: Mapping[str, float], group: ClusterSpec) -> bool:
        """True for a node of ``group``, told from its resources in Ray."""


class CpuCores:
    """Each device is a CPU core.

    The engine runs uncompiled, in a compilation mode in which vLLM 0.29's CPU runner compiles nothing but warms up
    (``CPUModelRunner.warming_up_model``: a step of ``max_num_batched_tokens`` in every worker before it serves, with
    the tensors that pipeline stages exchange). ``enforce_eager`` would skip that, and an engine whose matrices are
    small, at most 1 MiB each, would die of SIGILL at a first prompt of up to four tokens on processors with AMX:

    - read in ``vllm/_C.abi3.so``: only the attention kernel of ISA "amx" (``cpu_attn._get_attn_isa``) loads tiles, and
      it never asks Linux for them (arch_prctl ARCH_REQ_XCOMP_PERM, once per process); oneDNN alone does, at first use;
    - read there, too: the kernel of small matrices (``layers.utils.check_cpu_sgl_kernel``) uses oneDNN beyond four
      rows;
    - seen on a Xeon with AMX: a first prompt of 3 tokens kills the worker, after one of 64 all lengths are answered;
    - inferred, not seen: that the warm-up, which takes the same way through oneDNN, does what that first prompt does.
    """

    pods = PodNeeds(
        image="rayproject/ray:{ray_version}-py312-cpu",
        image_has_engine=False,
        plugin_devices=False,
        memory_gib_per_device=16,
        shared_memory_gib=4,
        engine="vLLM for CPU",
    )
    server = ("python3", "-m", MODULE)  # vLLM's CPU build brings no working script
    servers = ("python3", "-c", SERVE)
    ingress_cpus = 0  # cores are devices
    kwargs: Mapping[str, Any] = {"compilation_config": {"mode": "STOCK_TORCH_COMPILE", "backend": "eager"}}
    taken: Mapping[str, str] = dict.fromkeys(
        ("compilation_config", "enforce_eager", "cudagraph_capture_sizes", "max_cudagraph_capture_size"),
        "nothing on CPUs, where engines run uncompiled in a mode of their own that warms up",
    )
    environment: Mapping[str, str] = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise more ranks than NUMA nodes are refused
        "OMP_NUM_THREADS": "1",  # a "device" is one core
        "TORCHDYNAMO_DISABLE": "1",  # the sampler alone would be compiled, in the first request and for 10 s
    }

    def memory(self, engine: Engine) -> dict[str, Any]:
        """A KV cache of its own size: cores have no memory to share out."""
        kv_cache_gib = engine.kv_cache_gib or CPU.default_kv_cache_gib
        return {} if kv_cache_gib is None else {"kv_cache_memory_bytes": int(kv_cache_gib * GIB)}

    def caution(self, engine: Engine) -> str | None:
        """Half precision, in which all but float32 computes (``tuner.ask.dtype.engine_dtype``), may be slow."""
        return None if engine.dtype == "float32" or cpu_dtype.multiplies_bfloat16() else cpu_dtype.WORDS

    def counts_as_gpus(self, layout: ParallelLayout) -> bool:
        """Under Ray's executor, see ``serve.launch.cpu_on_ray``."""
        return layout.executor == "ray"

    def replica(self, layout: ParallelLayout) -> dict[str, Any]:
        """Nothing beside its bundles."""
        return {"num_cpus": 0}

    def bundles(self, layout: ParallelLayout) -> list[Bundle]:
        """A core each, which counts as a GPU as well where ``counts_as_gpus``."""
        bundle: Bundle = {"CPU": 1, "GPU": 1} if self.counts_as_gpus(layout) else {"CPU": 1}
        return [dict(bundle) for _ in range(layout.devices_per_replica)]

    def check(self, layout: ParallelLayout) -> None:
        """Cores are cores: Ray Serve LLM refuses accelerator types with its kind "cpu"."""

    def own_ray(self, devices: int) -> dict[str, int]:
        """So many cores, each of them a GPU as well for Ray's executor: see ``counts_as_gpus``."""
        return {"num_cpus": devices, "num_gpus": devices}

    def stands_in(self, resources: Mapping[str, float], group: ClusterSpec) -> bool:
        """With enough cores."""
        return resources.get("CPU", 0) >= group.gpus_per_node


class Gpus:
    """Each device is a GPU of NVIDIA's."""

    pods = PodNeeds(
        image="rayproject/ray-llm:{ray_version}-py312-cu130",
        image_has_engine=True,
        plugin_devices=True,
        memory_gib_per_device=64,
        shared_memory_gib=20,
    )
    server = ("vllm", "serve")
    servers = server
    ingress_cpus = 1
    kwargs: Mapping[str, Any] = {}
    taken: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}

    def memory(self, engine: Engine) -> dict[str, Any]:
        """A share of the GPU's memory, and the KV cache's size where it is asked for."""
        memory: dict[str, Any] = {"gpu_memory_utilization": engine.gpu_memory_utilization}
        if engine.kv_cache_gib is not None:
            memory["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * GIB)
        return memory

    def caution(self, engine: Engine) -> str | None:
        """Nothing."""
        return None

    def counts_as_gpus(self, layout: ParallelLayout) -> bool:
        """They are GPUs."""
        return False

    def replica(self, layout: ParallelLayout) -> dict[str, Any]:
        """A core, and all GPUs where the ranks are its child processes."""
        return {"num_cpus": 1, "num_gpus": layout.devices_per_replica if layout.executor == "mp" else 0}

    def bundles(self, layout: ParallelLayout) -> list[Bundle]:
        """A GPU each for Ray's executor; else one, which the replica's own GPUs make the bundle of all its devices."""
        bundles: list[Bundle] = [{"CPU": 1}] if layout.executor == "mp" else [{"GPU": 1}] * layout.devices_per_replica
        own: Bundle = {} if layout.gpu is None else {accelerator_resource(layout.gpu): 0.001}
        return [bundle | own for bundle in bundles]

    def check(self, layout: ParallelLayout) -> None:
        """Ray must have a name for the GPUs of a node group."""
        if layout.gpu is not None:
            accelerator_resource(layout.gpu)

    def own_ray(self, devices: int) -> dict[str, int]:
        """All that Ray finds."""
        return {}

    def stands_in(self, resources: Mapping[str, float], group: ClusterSpec) -> bool:
        """With exactly so many GPUs, and of the group's where Ray knows of which."""
        if resources.get("GPU", 0) != group.gpus_per_node:
            return False
        typed = [PROFILES.get(name) for name in accelerators(resources)]
        return not typed or group.gpu in typed


class RocmGpus(Gpus):
    """Each device is a GPU of AMD's, which Ray counts as it counts NVIDIA's. Not tested on such a machine."""

    pods = replace(
        Gpus.pods,
        image="rayproject/ray:{ray_version}-py312",
        image_has_engine=False,
        engine="vLLM for ROCm (its GPUs are amd.com/gpu to Kubernetes)",
    )


_DEVICES: Mapping[str, Device] = {"cpu": CpuCores(), "gpu": Gpus(), "rocm": RocmGpus()}


def devices_of(spec: ClusterSpec) -> Device:
    """What stands in a node group; raises BadInput for one without a profile."""
    return _DEVICES[load_profile(spec.gpu).kind.name]


def cluster_of(layout: ParallelLayout, request: TuneRequest) -> ClusterSpec:
    """The node group where a layout lives.

    Raises BadInput where the cluster still has to be discovered, or has several groups and the layout names none.
    """
    groups = request.on(layout.gpu).groups
    if not groups:
        raise BadInput("cluster", "ray", "a cluster that was discovered before a layout is launched on it")
    if len(groups) > 1:
        raise BadInput("layout.gpu", None, ", ".join(group.gpu for group in groups))
    return groups[0]


def device_of(layout: ParallelLayout, request: TuneRequest) -> Device:
    """What a layout's ranks run on."""
    return devices_of(cluster_of(layout, request))
