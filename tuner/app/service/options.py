"""What ``parlay serve`` and ``parlay worker`` take."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.app.cli.parameters import DEFAULT_OUT, Out, StoreUrl, store_url
from tuner.app.service.launchers import launchers_of
from tuner.errors import BadInput

if TYPE_CHECKING:
    from tuner.app.service.issuer import Issuer

Launchers = Annotated[
    str, typer.Option(help="What studies may run on, the first by default: ray, local, simulated; several by commas.")
]


def bracketed(address: str | None) -> str | None:
    """HOST:PORT as Ray reads it. A pod's own IPv6 address has no brackets (``$(POD_IP):6379``)."""
    host, _, port = (address or "").rpartition(":")
    bare = ":" in host and "/" not in host and not host.startswith("[")
    return f"[{host}]:{port}" if bare else address


RayAddress = Annotated[
    str | None,
    typer.Option(help="The Ray cluster of all studies; default: a local one for each study.", callback=bracketed),
]
Roots = Annotated[
    tuple[Path, ...], typer.Option("--root", help="A folder whose files a request may name; may be repeated.")
]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How the service is started."""

    host: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any.")] = 8080
    out: Out = DEFAULT_OUT
    store: StoreUrl = None
    workers: Annotated[int, typer.Option(min=0, max=32, help="Worker processes; 0: they are started apart.")] = 1
    launchers: Launchers = "ray"
    ray_address: RayAddress = None
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535 - 31, help="Serve /metrics of worker N here plus N, from 0.")
    ] = None
    metrics_host: Annotated[str, typer.Option(help="Where those listen; they ask for no token.")] = "127.0.0.1"
    deployed: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="STUDY=URL",
            help="Where a study's deployed winner shows its metrics, to tell how it holds the SLO; may be repeated.",
        ),
    ] = ()
    keep_days: Annotated[float | None, typer.Option(help="Days after which ended studies go; default: they stay.")] = (
        None
    )
    archive_to: Annotated[Path | None, typer.Option(help="Where they go, a file each; default: they are deleted.")] = (
        None
    )
    root: Roots = ()
    oidc_issuer: Annotated[
        str | None, typer.Option(help="An identity provider (OpenID Connect) whose tokens are let in too.")
    ] = None
    oidc_audience: Annotated[str | None, typer.Option(help="For whom its tokens for this service are.")] = None
    oidc_scope_claim: Annotated[
        str, typer.Option(help="Their claim with the scopes; dots between levels, such as realm_access.roles.")
    ] = "scope"
    oidc_scope_prefix: Annotated[str, typer.Option(help="What stands there before read, tune or admin.")] = "parlay:"
    metrics: Annotated[
        str | None,
        typer.Option(help="open or token: who may read /metrics. Default: open on a loopback address, else token."),
    ] = None
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Ask for no token; on a loopback address only.")] = False

    @property
    def store_url(self) -> str:
        """Where studies are kept."""
        return store_url(self.store, self.out)

    @property
    def runs_on(self) -> tuple[str, ...]:
        """The launchers, checked."""
        return launchers_of(self.launchers)

    @property
    def loopback(self) -> bool:
        """Whether its own machine alone reaches it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def metrics_open(self) -> bool:
        """Whether anybody may read the metrics; raises BadInput for a word that is none, or means nothing here."""
        if self.metrics not in (None, "open", "token"):
            raise BadInput("--metrics", self.metrics, "open or token")
        if self.no_auth and self.metrics == "token":
            raise BadInput("--metrics", "token", "open, with --no-auth")
        return self.loopback if self.metrics is None else self.metrics == "open"

    @property
    def issuer(self) -> Issuer | None:
        """The identity provider, if there is one; raises BadInput where it is said by half."""
        if self.oidc_issuer is None and self.oidc_audience is None:
            return None
        if self.oidc_issuer is None or self.oidc_audience is None:
            raise BadInput("--oidc-issuer, --oidc-audience", "one of the two", "both, or neither")
        if self.no_auth:
            raise BadInput("--no-auth", "with --oidc-issuer", "one of the two")
        from tuner.app.service.issuer import Issuer

        return Issuer(self.oidc_issuer, self.oidc_audience, self.oidc_scope_claim, self.oidc_scope_prefix)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker is started."""

    out: Out = DEFAULT_OUT
    store: StoreUrl = None
    launchers: Launchers = "ray"
    ray_address: RayAddress = None
    root: Roots = ()
    cluster: Annotated[
        str | None, typer.Option(help="Run what was asked for on the cluster of this name, and nothing else.")
    ] = None
    ray_devices: Annotated[int, typer.Option(min=0, help="Run nothing before the Ray cluster has so many devices.")] = 0
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing waits any more.")] = False
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Serve /metrics here; 0: any.")] = None
    metrics_host: Annotated[str, typer.Option(help="Where that listens; it asks for no token.")] = "127.0.0.1"
    watch_every: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds between two looks at what serves here; 0: do not watch.")
    ] = 15.0
    parent: Annotated[int, typer.Option(hidden=True, help="End when this process has ended.")] = 0

    @property
    def store_url(self) -> str:
        """Where studies are kept."""
        return store_url(self.store, self.out)

    @property
    def runs_on(self) -> tuple[str, ...]:
        """The launchers, checked."""
        return launchers_of(self.launchers)
