"""What a request's section ``engine`` adds to every launch: vLLM's arguments and environment variables."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from serve.launch.device import Device
from tuner.ask.engine_arguments import Group, release
from tuner.ask.engine_settings import Engine
from tuner.ask.engine_version import NEWEST
from tuner.errors import BadInput

# Of what answers requests, but in the routes of vLLM's own HTTP server (vllm/entrypoints), which Ray Serve has not.
_ROUTES = (
    "enable_tokenizer_info_endpoint", "sse_keep_alive_interval", "enable_server_load_tracking", "log_error_stack",
    "tokens_only",
)  # fmt: skip
_AS_JSON = ("allowed_origins", "allowed_methods", "allowed_headers")  # lists that vLLM's parser reads as one word


def option_kwargs(engine: Engine, device: Device) -> dict[str, Any]:
    """vLLM's arguments that the request adds; raises BadInput for one that is the device's.

    A revision holds for the weights, the tokenizer and the code of the model's repository.
    """
    found = engine.passed
    if engine.revision is not None:
        found |= {"tokenizer_revision": engine.revision}
        found |= {"code_revision": engine.revision} if engine.trust_remote_code else {}
    for where, names in (("engine", found), ("engine.extra_args", engine.extra_args)):
        for name, value in names.items():
            if (why := device.taken.get(name)) is not None:
                raise BadInput(f"{where}.{name}", value, why)
    return found | copy.deepcopy(engine.extra_args)


def option_environment(engine: Engine, own: Mapping[str, str]) -> dict[str, str]:
    """Variables that the request adds to Parlay's ``own``; raises BadInput for one of those."""
    for name, value in engine.env.items():
        if name in own:
            raise BadInput(f"engine.env.{name}", value, f"{own[name]}, to which Parlay sets it on these devices")
    return dict(engine.env)


def unserved(engine: Engine) -> BadInput | None:
    """The first argument of vLLM's own HTTP server, which Ray Serve would drop."""
    known = release(engine.release or NEWEST).arguments
    for name, value in engine.extra_args.items():
        if name in _ROUTES or (name in known and known[name].group is Group.SERVER):
            allowed = (
                "arguments of the engine under Ray Serve, whose own HTTP server answers; --launcher local has vLLM's"
            )
            return BadInput(f"engine.extra_args.{name}", value, allowed)
    return None


def words_of(name: str, value: Any) -> list[str]:
    """One argument as words of vLLM's command line: a switch, a list of words, JSON, or a word."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, Mapping) or name in _AS_JSON:
        return [flag, json.dumps(value)]
    if isinstance(value, list | tuple):
        return [flag, *(json.dumps(one) if isinstance(one, Mapping) else str(one) for one in value)]
    word = str(value)
    return [f"{flag}={word}"] if word.startswith("-") else [flag, word]
