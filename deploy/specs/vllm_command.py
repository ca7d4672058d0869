"""A plain vLLM command line with the engine settings that Ray Serve was given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from serve.launch.engine import attention_dp, cluster_of, is_cpu, vllm_args
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput


def vllm_command(layout: ParallelLayout, request: TuneRequest, config: Mapping[str, Any]) -> str:
    """Comments, then one shell command: environment first, each word quoted where the shell would change it.

    ``config`` is the application's LLM configuration (``LLMConfig`` as a dictionary). On CPUs the server is started
    as a module, because the CPU build of vLLM brings no working ``vllm`` script.
    """
    loading = config["model_loading_config"]
    arguments = vllm_args(layout, request, model_source=loading.get("model_source") or loading["model_id"])
    environment = config["runtime_env"]["env_vars"]
    flags = _by_flag(arguments)
    if is_cpu(layout, request):
        start = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    else:
        start = ["vllm", "serve", flags.pop(0)[1]]
    lines = [_assignment(name, value) for name, value in environment.items()]
    lines += [shlex.join(start), *(f"  {shlex.join(words)}" for words in flags)]
    comments = [f"# {line}\n" for line in _advice(layout, request)]
    return "".join(comments) + " \\\n".join(lines) + "\n"


def _by_flag(arguments: list[str]) -> list[list[str]]:
    """A flag and its value, if it has one, per entry."""
    groups: list[list[str]] = []
    for word in arguments:
        if word.startswith("--"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _assignment(name: str, value: object) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise BadInput("runtime_env.env_vars", name, "names of letters, digits and underscores")
    return f"{name}={shlex.quote(str(value))}"


def _advice(layout: ParallelLayout, request: TuneRequest) -> list[str]:
    lines = []
    if attention_dp(layout):
        lines.append(
            f"{layout.dp} data-parallel ranks of {layout.devices_per_replica} device(s), experts spread over all."
        )
    elif layout.dp > 1:
        lines.append(
            f"Measured as {layout.dp} independent replicas of {layout.devices_per_replica} device(s) behind Ray"
        )
        lines.append("Serve's router; in this command vLLM's own data parallelism balances between them.")
    per_node = cluster_of(layout, request).gpus_per_node
    if layout.devices > per_node:
        nodes = -(-layout.devices // per_node)
        lines.append(
            f"Needs {layout.devices} devices, {per_node} a node: run it on a Ray cluster that joins {nodes} nodes."
        )
        if layout.dp > 1:
            lines.append("Add --data-parallel-backend ray, so that vLLM places its ranks on all of them.")
    return lines
