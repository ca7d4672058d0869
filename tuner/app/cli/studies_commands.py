"""The commands that keep a store in order: studies prune, restore, pin, unpin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tuner.app.cli.account_commands import noted, opened_store
from tuner.app.cli.parameters import DEFAULT_OUT, Json, Out, StoreUrl
from tuner.app.cli.terminal import stderr, stdout

commands = typer.Typer(rich_markup_mode=None)
_studies = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Keep a store in order.")
commands.add_typer(_studies, name="studies")
Named = Annotated[str, typer.Argument(metavar="STUDY", help="Its name.")]


@_studies.command()
def prune(
    keep_days: Annotated[float, typer.Option(help="Studies that ended longer ago go; pinned ones stay.")],
    archive_to: Annotated[
        Path | None, typer.Option(help="Put each into a file of this folder; default: delete it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Archive or delete the studies that ended long ago."""
    from tuner.app.service.retention import Rule, tidy
    from tuner.study.audit import COMMAND_LINE

    rule = Rule.of(keep_days, archive_to)
    assert rule is not None
    with opened_store(store, out) as opened:
        old = ((name, "old") for name in opened.archive.older(keep_days, 1_000_000))
        done = list(old) if dry_run else tidy(opened, rule, COMMAND_LINE)
    if as_json:
        print(json.dumps([{"study": name, "outcome": what} for name, what in done], indent=2))
        return
    for name, what in done:
        stdout.print(f"{name}: {what}", highlight=False, markup=False, soft_wrap=True)
    stderr.print(f"{len(done)} studies ended more than {keep_days:g} days ago", highlight=False)


@_studies.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `parlay studies prune --archive-to` wrote.")],
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Put an archived study back into a store."""
    from tuner.app.service.retention import unpack

    document = unpack(file)
    with opened_store(store, out) as opened:
        name = opened.archive.restore(document)
        noted(opened, "restore", name, "back, and pinned")
    stderr.print(f"study {name} is back, and pinned", highlight=False, markup=False)


@_studies.command()
def pin(study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None) -> None:
    """Keep a study, whatever the rule: one whose winner is deployed."""
    with opened_store(store, out) as opened:
        opened.archive.pin(study)
        noted(opened, "pin", study, "pinned")
    stderr.print(f"study {study} stays", highlight=False, markup=False)


@_studies.command()
def unpin(study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None) -> None:
    """Let the rule have a study again."""
    with opened_store(store, out) as opened:
        opened.archive.unpin(study)
        noted(opened, "unpin", study, "not pinned")
    stderr.print(f"study {study} goes when it is old", highlight=False, markup=False)
