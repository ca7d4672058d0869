"""The commands of who may ask the service: token, quota, audit. What they change is kept in the audit too."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.app.cli.parameters import DEFAULT_OUT, Json, Out, StoreUrl, store_url
from tuner.app.cli.terminal import stderr, stdout
from tuner.app.cli.times import seconds_of
from tuner.errors import BadInput

if TYPE_CHECKING:
    from tuner.study.store import Store

commands = typer.Typer(rich_markup_mode=None)
_token = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Who may ask the service.")
_quota = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="What an account may take of the clusters.")
commands.add_typer(_token, name="token")
commands.add_typer(_quota, name="quota")

TokenWord = Annotated[
    str, typer.Argument(metavar="TOKEN", help="Its id, as `parlay token list` shows it, or its name.")
]
Days = Annotated[float | None, typer.Option(help="Days until it expires; default: never.")]
GpuHours = Annotated[float | None, typer.Option(help="GPU-hours that it may spend in the window; default: any number.")]
WindowDays = Annotated[float, typer.Option(help="The window, in days, up to the present.")]
Studies = Annotated[int | None, typer.Option(help="Studies that may wait or run at a time; default: the service's.")]


@contextmanager
def opened_store(url: str | None, out: Path) -> Iterator[Store]:
    """The store, to the end of the block."""
    from tuner.study.store import Store

    store = Store(store_url(url, out))
    try:
        yield store
    finally:
        store.close()


def noted(store: Store, action: str, target: str, outcome: str) -> None:
    """Keep in the audit what a command did."""
    from tuner.study.audit import COMMAND_LINE

    store.audit.note(COMMAND_LINE, action, target, outcome)


@_token.command("create")
def create_token(
    name: Annotated[str, typer.Option(help="Whose it is, for the audit.")],
    scope: Annotated[str, typer.Option(help="read, tune or admin; each allows what those before it do.")] = "tune",
    days: Days = None,
    gpu_hours: GpuHours = None,
    window_days: WindowDays = 30.0,
    studies: Studies = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Make a token, and print it: it is shown this once."""
    from tuner.study.accounts import Scope
    from tuner.study.quotas import Quota, require_quota

    if scope not in list(Scope):
        raise BadInput("--scope", scope, ", ".join(Scope))
    require_quota(Quota("new", gpu_hours, window_days, studies))  # before there is a token without it
    with opened_store(store, out) as opened:
        token, secret = opened.accounts.create(name, Scope(scope), days)
        opened.quotas.set(Quota(token.id, gpu_hours, window_days, studies))
        noted(opened, "token create", token.id, scope)
    stderr.print(f"token {token.id} ({scope}); keep it, only its digest is stored", highlight=False)
    stdout.print(secret, highlight=False, markup=False, soft_wrap=True)


@_token.command("adopt")
def adopt_token(
    name: Annotated[str, typer.Option(help="Whose it is, for the audit.")],
    scope: Annotated[str, typer.Option(help="read, tune or admin; each allows what those before it do.")] = "tune",
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Make a token known that was made for another store, and stands in PARLAY_TOKEN; twice is as good as once."""
    from tuner.study.accounts import Scope

    if scope not in list(Scope):
        raise BadInput("--scope", scope, ", ".join(Scope))
    with opened_store(store, out) as opened:
        token = opened.accounts.adopt(os.environ.get("PARLAY_TOKEN", "").strip(), name, Scope(scope))
        noted(opened, "token adopt", token.id, token.scope)
    stderr.print(f"token {token.id} ({token.scope}) is known", highlight=False)


@_token.command("list")
def list_tokens(out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False) -> None:
    """Show all tokens, without their secrets."""
    from tuner.app.cli.service_tables import token_table

    with opened_store(store, out) as opened:
        tokens = opened.accounts.tokens()
    if as_json:
        print(json.dumps([asdict(token) for token in tokens], indent=2))
    else:
        token_table(stdout, tokens)


@_token.command("rotate")
def rotate_token(
    token: TokenWord,
    overlap_hours: Annotated[
        float, typer.Option(help="For how long the present secret stays good; 0: it ends at once.")
    ] = 24.0,
    days: Annotated[float | None, typer.Option(help="Days until it expires; default: when it did.")] = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Give a token another secret, and print that: its id, studies and quota stay."""
    with opened_store(store, out) as opened:
        rotated, secret = opened.accounts.rotate(token, overlap_hours, days)
        noted(opened, "token rotate", rotated.id, f"overlap of {overlap_hours:g} h")
    until = f"the old secret is good for {overlap_hours:g} h more" if overlap_hours else "the old secret has ended"
    stderr.print(f"token {rotated.id} ({rotated.name}) is rotated; {until}", highlight=False)
    stdout.print(secret, highlight=False, markup=False, soft_wrap=True)


@_token.command("revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, as `parlay token list` shows it.")],
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """End a token at once."""
    with opened_store(store, out) as opened:
        revoked = opened.accounts.revoke(token)
        noted(opened, "token revoke", revoked.id, "revoked")
    stderr.print(f"token {revoked.id} ({revoked.name}) is revoked", highlight=False)


@_quota.command("set")
def set_quota(
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="A token's id, oidc:SUBJECT, or '*': all without one of their own.")
    ],
    gpu_hours: GpuHours = None,
    window_days: WindowDays = 30.0,
    studies: Studies = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Say what an account may take, in place of what was said before."""
    from tuner.study.quotas import Quota

    with opened_store(store, out) as opened:
        opened.quotas.set(Quota(account, gpu_hours, window_days, studies))
        shown = opened.quotas.of(account)
        told = f"{_limit(shown.gpu_hours)} GPU-hours in {shown.window_days:g} days, {_limit(shown.studies)} studies"
        noted(opened, "quota set", account, told)
    stderr.print(f"{account}: {told}", highlight=False, markup=False)


@_quota.command("list")
def list_quotas(out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False) -> None:
    """Show what was set, and what those accounts have spent of it."""
    from tuner.app.cli.service_tables import quota_table
    from tuner.study.quotas import EVERYBODY

    with opened_store(store, out) as opened:
        quotas = opened.quotas.all()
        spent = {one.account: opened.quotas.standing(one.account).gpu_hours for one in quotas}
    if as_json:
        lines = [
            asdict(one) | {"spent_gpu_hours": None if one.account == EVERYBODY else spent[one.account]}
            for one in quotas
        ]
        print(json.dumps(lines, indent=2))
    else:
        quota_table(stdout, quotas, spent)


@commands.command()
def audit(
    since: Annotated[
        str | None, typer.Option(help="Not before: a time such as 2026-01-31 or 2026-01-31T12:00, or 90m, 24h, 7d ago.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Show who asked what of the service, and what came of it, the newest first."""
    from tuner.app.cli.service_tables import audit_table

    earliest = None if since is None else seconds_of("--since", since)
    with opened_store(store, out) as opened:
        entries = opened.audit.page(limit, earliest)
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        audit_table(stdout, entries)


def _limit(limit: float | None) -> str:
    return "any number of" if limit is None else f"{limit:g}"
