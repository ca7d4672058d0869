"""What several commands take: one declaration of each argument and option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_OUT = Path("parlay-out")

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")]
RequestFile = Annotated[Path, typer.Argument(metavar="REQUEST", help="The request, a YAML or JSON file.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for results, logs and the default store.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="PARLAY_STORE",  # an argument is seen by everybody on the machine, and a URL may hold a password
        show_envvar=False,
        help="Study store, a SQLAlchemy URL, or PARLAY_STORE; default: SQLite in the --out folder.",
    ),
]
RayVersion = Annotated[
    str | None, typer.Option("--ray-version", help="Ray of the Kubernetes specs; default: the one measured on.")
]
Image = Annotated[
    str | None,
    typer.Option("--image", help="Container image of the Kubernetes specs; default: Ray's own of its version."),
]
EngineCaches = Annotated[
    str | None,
    typer.Option(
        envvar="PARLAY_ENGINE_CACHES",
        show_envvar=False,
        help="Where engines keep compiled code for the next, or none: where they do by themselves; default, on this "
        "machine: in ~/.cache/parlay. Also PARLAY_ENGINE_CACHES.",
    ),
]
StudyName = Annotated[str | None, typer.Argument(metavar="STUDY", help="A study's name; default: the newest.")]


def store_url(store: str | None, out: Path) -> str:
    """The store that ``--store`` names, or the one in the ``--out`` folder."""
    return store or f"sqlite:///{out / 'parlay.db'}"
