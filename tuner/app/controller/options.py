"""What ``parlay controller`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tuner.app.cli.parameters import DEFAULT_OUT, Image, Out, RayVersion, StoreUrl, store_url
from tuner.app.service.launchers import launchers_of


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """How the controller is started."""

    namespace: Annotated[
        tuple[str, ...], typer.Option(help="A namespace to look after; may be repeated. Default: the pod's own.")
    ] = ()
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="Look after all namespaces, in place of --namespace.")
    ] = False
    lease_name: Annotated[
        str, typer.Option(help="The Lease of the election: controllers of one name stand by for each other.")
    ] = "parlay-controller"
    lease_namespace: Annotated[
        str | None, typer.Option(help="Where that Lease is; default: the first namespace, or the pod's own.")
    ] = None
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How to reach the cluster from outside; default: as a pod in it does.")
    ] = None
    identity: Annotated[str | None, typer.Option(help="Its name in the election; default: the host's.")] = None
    out: Out = DEFAULT_OUT
    store: StoreUrl = None
    launchers: Annotated[
        str, typer.Option(help="What the workers of the store run on, the first by default; several by commas.")
    ] = "ray"
    ray_cluster: Annotated[
        str | None, typer.Option(help="Name of the RayCluster that these workers use (their --ray-address).")
    ] = None
    ray_version: RayVersion = None
    image: Image = None
    site: Annotated[
        Path | None, typer.Option(help="A file with the chart's `serving` values of a site, for the pods of winners.")
    ] = None
    trials: Annotated[
        Path | None,
        typer.Option(help="A file that says of what RayClusters for single studies are made; default: none are made."),
    ] = None
    threads: Annotated[int, typer.Option(min=1, max=64, help="LayoutRequests that are worked on at once.")] = 8
    root: Annotated[
        tuple[Path, ...], typer.Option(help="A folder whose files a request may name; may be repeated.")
    ] = ()
    host: Annotated[str, typer.Option(help="Where /healthz, /readyz and /metrics listen.")] = "0.0.0.0"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Their port; 0: any.")] = 8081

    @property
    def store_url(self) -> str:
        """Where studies are kept."""
        return store_url(self.store, self.out)

    @property
    def runs_on(self) -> tuple[str, ...]:
        """The launchers, checked."""
        return launchers_of(self.launchers)
