"""What ``parlay measure`` takes: each option once, for the command line and for the rest of the code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tuner.ask.workload import TooLong


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What the operator gave on the command line; nothing of it is checked beyond its type."""

    url: Annotated[str, typer.Argument(metavar="URL", help="The server, such as http://127.0.0.1:8000.")]
    rates: Annotated[
        tuple[float, ...], typer.Option("--rate", help="Requests/s of an open load; several make a sweep. Default: 1.")
    ] = ()
    users: Annotated[
        tuple[int, ...], typer.Option(help="A closed loop of so many users instead; several make a sweep.")
    ] = ()
    think_seconds: Annotated[float, typer.Option(min=0, help="What each of --users waits after an answer.")] = 0.0
    trace: Annotated[
        Path | None, typer.Option(help="Replay a recorded trace instead: ours, Azure LLM, BurstGPT or Mooncake.")
    ] = None
    trace_speeds: Annotated[
        tuple[float, ...],
        typer.Option("--trace-speed", help="How much faster than recorded; several make a sweep. Default: 1."),
    ] = ()
    trace_window: Annotated[str | None, typer.Option(help="Only FROM..TO seconds of the recording.")] = None
    too_long: Annotated[
        TooLong | None,
        typer.Option(help="Requests of --trace beyond max_model_len: refuse (the default), skip or truncate."),
    ] = None
    max_model_len: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of prompt and output that the server takes. Default: as it says."),
    ] = None
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Search the highest rate within the SLO: from --rate, or between two.")
    ] = False
    slo: Annotated[
        tuple[str, ...], typer.Option(help="A target, METRIC:pPERCENTILE:MS such as ttft:p99:500; may be repeated.")
    ] = ()
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a window.")] = 30.0
    warmup_seconds: Annotated[float, typer.Option(min=0, help="Load before each window that does not count.")] = 5.0
    prompt_tokens: Annotated[str, typer.Option(help="Tokens, or LOW..HIGH for uniform lengths.")] = "256"
    output_tokens: Annotated[str, typer.Option(help="Tokens, or LOW..HIGH for uniform lengths.")] = "64"
    shared_prefix_tokens: Annotated[int, typer.Option(min=0, help="Tokens that open every prompt alike.")] = 0
    process: Annotated[str, typer.Option(help="Arrivals: poisson, constant, gamma, ramp or step.")] = "poisson"
    burstiness: Annotated[float, typer.Option(help="Of gamma: squared coefficient of variation of the gaps.")] = 1.0
    start_share: Annotated[
        float, typer.Option(help="Of ramp and step: the rate at first, as a share of the mean; it ends as far beyond.")
    ] = 0.5
    chat: Annotated[bool, typer.Option("--chat", help="Ask /v1/chat/completions, not /v1/completions.")] = False
    tokenizer: Annotated[
        Path | None, typer.Option(help="Directory of the model's tokenizer: chats then have exactly the asked tokens.")
    ] = None
    model: Annotated[str | None, typer.Option(help="Model name in the requests; default: what the server lists.")] = (
        None
    )
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the API key.")] = None
    api_key_file: Annotated[Path | None, typer.Option(help="File that holds the API key.")] = None
    headers: Annotated[
        tuple[str, ...], typer.Option("--header", help="NAME=VALUE of a header for every request; may be repeated.")
    ] = ()
    headers_env: Annotated[
        tuple[str, ...],
        typer.Option("--header-env", help="NAME=VARIABLE: a header whose value, such as a key, a variable holds."),
    ] = ()
    ca_file: Annotated[Path | None, typer.Option(help="PEM file of the authorities to trust (https).")] = None
    ignore_eos: Annotated[
        bool | None,
        typer.Option(
            "--ignore-eos/--no-ignore-eos",
            help="Keep answers from ending early, or let them end. Default: where the server takes it.",
        ),
    ] = None
    metrics_urls: Annotated[
        tuple[str, ...],
        typer.Option("--metrics-url", help="The engine's own metrics; default: URL/metrics. May be repeated."),
    ] = ()
    timeout_s: Annotated[float, typer.Option(min=0.1, help="After which a request has failed.")] = 120.0
    workers: Annotated[int, typer.Option(min=1, help="Client processes, where one is the bottleneck.")] = 1
    whole_windows: Annotated[
        bool, typer.Option("--whole-windows", help="Do not end a window early when its verdict is certain.")
    ] = False
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, lengths and prompts.")] = 0
    requests_out: Annotated[Path | None, typer.Option(help="One record per request: FILE.jsonl or FILE.parquet.")] = (
        None
    )
    report: Annotated[Path | None, typer.Option(help="An HTML page with charts.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")] = False
