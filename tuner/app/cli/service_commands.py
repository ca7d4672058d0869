"""The commands of the service: serve, worker and controller."""

from __future__ import annotations

import typer

from tuner.app.cli.options import takes
from tuner.app.cli.terminal import stderr
from tuner.app.controller.options import ControllerOptions
from tuner.app.service.options import ServeOptions, WorkerOptions

commands = typer.Typer(rich_markup_mode=None)


@commands.command()
@takes(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Answer over HTTP: plans, simulations and studies that are queued and run."""
    from tuner.app.service.run import run_serve

    run_serve(options, stderr)


@commands.command()
@takes(WorkerOptions)
def worker(options: WorkerOptions) -> None:
    """Run the studies that wait in a store, one after the other."""
    from tuner.app.service.run import run_worker

    run_worker(options, stderr)


@commands.command()
@takes(ControllerOptions)
def controller(options: ControllerOptions) -> None:
    """Look after the LayoutRequests of a Kubernetes namespace: each becomes a study, and its winner a RayService."""
    from tuner.app.controller.run import run_controller

    run_controller(options, stderr)
