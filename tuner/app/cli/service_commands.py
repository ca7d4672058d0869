"""The commands of the service: serve, worker, token."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tuner.app.cli.options import takes
from tuner.app.cli.parameters import DEFAULT_OUT, Json, Out, StoreUrl, store_url
from tuner.app.cli.terminal import stderr, stdout
from tuner.app.service.options import ServeOptions, WorkerOptions
from tuner.errors import BadInput

commands = typer.Typer(rich_markup_mode=None)
_token = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Who may ask the service.")
commands.add_typer(_token, name="token")


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


@_token.command("create")
def create_token(
    name: Annotated[str, typer.Option(help="Whose it is, for the audit.")],
    scope: Annotated[str, typer.Option(help="read, tune or admin; each allows what those before it do.")] = "tune",
    days: Annotated[float | None, typer.Option(help="Days until it expires; default: never.")] = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Make a token, and print it: it is shown this once."""
    from tuner.study.accounts import Scope
    from tuner.study.store import Store

    if scope not in list(Scope):
        raise BadInput("--scope", scope, ", ".join(Scope))
    token, secret = Store(store_url(store, out)).accounts.create(name, Scope(scope), days)
    stderr.print(f"token {token.id} ({scope}); keep it, only its digest is stored", highlight=False)
    stdout.print(secret, highlight=False, markup=False, soft_wrap=True)


@_token.command("list")
def list_tokens(out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False) -> None:
    """Show all tokens, without their secrets."""
    from tuner.app.cli.service_tables import token_table
    from tuner.study.store import Store

    tokens = Store(store_url(store, out)).accounts.tokens()
    if as_json:
        shown = [
            {
                "id": token.id,
                "name": token.name,
                "scope": token.scope.value,
                "created_at": token.created_at,
                "expires_at": token.expires_at,
                "revoked_at": token.revoked_at,
            }
            for token in tokens
        ]
        print(json.dumps(shown, indent=2))
    else:
        token_table(stdout, tokens)


@_token.command("revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, as `parlay token list` shows it.")],
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """End a token at once."""
    from tuner.study.store import Store

    revoked = Store(store_url(store, out)).accounts.revoke(token)
    stderr.print(f"token {revoked.id} ({revoked.name}) is revoked", highlight=False)
