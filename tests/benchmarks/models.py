"""What models are taken for, beside vLLM's own classes; and how right the kernels of their layers are.

    python -m tests.benchmarks.models --data DIR --models DIR [--out FILE]

``models_dev.csv`` in the first folder tells what the engine's classes say of each configuration in the second
(``ID/config.json``). Kernels are those tables of the first folder that measure other layers than full attention, dense
MLPs and routed experts, scored as ``parlay validate`` does: with the constants as shipped, fitted to these rows.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.engine_models import FIGURES, REFUSAL, TOLERANCE, Compared, Row, compare, has_class, is_built, read_rows
from tuner.ask.model import load_model
from tuner.errors import BadInput
from tuner.validate.score import validate
from tuner.validate.scores import Validation

TABLE = "models_dev.csv"
OLDER_TABLES = ("gemm", "attention", "moe_dev", "collectives")  # their tables' names begin so
LATENCIES = {"latency_ms", "latency_us"}
KERNEL_TARGET, SHOWN, REASON_LETTERS = 12.0, 12, 110


@dataclass(frozen=True, slots=True)
class Looked:
    """A row of the table: what was compared, or why the model is refused."""

    row: Row
    compared: Sequence[Compared] = ()
    refusal: str | None = None

    @property
    def name(self) -> str:
        """The model's."""
        return self.row["id"]


def look(row: Row, models: Path) -> Looked:
    """One model, as its configuration says."""
    folder = str(models / row["id"])
    try:
        return Looked(row, compare(load_model(folder), row))
    except BadInput as error:
        return Looked(row, refusal=str(error).removeprefix(f"{folder}: "))


def summary(looked: Sequence[Looked]) -> Iterator[str]:
    """Priced and refused, and how many figures agree."""
    priced = [one for one in looked if one.refusal is None]
    wrong = [one for one in looked if one.refusal is not None and is_built(one.row)]
    built = sum(is_built(one.row) for one in looked)
    yield from table_head("what", "rows", "of", "share")
    yield line("priced", len(priced), len(looked))
    yield line("refused though the engine builds it", len(wrong), built)
    yield line("refused as the engine does", len(looked) - len(priced) - len(wrong), len(looked) - built)
    for (figure, ranks), found in sorted(by_figure(priced).items(), key=lambda one: order(one[0])):
        what = "refuses the degree alike" if figure == REFUSAL else figure.replace("_", " ")
        yield line(f"{what}, {ranks}", sum(one.agrees for one in found), len(found))


def by_figure(looked: Iterable[Looked]) -> Mapping[tuple[str, str], list[Compared]]:
    """All that was compared, by figure and ranks."""
    found = defaultdict(list)
    for one in looked:
        for figure in one.compared:
            found[figure.figure, figure.ranks].append(figure)
    return found


def order(key: tuple[str, str]) -> tuple[int, str]:
    """Figures in their order, refusals last."""
    figure, ranks = key
    return (FIGURES.index(figure) if figure in FIGURES else len(FIGURES)), ranks


def table_head(*cells: str) -> Iterator[str]:
    """Of a Markdown table."""
    yield "| " + " | ".join(cells) + " |"
    yield "|" + "---|" * len(cells)


def line(what: str, count: int, of: int) -> str:
    """A row of the summary."""
    return f"| {what} | {count} | {of} | {100 * count / of:.1f} % |" if of else f"| {what} | 0 | 0 | – |"


def refusals(looked: Iterable[Looked]) -> Iterator[str]:
    """Every model that is refused with our reason, and what the engine says; and what it alone does not build."""
    for one in looked:
        if one.refusal is not None:
            right = "wrong: the engine builds it" if is_built(one.row) else f"right: {theirs_of(one.row)}"
            yield f"- {one.name}: {one.refusal[:REASON_LETTERS]} ({right})"
        elif not is_built(one.row):
            yield f"- not refused: {one.name} (the engine: {theirs_of(one.row)})"


def theirs_of(row: Row) -> str:
    """Why the engine did not build it."""
    return row["notes" if has_class(row) else "source"][:REASON_LETTERS].strip()


def worst(looked: Iterable[Looked]) -> Iterator[str]:
    """Models whose figures disagree, the farthest first, each with its own worst."""
    apart = [(one, [figure for figure in one.compared if not figure.agrees]) for one in looked]
    apart = [(one, figures) for one, figures in apart if figures]
    for one, figures in sorted(apart, key=lambda pair: -max(abs(figure.error) for figure in pair[1]))[:SHOWN]:
        told = "; ".join(map(words, figures))
        note = one.row["notes"][:REASON_LETTERS]
        yield f"- {one.name}: {told}" + (f" (the table notes: {note})" if note else "")


def words(one: Compared) -> str:
    """A figure that is off."""
    if one.figure == REFUSAL:
        return (
            f"{one.ranks} refused by us alone ({one.said})" if one.ours else f"{one.ranks} refused by the engine alone"
        )
    return f"{one.figure}, {one.ranks}: {one.ours:.6g}, theirs {one.theirs:.6g} ({100 * one.error:+.2f} %)"


def kernels(data: Path) -> Iterator[str]:
    """Errors of each table of a newer kind of kernel."""
    yield from table_head("kernel", "median", "mean", "rows", "of", f"target {KERNEL_TARGET:g} %")
    for path in sorted(data.glob("*.csv")):
        rows = read_rows(path)
        if path.name.startswith(OLDER_TABLES) or not LATENCIES & rows[0].keys():
            continue
        found = validate_measured(rows)
        error = found.predictions[0].ape_percent()
        median, mean = error["median"], error["mean"]
        if median is None or mean is None:
            yield f"| {found.kind} | – | – | 0 | {len(rows)} | not priced |"
        else:
            met = "met" if median <= KERNEL_TARGET else "missed"
            yield f"| {found.kind} | {median:.1f} % | {mean:.1f} % | {found.scored} | {len(rows)} | {met} |"


def validate_measured(rows: Sequence[Row]) -> Validation:
    """The score of a table without those rows whose latency was too short to be told from nothing."""
    latency = next(iter(LATENCIES & rows[0].keys()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "points.csv")
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(row for row in rows if float(row[latency]) > 0)
        return validate(path)


def report(data: Path, models: Path) -> str:
    """All of it, as Markdown."""
    looked = [look(row, models) for row in read_rows(data / TABLE)]
    lines = [
        "# Models beside the engine's classes",
        "",
        "    python -m tests.benchmarks.models --data DIR --models DIR",
    ]
    lines += ["", f"Figures agree within {100 * TOLERANCE:g} %, the longest sequence to the token.", ""]
    lines += [*summary(looked), "", "Refused:", "", *(list(refusals(looked)) or ["- none"])]
    lines += ["", "Farthest apart:", "", *(list(worst(looked)) or ["- none"])]
    lines += ["", "Kernels of newer kinds, constants as shipped (held out of their fits: docs/model.md):", ""]
    return "\n".join([*lines, *kernels(data), ""])


def main() -> None:
    """Print it, or write it too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"folder of {TABLE} and of tables of kernels")
    parser.add_argument("--models", type=Path, required=True, help="folder of the configurations")
    parser.add_argument("--out", type=Path, help="write it to this file too")
    asked = parser.parse_args()
    found = report(asked.data, asked.models)
    print(found, end="")
    if asked.out is not None:
        asked.out.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
