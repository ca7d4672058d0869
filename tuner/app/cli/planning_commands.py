"""The commands that compute and launch nothing: plan, model, volume, collective, validate, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.app.cli.parameters import Json, RequestFile
from tuner.app.cli.remote import asks, service_of
from tuner.app.cli.terminal import print_json, stdout
from tuner.ask.layout import ParallelLayout
from tuner.ask.request_document import load_request
from tuner.ask.workload import TooLong
from tuner.errors import BadInput, NoFeasibleLayout

if TYPE_CHECKING:
    from tuner.plan.front_advice import FrontAdvice
    from tuner.plan.prune import Plan

commands = typer.Typer(rich_markup_mode=None)


@commands.command("plan")
def plan_command(
    context: typer.Context,
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
    if asks(context):
        from tuner.app.cli.remote_commands import remote_plan

        with service_of(context, "what_if") as client:
            remote_plan(client, request_file, top, simulate, as_json)
        return
    from tuner.app.wiring import front_of, memories, plan_request, suppose, why_infeasible

    request = load_request(request_file)
    supposed = suppose(request, what_if) if what_if else None
    found, splits = plan_request(request, simulate)
    meeting = any(candidate.prediction.meets_slo for candidate in found.ranked)
    reasons = None if meeting else why_infeasible(request)
    front = front_of(request, found)
    if as_json:
        from tuner.app.answers.plan import plan_answer

        held = memories(request, (candidate.layout for candidate in found.ranked))
        print_json(plan_answer(found, request, splits, held, supposed, reasons, front))
    else:
        from tuner.app.answers.engine import engine_answer
        from tuner.app.answers.images import image_notes
        from tuner.app.answers.trace import BURSTS
        from tuner.app.cli.tables import plan_tables, print_lines, trace_lines, what_if_tables
        from tuner.cost.stands_on import measured_of_all

        plan_tables(stdout, found, top, splits)
        print_lines(stdout, trace_lines(request.workload, *([] if simulate else [BURSTS])))
        engine = engine_answer(request, more=image_notes(request, found))
        print_lines(stdout, [*engine.lines, *measured_of_all(request).notes])
        if supposed:
            what_if_tables(stdout, supposed, found)
        print_lines(stdout, front.lines()[: 1 if reasons else None] if front else ())
        print_lines(stdout, reasons.lines() if reasons else ())
    if not meeting:
        raise NoFeasibleLayout(_plan_shortfall(found, front))


@commands.command("model")
def model_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A directory with config.json, or a model's name.")],
    tp: Annotated[int | None, typer.Option(min=1, help="Tell what one rank of so many holds.")] = None,
    dtype: Annotated[str, typer.Option(help="What it computes in: auto, bfloat16, float16 or float32.")] = "auto",
    as_json: Json = False,
) -> None:
    """What a model is taken for: parameters, bytes, KV cache, layers."""
    from tuner.app.answers.model import model_answer
    from tuner.ask.model import load_model

    answer = model_answer(load_model(model, dtype), tp)
    if as_json:
        print_json(answer)
    else:
        from tuner.app.cli.model_table import model_table

        model_table(stdout, answer)


@commands.command()
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
        print_json(answer)
    else:
        from tuner.app.cli.tables import volume_tables

        volume_tables(stdout, answer)


@commands.command()
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
        print_json(answer)
    else:
        from tuner.app.cli.tables import collective_table

        collective_table(stdout, answer)


@commands.command("validate")
def validate_command(
    points: Annotated[Path, typer.Argument(metavar="POINTS", help="A CSV table of measured points.")],
    kind: Annotated[
        str | None,
        typer.Option(help="e2e, collectives, or a kind of kernel such as gemm; default: guessed."),
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
        print_json(answer)
    else:
        from tuner.app.cli.tables import validation_tables

        validation_tables(stdout, answer)


@commands.command("simulate")
def simulate_command(
    context: typer.Context,
    request_file: RequestFile,
    layout: Annotated[str | None, typer.Option(help="The layout, such as tp=2,pp=1,dp=4.")] = None,
    prefill_layout: Annotated[str | None, typer.Option(help="Instead: engines that prefill alone.")] = None,
    decode_layout: Annotated[str | None, typer.Option(help="With it: those that decode, given the KV cache.")] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="How many to simulate; default: 1000, of a trace all, up to 5000.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests/s; default: the request's, or the trace's own.")] = None,
    users: Annotated[int | None, typer.Option(help="A closed loop of so many users instead.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Arrivals and lengths of a recorded trace instead.")] = None,
    too_long: Annotated[
        TooLong | None, typer.Option(help="Its requests beyond max_model_len: refuse (the default), skip or truncate.")
    ] = None,
    router: Annotated[str, typer.Option(help="Between replicas; power_of_two is Ray Serve's.")] = "power_of_two",
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, lengths and the router's draws.")] = 0,
    as_json: Json = False,
) -> None:
    """One layout under load, simulated: percentiles, attainment, and the highest rate within the SLO."""
    from tuner.app.simulate import SimulateOptions, simulate_answer, simulate_tables

    whole, first, second = (
        ParallelLayout.parse(text) if text else None for text in (layout, prefill_layout, decode_layout)
    )
    options = SimulateOptions(whole, first, second, requests, rate, users, trace, router, seed, too_long)
    if asks(context):
        from tuner.app.cli.remote_commands import document_of

        with service_of(context, "prefill_layout", "decode_layout", "users", "trace", "too_long", "router") as client:
            answer = client.simulate(document_of(request_file), layout or "", requests, rate, seed)
    else:
        answer = simulate_answer(load_request(request_file), options)
    if as_json:
        print_json(answer)
    else:
        simulate_tables(stdout, answer)


def _plan_shortfall(found: Plan, front: FrontAdvice | None) -> str:
    if not found.ranked:
        physical = [g for g in found.dropped if g.reason.value.startswith(("memory", "slo"))] or found.dropped
        last = max(physical, key=lambda group: group.example.devices)
        return f"every layout was dropped; {last.example} for {last.reason.value}: {last.figure}"
    best = found.ranked[0]
    rate = best.prediction.goodput_req_per_s
    needed = "more devices, a lower rate or wider targets are needed"
    if front is not None and front.limit:
        needed = front.remedy
    return f"by the model the best, {best.layout}, carries {rate:.2f} requests/s within the SLO; {needed}"
