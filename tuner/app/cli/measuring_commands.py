"""The commands that measure, and those that look at what was measured: tune, measure, show, explain, emit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.app.cli.options import takes
from tuner.app.cli.parameters import DEFAULT_OUT, Image, Json, Out, RayVersion, StoreUrl, StudyName, store_url
from tuner.app.cli.remote import asks, given, service_of
from tuner.app.cli.terminal import print_json, stderr, stdout
from tuner.app.measure.options import MeasureOptions
from tuner.app.tune.options import TuneOptions
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput, NoFeasibleLayout

if TYPE_CHECKING:
    from tuner.app.answers.decision import DecisionAnswer, OriginAnswer
    from tuner.app.tune.run import TuneResult
    from tuner.ask.request import TuneRequest
    from tuner.decide.decision import Decision
    from tuner.study.records import StudyRecord
    from tuner.study.store import Store

KUBERNETES = ("rayservice", "kustomize", "helm-values")  # the formats that name a Ray and an image

_LOCAL = ("out", "store")  # options of which a service has its own

commands = typer.Typer(rich_markup_mode=None)


@commands.command()
@takes(TuneOptions)
def tune(options: TuneOptions, context: typer.Context) -> None:
    """Search, launch, measure, decide and emit: the main job."""
    if asks(context):
        from tuner.app.cli.remote_commands import remote_tune

        launcher = options.launcher if given(context, "launcher") else None
        seed = options.simulated_seed if given(context, "simulated_seed") else None
        with service_of(context, *_LOCAL, "ray_address", "http_port", "metrics_port", "ray_version", "image") as client:
            remote_tune(client, options, launcher, seed)
        return
    if options.detach:
        raise BadInput("--detach", "without --server", "with it: where no service is, this process runs the study")
    from tuner.app.tune.run import run_tune

    result = run_tune(options, stderr)
    if options.as_json:
        print_json(result.answer)
    else:
        _show(result.answer, result.decision, result.request)
    if result.decision.winner is None:
        raise NoFeasibleLayout(_tune_shortfall(result))


@commands.command()
@takes(MeasureOptions)
def measure(options: MeasureOptions) -> None:
    """Measure any OpenAI-compatible endpoint under load. Exit code 3: no window met the SLO; 1: none tells anything."""
    from tuner.app.measure.run import run_measure

    raise typer.Exit(run_measure(options))


@commands.command()
def show(
    context: typer.Context,
    name: StudyName = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Look at a study again, while it runs or after."""
    if asks(context):
        from tuner.app.cli.remote_commands import remote_show

        with service_of(context, *_LOCAL) as client:
            remote_show(client, name, as_json)
        return
    from tuner.app.answers.decision import show_answer
    from tuner.app.wiring import decision_of

    db, record = _study(name, out, store)
    decision, ended = decision_of(db, record)
    answer = show_answer(decision, record, ended)
    if as_json:
        print_json(answer)
    else:
        stdout.print(f"Study {record.name} is {record.state.value}.", highlight=False)
        _show(answer, decision, record.request, ended)


@commands.command()
def explain(
    context: typer.Context,
    name: StudyName = None,
    layout: Annotated[
        str | None, typer.Option(help="Explain this layout: its milliseconds, or why it was dropped.")
    ] = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Why the winner won, and where a layout's milliseconds go."""
    if asks(context):
        from tuner.app.cli.remote_commands import remote_explain

        with service_of(context, *_LOCAL) as client:
            remote_explain(client, name, layout, as_json)
        return
    from tuner.app.answers.decision import origin_answer
    from tuner.app.answers.engine import engine_answer
    from tuner.app.cli.tables import print_lines
    from tuner.app.tune.explain import explain_study

    db, record = _study(name, out, store)
    explained = explain_study(db, record, ParallelLayout.parse(layout) if layout else None)
    if as_json:
        print_json(explained.answer(record))
    else:
        _name_simulated(origin_answer(record.facts))
        explained.print(stdout, record.request)
        print_lines(stdout, [engine_answer(record.request, record.facts).line])


@commands.command()
def emit(
    context: typer.Context,
    name: StudyName = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="ray-serve, rayservice, kustomize, helm-values, vllm, layoutrequest; default: the one launched.",
        ),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Another measured layout than the winner.")] = None,
    ray_version: RayVersion = None,
    image: Image = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Print the deployment spec of a study's winner."""
    if asks(context):
        from tuner.app.cli.remote_commands import remote_emit

        with service_of(context, *_LOCAL, "ray_version", "image") as client:
            remote_emit(client, name, format_, layout)
        return
    from deploy.controller.writing import FORMAT, layout_request_text
    from deploy.specs.rayservice import Platform
    from deploy.specs.shipment import FORMATS
    from deploy.specs.writing import emit as emit_spec
    from tuner.app.wiring import decision_of, measured_trial, shipment
    from tuner.rehearse.conditions import simulated_seed
    from tuner.study.study import service_name

    platform = Platform(ray_version=ray_version, image=image)
    db, record = _study(name, out, store)
    seed = simulated_seed(record.facts)
    if format_ == FORMAT:
        target = {"image": image, "rayVersion": ray_version}
        sys.stdout.write(layout_request_text(service_name(record.request), record.request, seed, **target))
        return
    if seed is not None:
        raise BadInput("STUDY", record.name, "a study of real engines; this one's cluster was simulated")
    decision, ended = decision_of(db, record)
    chosen = shipment(record, measured_trial(decision, layout))
    format_ = format_ or next(iter(chosen.formats), FORMATS[0])
    chosen.require(format_)
    if (ray_version or image) and format_ not in KUBERNETES:
        raise BadInput("--ray-version, --image", format_, "--format " + " or ".join(KUBERNETES))
    if chosen.recomputed:
        stderr.print(f"parlay: study {record.name}: {chosen.origin}", markup=False, highlight=False, soft_wrap=True)
    if not ended:
        stderr.print(f"study {record.name} has not ended: this is how it stands", highlight=False, soft_wrap=True)
    sys.stdout.write(emit_spec(format_, chosen, platform))


def _show(answer: DecisionAnswer, decision: Decision, request: TuneRequest, ended: bool = True) -> None:
    """A decision for people."""
    from tuner.app.cli.tables import print_lines
    from tuner.app.tune.tables import decision_tables

    _name_simulated(answer)
    decision_tables(stdout, decision, request, ended)
    print_lines(stdout, [answer.engine.line, *answer.device_notes])
    print_lines(stdout, decision.infeasible.lines() if decision.infeasible else ())


def _name_simulated(answer: OriginAnswer) -> None:
    """Say it before any figure where no engine ran."""
    if answer.simulated:
        stdout.print(
            f"Simulated (seed {answer.simulated_seed}): no figure here is from a real engine.", style="bold yellow"
        )


def _study(name: str | None, out: Path, store: str | None) -> tuple[Store, StudyRecord]:
    from tuner.study.store import Store

    url = store_url(store, out)
    if store is None and not (out / "parlay.db").exists():
        raise BadInput("--out", str(out), "the folder of an earlier `parlay tune` (it holds parlay.db), or --store")
    db = Store(url)
    names = db.study_names()
    if name is None and not names:
        raise BadInput("STUDY", "nothing", "a study; this store is empty")
    return db, db.study(name or names[0])


def _tune_shortfall(result: TuneResult) -> str:
    if not result.decision.trials:
        reasons = result.decision.infeasible
        return "nothing was worth a launch; " + " ".join(reasons.lines()[:1] if reasons else ())
    return f"{result.decision.why}; {result.decision.remedy or 'see the logs of the trials'}"
