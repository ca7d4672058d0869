"""The section ``engine`` of a request: what may be said to vLLM, what is refused with what help, and where it goes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deploy.specs.shipment import Shipment
from deploy.specs.writing import emit
from serve.launch.engine import engine_kwargs, environment, refused, serve_app, served_model_id, vllm_args
from tests.unit.test_engine import config_of, request
from tuner.ask.engine_arguments import Argument, release
from tuner.ask.engine_policy import require_allowed
from tuner.ask.engine_settings import PASSED, Engine
from tuner.ask.engine_version import NEWEST, RELEASES, EngineVersion
from tuner.ask.layout import AXES, ParallelLayout
from tuner.errors import BadInput
from tuner.trial.launched import Launched, RayApplication

LAYOUT = ParallelLayout.parse("tp=2,pp=1,dp=1")
SAID: dict[str, Any] = {
    "trust_remote_code": True,
    "revision": "abc123",
    "served_model_name": "org/chat",
    "block_size": 64,
    "enable_prefix_caching": False,
    "cudagraph_capture_sizes": [1, 2, 4],
    "extra_args": {
        "tool_call_parser": "hermes",
        "enable_auto_tool_choice": True,
        "limit_mm_per_prompt": {"image": 0},
        "max_logprobs": -1,
        "lora_modules": [{"name": "a", "path": "org/adapter"}],
    },
    "env": {"VLLM_USE_V2_MODEL_RUNNER": 1, "NCCL_DEBUG": "INFO"},
}


def said(engine: dict[str, Any], **changes: Any) -> Any:
    return request(engine=engine, **changes)


REFUSED = [
    # what is said, the place, and a part of what is allowed
    ({"block_sise": 64}, "engine.block_sise", "block_size"),
    ({"block_size": 24}, "engine.block_size", "multiple of 16"),
    ({"trust_remote_code": "yes"}, "engine.trust_remote_code", "boolean"),
    ({"tokenizer_mode": "mine"}, "engine.tokenizer_mode", "one of auto, hf"),
    ({"version": "0.33"}, "engine.version", "one of 0.26, 0.27, 0.28, 0.29"),
    ({"version": "newest"}, "engine.version", "a release of vLLM"),
    ({"revision": "--x"}, "engine.revision", "a branch"),
    ({"enforce_eager": True, "max_cudagraph_capture_size": 8}, "engine", "one of enforce_eager"),
    ({"extra_args": {"tool_call_parsr": "x"}}, "engine.extra_args.tool_call_parsr", "such as tool_call_parser"),
    ({"extra_args": {"--max-logprob": 5}}, "engine.extra_args.--max-logprob", "such as max_logprobs"),
    ({"extra_args": {"toolCallParsr": "x"}}, "engine.extra_args.toolCallParsr", "such as tool_call_parser"),
    ({"extra_args": {"TOOL_CALL_PARSER": "x"}}, "engine.extra_args.TOOL_CALL_PARSER", "such as tool_call_parser"),
    ({"extra_args": {"tensorParallelSize": 2}}, "engine.extra_args.tensorParallelSize", "the layout's axis tp"),
    ({"extra_args": {"seed": "3"}}, "engine.extra_args.seed", "a whole number"),
    ({"extra_args": {"seed": True}}, "engine.extra_args.seed", "a whole number"),
    ({"extra_args": {"attention_backend": "FLASH"}}, "engine.extra_args.attention_backend", "FLASH_ATTN"),
    ({"extra_args": {"tensor_parallel_size": 2}}, "engine.extra_args.tensor_parallel_size", "the layout's axis tp"),
    ({"extra_args": {"--data-parallel-size": 2}}, "engine.extra_args.--data-parallel-size", "the layout's axis dp"),
    ({"extra_args": ["--enforce-eager"]}, "engine.extra_args", "a mapping of names to values"),
    ({"env": "A=1"}, "engine.env", "a mapping of names to values"),
    ({"extra_args": {"kv_cache_dtype": "fp8"}}, "engine.extra_args.kv_cache_dtype", "the layout's axis kv_cache_dtype"),
    ({"extra_args": {"data_parallel_size_local": 2}}, "engine.extra_args.data_parallel_size_local", "axis dp"),
    ({"extra_args": {"block_size": 16}}, "engine.extra_args.block_size", "engine.block_size"),
    ({"extra_args": {"model": "x"}}, "engine.extra_args.model", "the request's key model"),
    ({"extra_args": {"port": 80}}, "engine.extra_args.port", "ports"),
    ({"extra_args": {"worker_cls": "a.B"}}, "engine.extra_args.worker_cls", "loads code"),
    ({"extra_args": {"middleware": ["a.b"]}}, "engine.extra_args.middleware", "loads code"),
    ({"extra_args": {"hf_overrides": {"num_hidden_layers": 2}}}, "engine.extra_args.hf_overrides", "another model"),
    ({"extra_args": {"hf_token": "hf_x"}}, "engine.extra_args.hf_token", "no secrets"),
    ({"extra_args": {"load_format": "mine"}}, "engine.extra_args.load_format", "one of auto"),
    ({"extra_args": {"chat_template": "/etc/passwd"}}, "engine.extra_args.chat_template", "a template"),
    (
        {"extra_args": {"compilation_config": {"cudagraph_mod": "FULL"}}},
        "engine.extra_args.compilation_config.cudagraph_mod",
        "such as cudagraph_mode",
    ),
    (
        {"extra_args": {"compilation_config": {"backend": "os.system"}}},
        "engine.extra_args.compilation_config.backend",
        "inductor",
    ),
    (
        {"extra_args": {"kv_transfer_config": {"kv_connector": "X", "kv_connector_module_path": "x"}}},
        "engine.extra_args.kv_transfer_config.kv_connector_module_path",
        "loads code",
    ),
    (
        {"extra_args": {"kv_transfer_config": {"kv_connector_extra_config": {"spec_module_path": "x"}}}},
        "engine.extra_args.kv_transfer_config.kv_connector_extra_config.spec_module_path",
        "loads code",
    ),
    ({"env": {"LD_PRELOAD": "x"}}, "engine.env.LD_PRELOAD", "loads code"),
    ({"env": {"PYTHONPATH": "x"}}, "engine.env.PYTHONPATH", "loads code"),
    ({"env": {"NCCL_TUNER_PLUGIN": "x"}}, "engine.env.NCCL_TUNER_PLUGIN", "loads code"),
    ({"env": {"VLLM_PORT": 3}}, "engine.env.VLLM_PORT", "places ranks"),
    ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "engine.env.CUDA_VISIBLE_DEVICES", "places ranks"),
    ({"env": {"VLLM_PLUGINS": "x"}}, "engine.env.VLLM_PLUGINS", "loads code"),
    ({"env": {"VLLM_USE_V2_MODEL_RUNER": "1"}}, "engine.env.VLLM_USE_V2_MODEL_RUNER", "VLLM_USE_V2_MODEL_RUNNER"),
    ({"env": {"vllm_x": "1"}}, "engine.env.vllm_x", "capital letters"),
    ({"env": {"NCCL_DEBUG": "a\nb"}}, "engine.env.NCCL_DEBUG", "printable"),
]


@pytest.mark.parametrize(("engine", "where", "allowed"), REFUSED, ids=[where for _, where, _ in REFUSED])
def test_what_vllm_does_not_have_or_a_request_must_not_say_is_refused(
    engine: dict[str, Any], where: str, allowed: str
) -> None:
    with pytest.raises(BadInput) as caught:
        said(engine)
    assert caught.value.where == f"request: {where}"
    assert allowed in caught.value.allowed


SECRETS = [
    *(
        ("env", name)
        for name in ("VLLM_API_KEY", "HF_TOKEN", "S3_SECRET_ACCESS_KEY", "OPENAI_KEY", "hf_token", "openai-api-key")
    ),
    *(("extra_args", name) for name in ("api_key", "--api-key", "API_KEY", "apiKey", "hfToken", "openai_api_key")),
]


@pytest.mark.parametrize(("section", "name"), SECRETS)
def test_a_secret_is_refused_and_not_repeated(section: str, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        said({section: {name: "hf_abc"}})
    assert "no secrets" in str(caught.value)
    assert "hf_abc" not in str(caught.value)


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_may_be_a_number_as_yaml_reads_it(release: EngineVersion) -> None:
    assert said({"version": float(str(release))}).engine.release == release


def test_names_are_those_of_the_asked_release() -> None:
    assert said({"version": "0.26", "extra_args": {"max_num_partial_prefills": 2}}).engine.extra_args
    with pytest.raises(BadInput, match=r"an argument of vLLM 0\.27"):
        said({"version": "0.27", "extra_args": {"max_num_partial_prefills": 2}})
    with pytest.raises(BadInput, match=r"an argument of vLLM 0\.28"):
        said({"version": "0.28", "extra_args": {"max_num_queued_reqs": 2}})
    assert said({"extra_args": {"max_num_queued_reqs": 2}}).engine.extra_args


def test_every_release_has_what_parlay_itself_passes() -> None:
    own = {axis.engine.name for axis in AXES.values() if axis.engine} | {*PASSED, "dtype", "max_model_len"}
    for version in RELEASES:
        assert own <= set(release(version).arguments), version
        assert {"deepseek_v32", "kimi_k25"} <= release(version).model_types


def test_what_is_said_reaches_the_engine_and_its_processes() -> None:
    asked = said(SAID)
    kwargs = engine_kwargs(LAYOUT, asked)
    for name in ("trust_remote_code", "block_size", "enable_prefix_caching", "cudagraph_capture_sizes"):
        assert kwargs[name] == SAID[name]
    assert SAID["extra_args"].items() <= kwargs.items()
    assert {kwargs["revision"], kwargs["tokenizer_revision"], kwargs["code_revision"]} == {"abc123"}
    assert served_model_id(asked) == "org/chat"
    variables = environment(LAYOUT, asked, model_source="org/model")
    assert (variables["VLLM_USE_V2_MODEL_RUNNER"], variables["NCCL_DEBUG"]) == ("1", "INFO")


def test_nothing_said_changes_nothing() -> None:
    assert engine_kwargs(LAYOUT, request()) == engine_kwargs(LAYOUT, said({}))
    assert Engine().passed == {}


def test_words_of_the_command_line() -> None:
    words = vllm_args(LAYOUT, said(SAID), model_source="org/model", host="127.0.0.1", port=1)
    line = f" {shlex.join(words)} "
    assert " --trust-remote-code " in line
    assert " --no-enable-prefix-caching " in line
    assert " --cudagraph-capture-sizes 1 2 4 " in line
    assert " --max-logprobs=-1 " in line
    assert """ --limit-mm-per-prompt '{"image": 0}' """ in line
    assert """ --lora-modules '{"name": "a", "path": "org/adapter"}' """ in line


@pytest.mark.parametrize("spec_format", ["ray-serve", "rayservice", "helm-values", "vllm"])
def test_what_is_said_is_in_every_emitted_spec(spec_format: str) -> None:
    asked = said(SAID)
    app = serve_app("app", LAYOUT, asked, model_source="org/model")
    launched = Launched("ray-serve", {"ray": "2.60.0", "vllm": "0.29.0"}, "org/model", RayApplication(app))
    text = emit(spec_format, Shipment("chat", LAYOUT, asked, launched))
    flags = spec_format == "vllm"
    for name in (
        "trust_remote_code",
        "block_size",
        "cudagraph_capture_sizes",
        "tool_call_parser",
        "limit_mm_per_prompt",
    ):
        assert (f"--{name.replace('_', '-')}" if flags else name) in text
    assert ("--no-enable-prefix-caching" if flags else "enable_prefix_caching: false") in text
    assert "VLLM_USE_V2_MODEL_RUNNER" in text
    assert "org/chat" in text


@pytest.mark.parametrize("name", ["root_path", "allowed_origins", "sse_keep_alive_interval"])
def test_arguments_of_vllms_own_server_are_refused_by_name_under_ray_serve(name: str) -> None:
    values: dict[str, Any] = {"root_path": "/v", "allowed_origins": ["*"], "sse_keep_alive_interval": 5}
    asked = said({"extra_args": {name: values[name]}})
    assert f"extra_args.{name}" in (refused(LAYOUT, asked) or "")
    words = vllm_args(LAYOUT, asked, model_source="org/model", host="127.0.0.1", port=1)
    assert f"--{name.replace('_', '-')}" in words


def test_parsers_and_templates_reach_ray_serve() -> None:
    extra = {"tool_call_parser": "hermes", "reasoning_parser": "qwen3", "chat_template": "{{ messages }}"}
    app = serve_app("app", LAYOUT, said({"extra_args": extra}), model_source="org/model")
    assert extra.items() <= config_of(app)["engine_kwargs"].items()


@pytest.mark.parametrize("engine", [{"enforce_eager": True}, {"extra_args": {"compilation_config": {"mode": 0}}}])
def test_cpus_run_in_a_mode_of_their_own(engine: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="on CPUs"):
        engine_kwargs(LAYOUT, said(engine, gpu="cpu"))


def test_a_variable_of_parlays_own_stays() -> None:
    with pytest.raises(BadInput, match=r"engine\.env\.OMP_NUM_THREADS"):
        environment(LAYOUT, said({"env": {"OMP_NUM_THREADS": 4}}, gpu="cpu"), model_source="org/model")
    gpus = environment(LAYOUT, said({"env": {"OMP_NUM_THREADS": 4}}), model_source="org/model")
    assert gpus["OMP_NUM_THREADS"] == "4"


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.integers(-5, 2**31),
    "float": st.floats(-5, 1e6, allow_nan=False) | st.integers(-5, 100),
    "str": st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Z")), min_size=1),
    "map": st.dictionaries(st.text("abc", min_size=1), st.integers() | st.booleans(), max_size=2),
}


def values_of(kind: str) -> st.SearchStrategy[Any]:
    """Values that a kind of argument takes."""
    word, _, rest = kind.partition(" ")
    if word == "choice":
        return st.sampled_from(rest.split())
    if word == "list":
        return st.lists(values_of(rest), min_size=1, max_size=3)
    if word == "map" and rest:
        return st.just({})
    return SCALARS[word]


ARGUMENTS = [*release(NEWEST).arguments.values()]


@pytest.mark.slow
@given(st.sampled_from(ARGUMENTS).flatmap(lambda a: st.tuples(st.just(a), st.one_of([*map(values_of, a.kinds)]))))
def test_what_an_argument_takes_is_plain_json_and_survives_a_store(said_of: tuple[Argument, Any]) -> None:
    argument, value = said_of
    assert argument.takes(value)
    engine = Engine(extra_args={argument.name: value})
    assert Engine.model_validate_json(engine.model_dump_json()) == engine
    assert json.loads(json.dumps(value)) == value


@pytest.mark.slow
@given(st.text(max_size=30), st.none() | st.integers() | st.text() | st.lists(st.integers()))
def test_an_unknown_name_never_passes(name: str, value: Any) -> None:
    assume(name not in release(NEWEST).arguments)
    with pytest.raises(BadInput) as caught:
        require_allowed(Engine(extra_args={name: value}))
    assert caught.value.where == f"engine.extra_args.{name}"
