"""The command line. Each command parses, calls one function, and shows the result.

Answers go to stdout, all else to stderr. Exit codes: 0 done, 1 it failed, 2 bad input, 3 a valid run in which no layout
meets the SLO, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tuner.app.cli.options import takes
from tuner.app.measure.options import MeasureOptions
from tuner.ask.layout import ParallelLayout
from tuner.ask.request_document import load_request
from tuner.errors import BadInput, Cancelled, NoFeasibleLayout, ParlayError

if TYPE_CHECKING:
    from tuner.app.answers.base import Answer
    from tuner.app.answers.decision import DecisionAnswer, OriginAnswer
    from tuner.app.tune.tuning import TuneResult
    from tuner.ask.request import TuneRequest
    from tuner.decide.decision import Decision
    from tuner.plan.prune import Plan
    from tuner.study.records import StudyRecord
    from tuner.study.store import Store

KUBERNETES = ("rayservice", "helm-values")  # the formats that name a Ray and an image
DEFAULT_OUT = Path("parlay-out")

app = typer.Typer(
    name="parlay",
    help="Find the vLLM layout that meets a latency SLO at the lowest cost, by measuring it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
PIPED_WIDTH = 180  # columns of a table that nobody's terminal wraps
_out = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
_err = Console(stderr=True, width=None if sys.stderr.isatty() else PIPED_WIDTH)

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")]
RequestFile = Annotated[Path, typer.Argument(metavar="REQUEST", help="The request, a YAML or JSON file.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for results, logs and the default store.")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", help="Study store, a SQLAlchemy URL; default: SQLite in the --out folder.")
]
RayVersion = Annotated[
    str | None, typer.Option("--ray-version", help="Ray of the Kubernetes specs; default: the one measured on.")
]
Image = Annotated[
    str | None,
    typer.Option("--image", help="Container image of the Kubernetes specs; default: Ray's own of its version."),
]
StudyName = Annotated[str | None, typer.Argument(metavar="STUDY", help="A study's name; default: the newest.")]


@app.command("plan")
def plan_command(
    request_file: RequestFile,
    top: Annotated[int, typer.Option(min=1, help="How many layouts to show.")] = 10,
    simulate: Annotated[
        int, typer.Option(min=0, help="Simulate the first layouts under load, until so many have held the SLO.")
    ] = 0,
    what_if: Annotated[
        list[str] | None,
        typer.Option(help="Suppose a technique that vLLM lacks, such as nvrar or spd=0.5; may be given several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank layouts without launching anything."""
    from tuner.app.wiring import memories, plan_request, suppose, why_infeasible

    request = load_request(request_file)
    supposed = suppose(request, what_if) if what_if else None
    found, splits = plan_request(request, simulate)
    meeting = any(candidate.prediction.meets_slo for candidate in found.ranked)
    reasons = None if meeting else why_infeasible(request)
    if as_json:
        from tuner.app.answers.plan import plan_answer

        held = memories(request, (candidate.layout for candidate in found.ranked))
        _print_json(plan_answer(found, splits, held, supposed, reasons))
    else:
        from tuner.app.cli.tables import plan_tables, print_lines, what_if_tables

        plan_tables(_out, found, top, splits)
        if supposed:
            what_if_tables(_out, supposed, found)
        print_lines(_out, reasons.lines() if reasons else ())
    if not meeting:
        raise NoFeasibleLayout(_plan_shortfall(found))


