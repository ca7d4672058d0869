"""What ``parlay tune`` takes: each option once, for the command line and for the rest of the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from tuner.app.cli.parameters import (
    DEFAULT_OUT,
    EngineCaches,
    Image,
    Json,
    Out,
    RayVersion,
    RequestFile,
    StoreUrl,
    store_url,
)


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the operator gave on the command line."""

    request_file: RequestFile
    out: Out = DEFAULT_OUT
    store: StoreUrl = None
    study: Annotated[str | None, typer.Option(help="Name of the study; default: made from the request.")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study of that name.")] = False
    launcher: Annotated[
        str, typer.Option(help="ray (Ray Serve), local (a vLLM process per layout) or simulated (no engine at all).")
    ] = "ray"
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster; default: start a local one.")] = None
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the trials' endpoint; 0: any.")] = 0
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Serve /metrics here; 0: any.")] = None
    simulated_seed: Annotated[int, typer.Option(min=0, help="Of the simulated cluster.")] = 0
    engine_caches: EngineCaches = None
    ray_version: RayVersion = None
    image: Image = None
    detach: Annotated[bool, typer.Option("--detach", help="With --server: queue it, and do not wait for it.")] = False
    as_json: Json = False

    @property
    def store_url(self) -> str:
        """Where the study is kept."""
        return store_url(self.store, self.out)
