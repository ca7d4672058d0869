"""What sets the kinds of devices apart in the models of the tuner: a further kind is a further entry.

How engines are launched and deployed on a kind says ``serve.launch.device``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """One kind of device under vLLM.

    ``architectures`` are the values of ``arch`` in profiles. With ``own_memory`` the engine takes a share of it, in
    which contexts, graphs and communicators have theirs as well; without, the device's memory is the host's.
    ``default_kv_cache_gib`` is the KV cache where a request gives none (None: what the share leaves),
    ``most_per_node`` how many of them nodes are built with (None: no limit). ``all_reduce_kernels``: vLLM has
    kernels of its own beside ``collective_library``. ``link`` is what joins the devices of a node (None: what the
    profile says); ``shared_overheads`` the file of ``profiles/engines`` on which every profile's engine section
    stands. ``fp8_cache_head_multiple``: attention reads a KV cache in fp8 for heads of its multiples, and no latent
    one (None: that depends on the compute capability). ``unpriced_formats``: weights for which vLLM has no kernel
    there, or only one that emulates it. ``caution`` is what people have to be told of every such device.
    """

    name: str
    architectures: tuple[str, ...]
    own_memory: bool
    default_kv_cache_gib: float | None
    most_per_node: int | None
    asynchronous_scheduling: bool
    all_reduce_kernels: bool
    collective_library: str
    link: str | None
    shared_overheads: str | None
    fp8_cache_head_multiple: int | None
    unpriced_formats: tuple[str, ...] = ()
    caution: str | None = None

    def memory_share(self, utilization: float) -> float:
        """Share of a device's memory that an engine may use, of which a request allows ``utilization``."""
        return utilization if self.own_memory else 1.0


GPU = DeviceKind(
    name="gpu",
    architectures=("ampere", "ada", "hopper", "blackwell", "generic"),
    own_memory=True,
    default_kv_cache_gib=None,
    most_per_node=8,  # as servers of NVIDIA GPUs are built
    asynchronous_scheduling=True,
    all_reduce_kernels=True,
    collective_library="nccl",
    link=None,
    shared_overheads="vllm.yaml",
    fp8_cache_head_multiple=None,
)
ROCM = DeviceKind(  # of AMD's, under vLLM's ROCm build
    name="rocm",
    architectures=("cdna3",),
    own_memory=True,
    default_kv_cache_gib=None,
    most_per_node=8,  # joined each to each, as OAM boards are built
    asynchronous_scheduling=True,
    all_reduce_kernels=True,  # custom all-reduce alone, up to 8 MiB on a node
    collective_library="rccl",
    link=None,
    shared_overheads="vllm.yaml",
    fp8_cache_head_multiple=None,
    unpriced_formats=(
        "nvfp4",
        "nvfp4_wo",
        "mxfp8",
        "fp8_wo",
    ),  # model_executor/kernels/linear of vLLM 0.29, before CDNA 4
    caution="launching on ROCm is not tested, and what vLLM adds to the kernels there is taken from CUDA",
)
CPU = DeviceKind(  # one core
    name="cpu",
    architectures=("cpu",),
    own_memory=False,
    default_kv_cache_gib=1.0,  # vLLM's own default is a share of the machine's memory, which two ranks cannot both have
    most_per_node=None,
    asynchronous_scheduling=False,
    all_reduce_kernels=False,
    collective_library="gloo",
    link="host",
    shared_overheads=None,
    fp8_cache_head_multiple=32,
)
KINDS = (GPU, ROCM, CPU)
ARCHITECTURES = tuple(arch for kind in KINDS for arch in kind.architectures)


def kind_of(architecture: object) -> DeviceKind | None:
    """The kind of devices of one of ``ARCHITECTURES``; None for what is none of them."""
    return next((kind for kind in KINDS if architecture in kind.architectures), None)
