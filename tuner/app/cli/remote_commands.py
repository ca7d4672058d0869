"""What plan, simulate, tune, show, explain and emit do where a service answers; exit codes as without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tuner.app.cli.remote_tables import explain_answer_tables, plan_answer_tables, study_answer_tables
from tuner.app.cli.signals import cancelled_by_signals
from tuner.app.cli.terminal import print_json, stderr, stdout
from tuner.app.client.live import Live
from tuner.ask.request_document import read_document
from tuner.errors import BadInput, Cancelled, Cause, NoFeasibleLayout, ParlayError
from tuner.study.lifecycle import StudyState
from tuner.trial.cancel import CancelHandle

if TYPE_CHECKING:
    from tuner.app.answers.decision import ShowAnswer
    from tuner.app.client.client import ServiceClient
    from tuner.app.tune.options import TuneOptions


def document_of(path: Path) -> dict[str, Any]:
    """A request as it is written: it is the service that knows the models and files that it names."""
    found = read_document(path)
    if not isinstance(found, dict):
        raise BadInput(str(path), found, "a mapping")
    return found


def remote_plan(client: ServiceClient, request_file: Path, top: int, simulate: int, as_json: bool) -> None:
    """As ``parlay plan``."""
    answer = client.plan(document_of(request_file), simulate)
    if as_json:
        print_json(answer)
    else:
        plan_answer_tables(stdout, answer, top)
    if not any(row.meets_slo for row in answer.ranked):
        raise NoFeasibleLayout("; ".join(answer.infeasible.lines[:1]) if answer.infeasible else "every layout misses")


def remote_tune(client: ServiceClient, options: TuneOptions, launcher: str | None, seed: int | None) -> None:
    """Queue the study, or resume it, and watch it to its end. Ctrl-C cancels it, as without a service."""
    document = document_of(options.request_file)
    if options.resume:
        if options.study is None:
            raise BadInput("--study", "nothing", "with --server, the name of the study that is to go on")
        name = client.resume(options.study).name
    else:
        key = uuid4().hex  # asked twice where no answer comes, it is one study
        queued = client.queue(document, name=options.study, launcher=launcher, simulated_seed=seed, key=key)
        name = queued.name
    if options.detach:
        stderr.print(f"study {name} is queued; `parlay show {name}` tells how it stands", highlight=False)
        if options.as_json:
            print_json(client.study(name))
        return
    after = 0 if not options.resume else client.study(name).last_event
    _watch(client, name, after)
    _ended(client, name, options.as_json)


def remote_show(client: ServiceClient, name: str | None, as_json: bool) -> None:
    """As ``parlay show``."""
    answer = client.decision(newest(client, name))
    if as_json:
        print_json(answer)
    else:
        stdout.print(f"Study {answer.study} is {answer.state}.", highlight=False)
        study_answer_tables(stdout, answer)


def remote_explain(client: ServiceClient, name: str | None, layout: str | None, as_json: bool) -> None:
    """As ``parlay explain``."""
    answer = client.explanation(newest(client, name), layout)
    if as_json:
        print_json(answer)
    else:
        explain_answer_tables(stdout, answer)


def remote_emit(client: ServiceClient, name: str | None, spec_format: str | None, layout: str | None) -> None:
    """As ``parlay emit``."""
    study = newest(client, name)
    found = client.decision(study)
    if spec_format is None:
        ran = found.winner.launched.launcher if found.winner and found.winner.launched else ""
        spec_format = "vllm" if ran == "local-process" else "ray-serve"
    spec = client.spec(study, spec_format, layout)
    if not found.ended:
        stderr.print(f"study {study} has not ended: this is how it stands", highlight=False, soft_wrap=True)
    sys.stdout.write(spec)


def newest(client: ServiceClient, name: str | None) -> str:
    """The name, or that of the newest study."""
    if name is not None:
        return name
    found = client.studies(limit=1).studies
    if not found:
        raise BadInput("STUDY", "nothing", "a study; the service has none")
    return found[0].name


def _watch(client: ServiceClient, name: str, after: int) -> None:
    live, cancel = Live(stderr), CancelHandle()

    def end(cause: Cause, words: str) -> None:
        try:
            client.cancel(name)
        except ParlayError as error:
            live.note(f"not cancelled: {error}")

    with live, cancelled_by_signals(cancel, live.note), cancel.listening(end):
        live.note(f"study {name} is queued")
        for event in client.events(name, after):
            live.show(event)


def _ended(client: ServiceClient, name: str, as_json: bool) -> None:
    study = client.study(name)
    if study.state == StudyState.CANCELLED:
        raise Cancelled(Cause.OPERATOR, "")
    if study.state == StudyState.PAUSED:
        held = f"{study.order.problem}; " if study.order and study.order.problem else ""
        raise Cancelled(Cause.PAUSE, f"{held}`parlay tune --resume --study {name}` goes on with it")
    if study.state == StudyState.FAILED:
        raise ParlayError(f"study {name} failed: {study.order.problem if study.order else 'its log says why'}")
    answer = client.decision(name)
    if as_json:
        print_json(answer.as_decision())
    else:
        study_answer_tables(stdout, answer)
    if answer.winner is None:
        raise NoFeasibleLayout(_shortfall(answer))


def _shortfall(answer: ShowAnswer) -> str:
    if not answer.trials:
        return "nothing was worth a launch; " + " ".join(answer.infeasible.lines[:1] if answer.infeasible else ())
    return f"{answer.why}; {answer.remedy or 'see the logs of the trials'}"
