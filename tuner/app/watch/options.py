"""What ``parlay deploy`` and ``parlay watch`` take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tuner.app.cli.parameters import DEFAULT_OUT, Json, Out, StoreUrl, store_url

Study = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name; of several rounds the first one's.")]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="What is allowed, a YAML file; default: what was before."),
]
Every = Annotated[float, typer.Option("--every", min=1, max=3600, help="Seconds between two looks.")]
Shortened = Annotated[
    float,
    typer.Option(min=1, max=1000, help="Shorten the detectors' windows so many times: for demonstrations alone."),
]


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a study is watched."""

    study: Study
    once: Annotated[bool, typer.Option("--once", help="Look, judge and act once, then end.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and why.")] = False
    policy: PolicyFile = None
    every: Every = 15.0
    windows_shortened: Shortened = 1.0
    out: Out = DEFAULT_OUT
    store: StoreUrl = None
    as_json: Json = False

    @property
    def store_url(self) -> str:
        """Where studies are kept."""
        return store_url(self.store, self.out)


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """How a study's winner is deployed first."""

    study: Study
    layout: Annotated[str | None, typer.Option(help="Another measured layout; default: the winner.")] = None
    ray_address: Annotated[str, typer.Option(help="The running Ray cluster where it is to serve.")] = "auto"
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where clients ask, on this machine.")] = 8000
    policy: PolicyFile = None
    out: Out = DEFAULT_OUT
    store: StoreUrl = None
    as_json: Json = False

    @property
    def store_url(self) -> str:
        """Where studies are kept."""
        return store_url(self.store, self.out)
