"""The command line. Each command parses, calls one function, and shows the result.

Answers go to stdout, all else to stderr. Exit codes: 0 done, 1 it failed, 2 bad input, 3 a valid run in which no layout
meets the SLO, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from tuner.app.cli import (
    account_commands,
    measuring_commands,
    planning_commands,
    service_commands,
    studies_commands,
    watch_commands,
)
from tuner.app.cli.remote import server_option
from tuner.app.cli.terminal import stderr
from tuner.errors import Cancelled, NoFeasibleLayout, ParlayError

app = typer.Typer(
    name="parlay",
    help="Find the vLLM layout that meets a latency SLO at the lowest cost, by measuring it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback()(server_option)
app.add_typer(planning_commands.commands)
app.add_typer(measuring_commands.commands)
app.add_typer(service_commands.commands)
app.add_typer(account_commands.commands)
app.add_typer(studies_commands.commands)
app.add_typer(watch_commands.commands)


def main() -> None:
    """Entry point: every deliberate error becomes one line on stderr and its exit code."""
    try:
        app(standalone_mode=True)
    except (Cancelled, KeyboardInterrupt):
        stderr.print("parlay: interrupted; the same command with --resume goes on", soft_wrap=True)
        sys.exit(Cancelled.exit_code)
    except ParlayError as error:
        kind = "no layout meets the SLO" if isinstance(error, NoFeasibleLayout) else "error"
        stderr.print(f"parlay: {kind}: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
