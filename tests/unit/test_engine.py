"""Layouts as engine arguments and as Ray Serve applications: one source, nothing dropped, nothing silently replaced."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.launch.engine import check_served, engine_kwargs, environment, refused, serve_app, served_model_id, vllm_args
from tuner.ask.layout import AXES, FRONT_AXES, SPACE_AXES, ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.errors import BadInput


def request(gpu: str = "h100_sxm", nodes: int = 1, per_node: int = 8, **changes: Any) -> TuneRequest:
    document = {
        "model": "meta-llama/Llama-3.1-70B",
        "cluster": {"gpu": gpu, "nodes": nodes, "gpus_per_node": per_node},
        "workload": {"prompt_tokens": 1024, "output_tokens": 128, "arrival": {"requests_per_s": 1}},
        "slo": [{"metric": "ttft", "percentile": 99, "ms": 500}],
    }
    return parse_request(document | changes)


def config_of(app: dict[str, Any]) -> dict[str, Any]:
    arguments = app["args"]
    config = arguments["llm_config"] if "llm_config" in arguments else arguments["llm_configs"][0]
    assert isinstance(config, dict)
    return config


def served(layout: str, asked: TuneRequest, source: str = "org/model") -> dict[str, Any]:
    return serve_app("app", ParallelLayout.parse(layout), asked, model_source=source)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("meta-llama/Llama-3.1-70B", "Llama-3.1-70B"),
        ("/models/my model", "my-model"),
        ("./tiny/", "tiny"),
        ("/", "model"),
        ("ключ", "model"),
    ],
)
def test_the_served_name_needs_no_quoting(model: str, name: str) -> None:
    assert served_model_id(request(model=model)) == name


@pytest.mark.parametrize(
    ("gpu", "layout", "bundles", "actor", "strategy"),
    [
        ("cpu", "tp=2,pp=2", [{"CPU": 1}] * 4, {"num_cpus": 0}, "STRICT_PACK"),
        ("cpu", "tp=2,executor=ray", [{"CPU": 1, "GPU": 1}] * 2, {"num_cpus": 0}, "STRICT_PACK"),
        ("h100_sxm", "tp=4,executor=ray", [{"GPU": 1}] * 4, {"num_cpus": 1, "num_gpus": 0}, "STRICT_PACK"),
        ("h100_sxm", "tp=4,executor=mp", [{"CPU": 1}], {"num_cpus": 1, "num_gpus": 4}, "STRICT_PACK"),
        ("h100_sxm", "tp=8,pp=2,executor=ray", [{"GPU": 1}] * 16, {"num_cpus": 1, "num_gpus": 0}, "PACK"),
    ],
)
def test_every_device_has_its_place(
    gpu: str, layout: str, bundles: list[dict[str, int]], actor: dict[str, int], strategy: str
) -> None:
    config = config_of(served(layout, request(gpu, nodes=2)))
    assert config["placement_group_config"] == {"bundles": bundles, "strategy": strategy}
    assert config["deployment_config"]["ray_actor_options"] == actor
    assert config.get("accelerator_config") == ({"kind": "cpu"} if "ray" not in layout else None)


@pytest.mark.parametrize(
    ("gpu", "layout"),
    [
        ("cpu", "executor=uni"),
        ("h100_sxm", "executor=uni"),
        ("h100_sxm", "tp=8,pp=2,executor=mp"),
        ("h100_sxm", "tp=2,dp=2,ep=true,executor=mp"),
    ],
)
def test_an_executor_that_would_not_run_as_written_is_refused(gpu: str, layout: str) -> None:
    with pytest.raises(BadInput, match=r"layout\.executor"):
        check_served(ParallelLayout.parse(layout), request(gpu, nodes=2))


def test_a_node_group_that_ray_cannot_tell_from_others_is_refused_before_a_launch() -> None:
    groups = [{"gpu": gpu, "nodes": 1, "gpus_per_node": 8} for gpu in ("h100_sxm", "generic")]
    asked = request(cluster=groups)
    assert refused(ParallelLayout.parse("tp=2,gpu=h100_sxm"), asked) is None
    assert "generic does not run under Ray Serve" in (refused(ParallelLayout.parse("tp=2,gpu=generic"), asked) or "")


def test_dense_replicas_are_independent_and_expert_replicas_are_ranks() -> None:
    dense = served("tp=2,dp=3,executor=ray", request())
    assert dense["import_path"] == "ray.serve.llm:build_openai_app"
    assert config_of(dense)["deployment_config"]["num_replicas"] == 3
    assert "data_parallel_size" not in config_of(dense)["engine_kwargs"]
    experts = served("tp=2,dp=3,ep=true,executor=ray", request())
    assert experts["import_path"] == "ray.serve.llm:build_dp_openai_app"
    assert "num_replicas" not in config_of(experts)["deployment_config"]
    assert config_of(experts)["engine_kwargs"]["data_parallel_size"] == 3
    assert config_of(experts)["engine_kwargs"]["enable_expert_parallel"] is True


@pytest.mark.parametrize("layout", ["tp=1", "tp=2", "pp=2", "tp=2,executor=ray"])
def test_cpus_run_uncompiled_and_warm_up_before_they_serve(layout: str) -> None:
    """Eager mode would skip the warm-up; without it, processors with AMX die at a short first prompt."""
    asked = request("cpu")
    kwargs = engine_kwargs(ParallelLayout.parse(layout), asked)
    assert "enforce_eager" not in kwargs
    assert kwargs["compilation_config"] == {"mode": "STOCK_TORCH_COMPILE", "backend": "eager"}
    assert environment(ParallelLayout.parse(layout), asked, model_source="m")["TORCHDYNAMO_DISABLE"] == "1"
    assert kwargs["kv_cache_memory_bytes"] == 1 << 30
    assert "gpu_memory_utilization" not in kwargs


def test_a_local_model_never_asks_the_hub() -> None:
    layout = ParallelLayout()
    assert environment(layout, request(), model_source="/models/tiny")["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(layout, request(), model_source="org/model")


@pytest.mark.parametrize(("layout", "plugin"), [("executor=mp", ""), ("executor=ray", "parlay_cpu_on_ray")])
def test_cpu_ranks_have_one_thread_and_a_platform_that_ray_can_count(layout: str, plugin: str) -> None:
    on_cpus = environment(ParallelLayout.parse(layout), request("cpu"), model_source="org/model")
    assert (on_cpus["OMP_NUM_THREADS"], on_cpus["VLLM_PLUGINS"]) == ("1", plugin)
    on_gpus = environment(ParallelLayout.parse(layout), request(), model_source="org/model")
    assert "OMP_NUM_THREADS" not in on_gpus
    assert on_gpus["VLLM_PLUGINS"] == ""


layouts = st.builds(
    ParallelLayout,
    tp=st.sampled_from([1, 2, 4]),
    pp=st.sampled_from([1, 2]),
    dp=st.sampled_from([1, 2, 3]),
    dcp=st.sampled_from([1, 2]),
    executor=st.sampled_from(["mp", "ray"]),
    max_num_batched_tokens=st.sampled_from([256, 8192]),
    max_num_seqs=st.sampled_from([1, 64]),
)


@pytest.mark.slow
@given(layouts)
def test_an_application_is_plain_json_and_never_throttles(layout: ParallelLayout) -> None:
    app = serve_app("app", layout, request(), model_source="org/model")
    assert json.loads(json.dumps(app)) == app
    config = config_of(app)
    assert config["deployment_config"]["max_ongoing_requests"] >= 10**6
    assert app["args"]["ingress_deployment_config"]["max_ongoing_requests"] >= 10**6
    assert config["engine_kwargs"] == engine_kwargs(layout, request())


@given(layouts)
def test_the_command_line_says_what_the_application_says(layout: ParallelLayout) -> None:
    words = vllm_args(layout, request(), model_source="org/model", host="127.0.0.1", port=8123)
    said = dict(zip(words[:-1:2], words[1::2], strict=True))
    assert said["--data-parallel-size"] == str(layout.dp) if layout.dp > 1 else "--data-parallel-size" not in said
    for name, value in engine_kwargs(layout, request()).items():
        assert said["--" + name.replace("_", "-")] == str(value)


@pytest.mark.parametrize("name", [name for name in SPACE_AXES if name not in FRONT_AXES])
def test_no_axis_is_lost_on_the_way_to_the_engine(name: str) -> None:
    """Two layouts that differ in one axis are launched differently."""
    axis, base = AXES[name], ParallelLayout(tp=2, dp=2, ep=True, executor="ray")
    others = axis.words or ((False, True) if isinstance(axis.default, bool) else (1, 2, 3))
    apps = [
        serve_app("app", replace(base, **{name: other}), request(), model_source="org/model")
        for other in others
        if other != "uni"  # Ray Serve runs no such executor
        and not (name == "executor" and other == "mp")  # nor experts shared under that one
    ]
    assert len({json.dumps(app, sort_keys=True) for app in apps}) == len(apps)


def test_engine_arguments_are_those_of_vllm() -> None:
    package = find_spec("vllm")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs vLLM's source")
    source = (Path(package.submodule_search_locations[0]) / "engine/arg_utils.py").read_text(encoding="utf-8")
    for axis in AXES.values():
        assert axis.engine is None or re.search(rf"^    {axis.engine.name}: ", source, re.MULTILINE), axis.name
