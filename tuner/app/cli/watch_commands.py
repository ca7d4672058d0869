"""The commands for what is deployed: deploy, watch, and what a human asks of a rollout."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.app.cli.options import takes
from tuner.app.cli.parameters import DEFAULT_OUT, Json, Out, StoreUrl, store_url
from tuner.app.cli.remote import asks, service_of
from tuner.app.cli.terminal import print_json, stderr, stdout
from tuner.app.watch.options import DeployOptions, WatchOptions

commands = typer.Typer(rich_markup_mode=None)
_rollout = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Approve, pause, resume, veto or force what a watcher does."
)
commands.add_typer(_rollout, name="rollout")
Named = Annotated[str, typer.Argument(metavar="STUDY", help="The watched study's name.")]


@commands.command()
@takes(DeployOptions)
def deploy(options: DeployOptions) -> None:
    """Have a study's winner serve on Ray Serve, with a record of it, to be watched from then on."""
    from tuner.app.watch.run import run_deploy
    from tuner.app.watch.screen import show_watch

    answer = run_deploy(options, stderr)
    if options.as_json:
        print_json(answer)
    else:
        show_watch(stdout, answer)


@commands.command()
@takes(WatchOptions)
def watch(options: WatchOptions, context: typer.Context) -> None:
    """Keep looking at what a study has deployed; tune and roll out again where that is worth it."""
    from tuner.app.answers.watch import WatchAnswer
    from tuner.app.watch.screen import show_standing, show_watch

    if asks(context):
        with service_of(context, "out", "store", "policy", "every", "once", "windows_shortened") as client:
            found = client.watch(options.study)
    else:
        from tuner.app.watch.run import run_watch

        run = run_watch(options, stderr)
        if run is None:
            return
        if not isinstance(run, WatchAnswer):
            if options.as_json:
                print_json(run)
            else:
                show_standing(stdout, run)
            return
        found = run
    if options.as_json:
        print_json(found)
    else:
        show_watch(stdout, found)


@_rollout.command()
def approve(
    context: typer.Context, study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False
) -> None:
    """Agree to the rollout that waits, or to the layout that is proposed."""
    _say(context, "approve", study, store, out, as_json)


@_rollout.command()
def pause(
    context: typer.Context, study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False
) -> None:
    """Have nothing begin or go on; what serves goes on serving."""
    _say(context, "pause", study, store, out, as_json)


@_rollout.command()
def resume(
    context: typer.Context, study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False
) -> None:
    """Let it go on."""
    _say(context, "resume", study, store, out, as_json)


@_rollout.command()
def veto(
    context: typer.Context, study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False
) -> None:
    """Go back to what served before, or refuse what is proposed; the layout is not tried again."""
    _say(context, "veto", study, store, out, as_json)


@_rollout.command()
def force(
    context: typer.Context, study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False
) -> None:
    """Promote, whatever the canary says, or begin what is held back."""
    _say(context, "force", study, store, out, as_json)


@_rollout.command()
def unwatch(
    context: typer.Context, study: Named, out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False
) -> None:
    """Watch it no more; what serves goes on serving."""
    from tuner.app.watch.showing import watch_answer
    from tuner.study.audit import COMMAND_LINE
    from tuner.study.store import Store

    if asks(context):
        with service_of(context, "out", "store") as client:
            answer = client.unwatch(study)
    else:
        opened = Store(store_url(store, out))
        try:
            answer = watch_answer(opened, study).model_copy(update={"watched": False})
            opened.watched.unwatch(study)
            opened.audit.note(COMMAND_LINE, "unwatch", study, "not watched")
        finally:
            opened.close()
    serving = ", ".join(one.name for one in answer.deployments if one.state == "serving")
    still = f"; what serves still, and is yours to end: {serving}" if serving else ""
    _told(answer.study, f"it is watched no more{still}", as_json, answer)


def _say(context: typer.Context, word: str, study: str, store: str | None, out: Out, as_json: bool) -> None:
    from tuner.app.watch.showing import watch_answer
    from tuner.app.watch.wishes import say
    from tuner.retune.rollout import Wish
    from tuner.study.audit import COMMAND_LINE
    from tuner.study.store import Store

    if asks(context):
        with service_of(context, "out", "store") as client:
            found = client.say(study, Wish(word))
            _told(study, found.happened[0].text if found.happened else word, as_json, found)
        return
    opened = Store(store_url(store, out))
    try:
        outcome = say(opened, study, Wish(word), COMMAND_LINE)
        _told(study, outcome, as_json, watch_answer(opened, study) if as_json else None)
    finally:
        opened.close()


def _told(study: str, outcome: str, as_json: bool, answer: object) -> None:
    from tuner.app.answers.watch import WatchAnswer

    if as_json and isinstance(answer, WatchAnswer):
        print_json(answer)
    else:
        stderr.print(f"{study}: {outcome}", highlight=False, markup=False, soft_wrap=True)
