"""A plain vLLM command line with the engine settings that were launched."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from deploy.specs.shipment import Shipment
from serve.launch.device import cluster_of, device_of
from serve.launch.engine import attention_dp
from serve.launch.vllm_server import several
from tuner.ask.packing import footprint
from tuner.errors import BadInput
from tuner.trial.launched import RayApplication


def vllm_command(shipment: Shipment) -> str:
    """Comments, then one shell command: environment first, each word quoted where the shell would change it."""
    server = shipment.server
    flags = _by_flag(server.arguments)
    device = device_of(shipment.layout, shipment.request)
    start = [*(device.servers if several(server.arguments) else device.server)]
    if start[-1] == "serve":  # the subcommand takes the model without its flag
        start.append(flags.pop(0)[1])
    lines = [_assignment(name, value) for name, value in server.environment.items()]
    lines += [shlex.join(start), *(f"  {shlex.join(words)}" for words in flags)]
    comments = [f"# {line}\n" for line in _advice(shipment)]
    return "".join(comments) + " \\\n".join(lines) + "\n"


def _by_flag(arguments: Sequence[str]) -> list[list[str]]:
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


def _advice(shipment: Shipment) -> list[str]:
    layout, lines = shipment.layout, []
    if attention_dp(layout):
        lines.append(
            f"{layout.dp} data-parallel ranks of {layout.devices_per_replica} device(s), experts spread over all."
        )
    elif layout.dp > 1 and isinstance(shipment.launched.payload, RayApplication):
        lines.append(
            f"Measured as {layout.dp} independent replicas of {layout.devices_per_replica} device(s) behind Ray"
        )
        lines.append("Serve's router; in this command vLLM's own data parallelism balances between them.")
    per_node = cluster_of(layout, shipment.request).gpus_per_node
    if layout.devices > per_node:
        nodes = footprint(layout, per_node).nodes_under(layout.dp)
        lines.append(
            f"Needs {layout.devices} devices, {per_node} a node: run it on a Ray cluster that joins {nodes} nodes."
        )
        if layout.dp > 1:
            lines.append("Add --data-parallel-backend ray, so that vLLM places its ranks on all of them.")
    return lines
