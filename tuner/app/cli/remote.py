"""``parlay --server URL``: which commands ask a service, and which of their options mean nothing to one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.errors import BadInput

if TYPE_CHECKING:
    from tuner.app.client.client import ServiceClient

SERVED = ("plan", "simulate", "tune", "show", "explain", "emit", "watch", "rollout")
TOKEN = "PARLAY_TOKEN"
SERVER = "PARLAY_SERVER"


def server_option(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help=f"Ask the service there; default: ${SERVER}. Its token: ${TOKEN}."),
    ] = None,
) -> None:
    """Raises BadInput for a command that cannot ask one; where the environment names it, such a command asks none."""
    command = context.invoked_subcommand
    if server is not None and command not in SERVED:
        raise BadInput("--server", str(command), "a command that a service answers: " + ", ".join(SERVED))
    context.obj = server or (os.environ.get(SERVER) if command in SERVED else None) or None


def asks(context: typer.Context) -> bool:
    """Whether the command asks a service."""
    return context.find_root().obj is not None


def given(context: typer.Context, parameter: str) -> bool:
    """Whether a parameter stands on the command line."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


@contextmanager
def service_of(context: typer.Context, *local: str) -> Iterator[ServiceClient]:
    """The service to the end of the block; ``local`` are the command's parameters that it could not take.

    Raises BadInput where one of these was given.
    """
    from tuner.app.client.client import ServiceClient

    for parameter in context.command.params:
        if parameter.name in local and given(context, parameter.name):
            raise BadInput(parameter.opts[0], "with --server", "left out; a service has its own, or knows none")
    with ServiceClient(str(context.find_root().obj), os.environ.get(TOKEN) or None) as client:
        yield client
