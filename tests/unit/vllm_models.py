"""What vLLM's own classes build of a configuration: on the meta device, as one of so many ranks. For slow tests."""

import json
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from unittest.mock import patch

SHARED = "kv_sharing_target_layer_name"  # of a layer that reads another's cache
ALONE = {"WORLD": 1, "PP": 1, "DP": 1, "DCP": 1, "PCP": 1}


@dataclass(frozen=True)
class Built:
    parameters: int
    cache_bytes: float  # of a token
    longest: int
    state_elements: int = 0  # of a sequence


def build(config, ranks, directory):
    """A model in bfloat16 with such a ``config.json``, as the first of so many tensor-parallel ranks. Raises what the
    class raises where it cannot be cut like that."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import get_model_architecture
    from vllm.model_executor.models import registry
    from vllm.utils.torch_utils import set_default_torch_dtype

    def inspected(lazy):  # where we are: vLLM would start a process for it
        return registry._ModelInfo.from_model_cls(lazy.load_model_cls())

    groups = {f"_{name}": _group(torch, size) for name, size in (ALONE | {"TP": ranks, "EP": ranks}).items()}
    (directory / "config.json").write_text(json.dumps(config))
    arguments = EngineArgs(
        model=str(directory), skip_tokenizer_init=True, dtype="bfloat16", load_format="dummy", enforce_eager=True
    )
    with (
        patch.object(registry._LazyRegisteredModel, "inspect_model_cls", inspected),
        patch.multiple(parallel_state, **groups),
    ):
        engine = arguments.create_engine_config()
        heads = engine.model_config.model_arch_config.total_num_attention_heads
        assert heads % ranks == 0, "as ModelConfig.verify_with_parallel_config says"
        engine.parallel_config.tensor_parallel_size = ranks
        kind, _ = get_model_architecture(engine.model_config)
        with set_current_vllm_config(engine), torch.device("meta"), set_default_torch_dtype(torch.bfloat16):
            model = kind(vllm_config=engine)
        found = engine.compilation_config.static_forward_context.values()
        layers = [one for one in found if hasattr(one, "get_kv_cache_spec")]  # experts are listed too
        specs = [one.get_kv_cache_spec(engine) for one in layers if not getattr(one, SHARED, None)]
    states = [spec for spec in specs if hasattr(spec, "shapes")]
    return Built(
        parameters=sum(one.numel() for one in {id(one): one for one in model.parameters()}.values()),
        cache_bytes=sum(spec.page_size_bytes / spec.block_size for spec in specs if spec not in states),
        longest=engine.model_config.max_model_len,
        state_elements=sum(prod(shape) for spec in states for shape in spec.shapes),
    )


def _group(torch, size):
    return SimpleNamespace(
        world_size=size,
        rank=0,
        rank_in_group=0,
        local_rank=0,
        ranks=list(range(size)),
        is_first_rank=True,
        is_last_rank=size == 1,
        device_group=SimpleNamespace(size=lambda: size, rank=lambda: 0),
        cpu_group=None,
        device=torch.device("cpu"),
    )
