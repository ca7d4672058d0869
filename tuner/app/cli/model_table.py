"""What ``parlay model`` shows to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.app.answers.model import ModelAnswer

_GIB, _KIB = 2**30, 2**10


def model_table(console: Console, answer: ModelAnswer) -> None:
    """Its figures, then its layers."""
    title = f"{answer.model} · {answer.architecture}"
    console.print(title if answer.tp is None else f"{title} · one rank of tp={answer.tp}", highlight=False)
    table = Table(show_header=False)
    table.add_column("what")
    table.add_column("figure")
    for what, figure in _figures(answer):
        table.add_row(what, figure)
    console.print(table)
    layers = Table(title="Layers", title_justify="left")
    layers.add_column("kind")
    layers.add_column("count", justify="right")
    for one in answer.layers:
        layers.add_row(one.kind, str(one.count))
    for tower in answer.towers:
        layers.add_row(f"{tower.kind} encoder, {tower.parameters / 1e9:.2f} billion parameters", str(tower.layers))
    console.print(layers)
    for t, figure in answer.refused_tp.items():
        console.print(f"tp={t} is refused: {figure}", highlight=False, soft_wrap=True)
    for what in answer.not_priced:
        console.print(f"Not priced: {what}", highlight=False, soft_wrap=True)


def _figures(answer: ModelAnswer) -> list[tuple[str, str]]:
    formats = ", ".join(f"{name} {size / _GIB:,.2f}" for name, size in answer.weight_bytes_by_format.items())
    found = [
        ("parameters", f"{answer.parameters / 1e9:,.2f} billion, {answer.active_parameters / 1e9:,.2f} active"),
        ("weights", f"{answer.weight_bytes / _GIB:,.2f} GiB ({formats})"),
        ("KV cache", f"{answer.kv_bytes_per_token / _KIB:,.2f} KiB per token in {answer.kv_cache_dtype}"),
    ]
    if _bounds(answer):
        growing, bounded = answer.kv_bytes_per_token_growing / _KIB, answer.bounded_bytes_per_sequence / _GIB
        kept = f"{growing:,.2f} KiB grow with every token, {bounded:,.3f} GiB per sequence at most do not"
        found.append(("of it", kept))
    if answer.state_bytes_per_sequence:
        found.append(("state", f"{answer.state_bytes_per_sequence / 2**20:,.2f} MiB per sequence"))
    if answer.experts is not None:
        one = answer.experts
        found.append(("experts", f"{one.topk} of {one.count} in {one.layers} layers"))
    found.append(("longest sequence", f"{answer.max_model_len:,} tokens"))
    found.append(("tensor parallelism", ", ".join(str(t) for t in answer.legal_tp)))
    if answer.needs:
        found.append(("needs", ", ".join(answer.needs)))
    return found


def _bounds(answer: ModelAnswer) -> bool:
    """Whether windows keep less of the longest sequence than all of it."""
    windowed = answer.kv_bytes_per_token - answer.kv_bytes_per_token_growing
    return 0 < answer.bounded_bytes_per_sequence < windowed * answer.max_model_len