@app.command()
def volume(
    model: Annotated[str, typer.Option(help="A directory with config.json, or a model's name.")],
    tp: Annotated[int, typer.Option(help="Tensor-parallel degree.")] = 1,
    pp: Annotated[int, typer.Option(help="Pipeline-parallel degree.")] = 1,
    layout: Annotated[str | None, typer.Option(help="A whole layout instead, such as tp=8,dp=2,ep=true.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 1024,
    output_tokens: Annotated[int, typer.Option(min=1)] = 128,
    engine: Annotated[str, typer.Option(help="v1 (all-gathers logits) or v0 (gathers them, as the paper did).")] = "v1",
    as_json: Json = False,
) -> None:
    """Communication of one layout, operation by operation."""
    from tuner.app.answers.volume import volume_answer
    from tuner.ask.model import load_model
    from tuner.ask.rules import engine_refuses

    if engine not in ("v0", "v1"):
        raise BadInput("--engine", engine, "v0, v1")
    shape = load_model(model)
    chosen = ParallelLayout.parse(layout) if layout else ParallelLayout(tp=tp, pp=pp)
    drop = engine_refuses(shape, chosen)
    if drop is not None:
        raise BadInput("layout", str(chosen), f"a layout that the engine accepts ({drop.figure})")
    answer = volume_answer(shape, chosen, prompt_tokens, output_tokens, "v0" if engine == "v0" else "v1")
    if as_json:
        _print_json(answer)
    else:
        from tuner.app.cli.tables import volume_tables

        volume_tables(_out, answer)


@app.command()
def collective(
    operation: Annotated[str, typer.Option(help="allreduce, allgather, reducescatter, alltoall, sendrecv, ...")],
    message_bytes: Annotated[int, typer.Option("--bytes", help="The whole buffer of one rank, as NCCL counts it.")],
    ranks: Annotated[int, typer.Option(help="Ranks of the communicator.")],
    nodes: Annotated[int, typer.Option(help="Nodes that they span.")] = 1,
    profile: Annotated[str | None, typer.Option(help="A GPU's profile; default h100_sxm.")] = None,
    fabric: Annotated[str | None, typer.Option(help="The network between nodes; default: the profile's.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="Force one; default: what the engine would pick.")] = None,
    vllm_version: Annotated[str | None, typer.Option(help="Whose gates decide, such as 0.29.")] = None,
    alpha_us: Annotated[float | None, typer.Option(help="Plain Hockney form: latency of one message.")] = None,
    gb_per_s: Annotated[float | None, typer.Option(help="Plain Hockney form: 10^9 bytes per second.")] = None,
    as_json: Json = False,
) -> None:
    """Time of one collective, what the engine would run, and why."""
    from tuner.app.answers.collective import collective_answer
    from tuner.cost.collectives import collective_report

    report = collective_report(
        operation, message_bytes, ranks, nodes, profile, algorithm, alpha_us, gb_per_s, fabric, vllm_version
    )
    answer = collective_answer(report)
    if as_json:
        _print_json(answer)
    else:
        from tuner.app.cli.tables import collective_table

        collective_table(_out, answer)


@app.command("validate")
def validate_command(
    points: Annotated[Path, typer.Argument(metavar="POINTS", help="A CSV table of measured points.")],
    kind: Annotated[
        str | None,
        typer.Option(help="e2e, gemm, attention_context, attention_generation, moe or collectives; default: guessed."),
    ] = None,
    correct_with: Annotated[
        Path | None, typer.Option(help="Measured runs of the same layouts that may correct the predictions (e2e).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write all rows with their predictions to this CSV file.")] = None,
    as_json: Json = False,
) -> None:
    """Score the predictor against measured points."""
    from tuner.app.answers.validate import validate_answer
    from tuner.validate.points import write_points
    from tuner.validate.score import validate

    found = validate(points, kind, correct_with)
    if out is not None:
        write_points(out, found.points, found.columns())
    answer = validate_answer(found)
    if as_json:
        _print_json(answer)
    else:
        from tuner.app.cli.tables import validation_tables

        validation_tables(_out, answer)


@app.command("simulate")
def simulate_command(
    request_file: RequestFile,
    layout: Annotated[str | None, typer.Option(help="The layout, such as tp=2,pp=1,dp=4.")] = None,
    prefill_layout: Annotated[str | None, typer.Option(help="Instead: engines that prefill alone.")] = None,
    decode_layout: Annotated[str | None, typer.Option(help="With it: those that decode, given the KV cache.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="How many requests to simulate.")] = 1000,
    rate: Annotated[float | None, typer.Option(help="Requests/s; default: the request's.")] = None,
    users: Annotated[int | None, typer.Option(help="A closed loop of so many users instead.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Arrivals and lengths from a CSV file instead.")] = None,
    router: Annotated[str, typer.Option(help="Between replicas; power_of_two is Ray Serve's.")] = "power_of_two",
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, lengths and the router's draws.")] = 0,
    as_json: Json = False,
) -> None:
    """One layout under load, simulated: percentiles, attainment, and the highest rate within the SLO."""
    from tuner.app.simulate import SimulateOptions, simulate_answer, simulate_tables

    whole, first, second = (
        ParallelLayout.parse(text) if text else None for text in (layout, prefill_layout, decode_layout)
    )
    options = SimulateOptions(whole, first, second, requests, rate, users, trace, router, seed)
    answer = simulate_answer(load_request(request_file), options)
    if as_json:
        _print_json(answer)
    else:
        simulate_tables(_out, answer)


@app.command()
def tune(
    request_file: RequestFile,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; default: made from the request.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study of that name.")] = False,
    launcher: Annotated[
        str, typer.Option(help="ray (Ray Serve), local (a vLLM process per layout) or simulated (no engine at all).")
    ] = "ray",
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster; default: start a local one.")] = None,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the trials' endpoint; 0: any.")] = 0,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Serve /metrics here; 0: any.")] = None,
    simulated_seed: Annotated[int, typer.Option(min=0, help="Of the simulated cluster.")] = 0,
    ray_version: RayVersion = None,
    image: Image = None,
    as_json: Json = False,
) -> None:
    """Search, launch, measure, decide and emit: the main job."""
    from tuner.app.tune.tuning import TuneOptions, run_tune

    options = TuneOptions(
        request_file, out, _store_url(store, out), study, resume, launcher, ray_address, http_port, metrics_port,
        simulated_seed, ray_version, image,
    )  # fmt: skip
    result = run_tune(options, _err)
    if as_json:
        _print_json(result.answer)
    else:
        _show(result.answer, result.decision, result.request)
    if result.decision.winner is None:
        raise NoFeasibleLayout(_tune_shortfall(result))


@app.command()
@takes(MeasureOptions)
def measure(options: MeasureOptions) -> None:
    """Measure any OpenAI-compatible endpoint under load. Exit code 3: no window met the SLO; 1: none tells anything."""
    from tuner.app.measure.measuring import run_measure

    raise typer.Exit(run_measure(options))


@app.command()
def show(name: StudyName = None, out: Out = DEFAULT_OUT, store: StoreUrl = None, as_json: Json = False) -> None:
    """Look at a study again, while it runs or after."""
    from tuner.app.answers.decision import show_answer
    from tuner.app.wiring import decision_of

    db, record = _study(name, out, store)
    decision, ended = decision_of(db, record)
    answer = show_answer(decision, record, ended)
    if as_json:
        _print_json(answer)
    else:
        _out.print(f"Study {record.name} is {record.state.value}.", highlight=False)
        _show(answer, decision, record.request, ended)


@app.command()
def explain(
    name: StudyName = None,
    layout: Annotated[
        str | None, typer.Option(help="Explain this layout: its milliseconds, or why it was dropped.")
    ] = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Why the winner won, and where a layout's milliseconds go."""
    from tuner.app.answers.decision import origin_answer
    from tuner.app.tune.explaining import explain_study

    db, record = _study(name, out, store)
    explained = explain_study(db, record, ParallelLayout.parse(layout) if layout else None)
    if as_json:
        _print_json(explained.answer(record))
    else:
        _name_simulated(origin_answer(record.facts))
        explained.print(_out, record.request)


@app.command()
def emit(
    name: StudyName = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", help="ray-serve, rayservice, helm-values or vllm; default: the one that was launched."
        ),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Another measured layout than the winner.")] = None,
    ray_version: RayVersion = None,
    image: Image = None,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = None,
) -> None:
    """Print the deployment spec of a study's winner."""
    from deploy.specs.rayservice import Platform
    from deploy.specs.shipment import FORMATS
    from deploy.specs.writing import emit as emit_spec
    from tuner.app.wiring import decision_of, measured_trial, shipment
    from tuner.rehearse.conditions import simulated_seed

    platform = Platform(ray_version=ray_version, image=image)
    db, record = _study(name, out, store)
    if simulated_seed(record.facts) is not None:
        raise BadInput("STUDY", record.name, "a study of real engines; this one's cluster was simulated")
    decision, ended = decision_of(db, record)
    chosen = shipment(record, measured_trial(decision, layout))
    format_ = format_ or next(iter(chosen.formats), FORMATS[0])
    chosen.require(format_)
    if (ray_version or image) and format_ not in KUBERNETES:
        raise BadInput("--ray-version, --image", format_, "--format " + " or ".join(KUBERNETES))
    if chosen.recomputed:
        _err.print(f"parlay: study {record.name}: {chosen.origin}", markup=False, highlight=False, soft_wrap=True)
    if not ended:
        _err.print(f"study {record.name} has not ended: this is how it stands", highlight=False, soft_wrap=True)
    sys.stdout.write(emit_spec(format_, chosen, platform))


def main() -> None:
    """Entry point: every deliberate error becomes one line on stderr and its exit code."""
    try:
        app(standalone_mode=True)
    except (Cancelled, KeyboardInterrupt):
        _err.print("parlay: interrupted; the same command with --resume goes on", soft_wrap=True)
        sys.exit(Cancelled.exit_code)
    except ParlayError as error:
        kind = "no layout meets the SLO" if isinstance(error, NoFeasibleLayout) else "error"
        _err.print(f"parlay: {kind}: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


def _show(answer: DecisionAnswer, decision: Decision, request: TuneRequest, ended: bool = True) -> None:
    """A decision for people."""
    from tuner.app.cli.tables import print_lines
    from tuner.app.tune.tables import decision_tables

    _name_simulated(answer)
    decision_tables(_out, decision, request, ended)
    print_lines(_out, decision.infeasible.lines() if decision.infeasible else ())


def _name_simulated(answer: OriginAnswer) -> None:
    """Say it before any figure where no engine ran."""
    if answer.simulated:
        _out.print(
            f"Simulated (seed {answer.simulated_seed}): no figure here is from a real engine.", style="bold yellow"
        )


def _study(name: str | None, out: Path, store: str | None) -> tuple[Store, StudyRecord]:
    from tuner.study.store import Store

    url = _store_url(store, out)
    if store is None and not (out / "parlay.db").exists():
        raise BadInput("--out", str(out), "the folder of an earlier `parlay tune` (it holds parlay.db), or --store")
    db = Store(url)
    names = db.study_names()
    if name is None and not names:
        raise BadInput("STUDY", "nothing", "a study; this store is empty")
    return db, db.study(name or names[0])


def _store_url(store: str | None, out: Path) -> str:
    return store or f"sqlite:///{out / 'parlay.db'}"


def _tune_shortfall(result: TuneResult) -> str:
    if not result.decision.trials:
        reasons = result.decision.infeasible
        return "nothing was worth a launch; " + " ".join(reasons.lines()[:1] if reasons else ())
    return f"{result.decision.why}; {result.decision.remedy or 'see the logs of the trials'}"


def _plan_shortfall(found: Plan) -> str:
    if not found.ranked:
        physical = [g for g in found.dropped if g.reason.value.startswith(("memory", "slo"))] or found.dropped
        last = max(physical, key=lambda group: group.example.devices)
        return f"every layout was dropped; {last.example} for {last.reason.value}: {last.figure}"
    best = found.ranked[0]
    rate = best.prediction.goodput_req_per_s
    return (
        f"by the model the best, {best.layout}, carries {rate:.2f} requests/s within the SLO; "
        "more devices, a lower rate or wider targets are needed"
    )


def _print_json(answer: Answer) -> None:
    sys.stdout.write(answer.to_json())


if __name__ == "__main__":
    main()
