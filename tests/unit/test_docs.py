"""What README and docs say is true: links lead somewhere, commands parse, and every name that one can meet is told.

A new command, option, request key, axis, space, profile, metric, reason or exit code fails here until it is documented.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import typer
import yaml
from prometheus_client import Histogram
from pydantic import BaseModel

from tuner.app.cli.commands import app
from tuner.app.tune.telemetry import Telemetry
from tuner.ask.layout import AXES
from tuner.ask.profile import PROFILE_DIR
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.rules import DropReason
from tuner.ask.space import SPACES_DIR
from tuner.cost.techniques import TECHNIQUES
from tuner.errors import Cancelled, FailureReason, NoFeasibleLayout, ParlayError
from tuner.study.lifecycle import StudyState

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = ROOT / "docs" / "reference.md"
CLI: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = {
    f"{group} {name}".strip(): command
    for group, inner in [("", CLI), *((name, one) for name, one in CLI.commands.items() if hasattr(one, "commands"))]
    for name, command in inner.commands.items()
    if not hasattr(command, "commands")
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SHELL = ("sh", "console")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def section(title: str) -> str:
    """A section of the reference, to the next heading of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", read(REFERENCE), re.M)
    assert found, f"docs/reference.md has no section {title}"
    rest = read(REFERENCE)[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def rows(text: str) -> dict[str, str]:
    """The rows of its tables, by each name in backticks of the first cell."""
    cells = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return {name: "|".join(row[2:]) for row in cells for name in re.findall(r"`([^`]+)`", row[1])}


# Pages and links


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(page)), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [one for one in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(page))) if "://" not in one]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{named(page)} links to {target}"
        assert file.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(file), f"{named(page)} links to {target}; headings: {sorted(anchors(file))}"


def test_the_first_page_is_one_page_and_leads_to_every_other() -> None:
    text = read(ROOT / "README.md")
    assert len(text.splitlines()) <= 200
    for page in PAGES[1:]:
        assert f"]({named(page)})" in text


# Folders and modules that pages name without a link
PATHS = re.compile(r"`((?:tuner|serve|deploy|helm|search_spaces|tests|docs)/[\w./-]*)")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_named_files_exist(page: Path) -> None:
    gone = [path for path in PATHS.findall(read(page)) if not (ROOT / path).exists() and "*" not in path]
    modules = set(re.findall(r"python -m ((?:tuner|serve|tests)[\w.]*)", read(page)))
    gone += [m for m in modules if not any((ROOT / m.replace(".", "/")).with_suffix(s).exists() for s in ("", ".py"))]
    assert not gone, f"{named(page)} names what does not exist"


# Commands


def lines_of_blocks(page: Path) -> list[str]:
    """The shell lines of a page, those that a backslash continues joined."""
    blocks = [block for kind, block in FENCE.findall(read(page)) if kind in SHELL]
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip().removeprefix("$ ") for line in text.splitlines()]


def commands(page: Path, program: str) -> list[list[str]]:
    lines = [line for line in lines_of_blocks(page) if line.startswith(f"{program} ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


SHOWN = [(named(page), words) for page in PAGES for words in commands(page, "parlay")]


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[f"{page}-{' '.join(words)}" for page, words in SHOWN])
def test_a_shown_command_line_parses(page: str, words: list[str]) -> None:
    name, command, rest = CLI.resolve_command(CLI.make_context("parlay", [*words], resilient_parsing=True), words)
    command.make_context(name, rest)  # raises for an option that does not exist, or a value of the wrong kind


def test_every_shell_block_is_looked_at() -> None:
    """Each line begins with a program that these tests know; a block of another kind has no command line in it."""
    known = ("parlay ", "make ", "git clone ", "python -m ", "PARLAY_UPDATE_GOLDEN=1 ", "optuna-dashboard ", "curl ")
    known += ("helm ", "kubectl ", "cyclonedx-py ")
    for page in PAGES:
        strange = [line for line in lines_of_blocks(page) if line and not line.startswith(known)]
        assert not strange, named(page)
        hidden = [line for kind, block in FENCE.findall(read(page)) if kind not in SHELL for line in block.splitlines()]
        assert not [line for line in hidden if line.lstrip("$ ").startswith(("parlay ", "make "))], named(page)


def test_an_indented_block_holds_no_command_line() -> None:
    for page in PAGES:
        assert not re.findall(r"^    (?:\$ )?(?:parlay|make) .*$", FENCE.sub("", read(page)), re.M), named(page)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_running_text_exist_with_their_options(page: Path) -> None:
    """``parlay tune --resume``, short of values and arguments."""
    for text in re.findall(r"`parlay ([^`]+)`", FENCE.sub("", read(page))):
        name, *rest = text.split()
        if name in ("COMMAND", "--help", "--server"):
            continue
        name = f"{name} {rest[0]}" if name not in COMMANDS and rest else name
        assert name in COMMANDS, f"{named(page)}: parlay {text}"
        options = {option for param in COMMANDS[name].params for option in param.opts}
        assert {word for word in rest if word.startswith("--")} <= options, f"{named(page)}: parlay {text}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_makefile_has_what_is_made(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", read(ROOT / "Makefile"), re.M))
    asked = {words[0] for words in commands(page, "make")} | set(re.findall(r"`make ([\w-]+)`", read(page)))
    assert asked <= targets


TRACES = ROOT / "tests" / "data" / "cases" / "simulate_trace_max_rate"  # shown requests name one of these


def documents() -> list[Any]:
    blocks = [(page, block) for page in PAGES for kind, block in FENCE.findall(read(page)) if kind == "yaml"]
    blocks = [(page, block) for page, block in blocks if not block.startswith("serving:")]  # values of the chart
    return [pytest.param(block, id=f"{named(page)}-{n}") for n, (page, block) in enumerate(blocks)]


@pytest.mark.parametrize("text", documents())
def test_a_shown_request_is_one(text: str) -> None:
    found = yaml.safe_load(text)
    if found.get("kind") == "LayoutRequest":
        found = found["spec"]["request"]
    assert isinstance(parse_request(found, folder=TRACES), TuneRequest)


# The reference


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_reference_with_its_options(name: str) -> None:
    told = set(rows(section(f"parlay {name}")))
    params = [param for param in COMMANDS[name].params if param.param_type_name == "option" and not param.hidden]
    assert told == {param.opts[0] for param in params}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_defaults_of_options_are_those_of_the_command(name: str) -> None:
    told = rows(section(f"parlay {name}"))
    for param in COMMANDS[name].params:
        if (
            not param.hidden
            and param.param_type_name == "option"
            and isinstance(param.default, str | int | float)
            and not param.is_flag
        ):
            shown = f"{param.default:g}" if isinstance(param.default, float) else str(param.default)
            assert told[param.opts[0]].split("|")[0].strip() == shown, param.opts[0]


def models_of(annotation: Any) -> set[type[BaseModel]]:
    """The models that a key may hold, in unions and lists too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    if get_origin(annotation) in (Union, UnionType, tuple, list):
        return set().union(*(models_of(part) for part in get_args(annotation)))
    return models_of(get_args(annotation)[0]) if get_origin(annotation) else set()


def keys(model: type[BaseModel], place: str = "") -> dict[str, Any]:
    """Every key of a request by its path, with its default."""
    found = {}
    for name, field in model.model_fields.items():
        found[f"{place}{name}"] = "required" if field.is_required() else field.default
        for inner in models_of(field.annotation) | {m for extra in field.metadata for m in models_of(extra)}:
            found |= keys(inner, f"{place}{name}.")
    return found


def test_every_key_of_a_request_is_in_the_reference_with_its_default() -> None:
    told, known = rows(section("Keys of a request")), keys(TuneRequest)
    assert {"cluster.gpu", "workload.prompt_tokens.mean", "slo.ms"} < set(known)
    assert set(told) == set(known)
    for name, default in known.items():
        shown, meaning = (cell.strip() for cell in told[name].split("|")[:2])
        assert meaning, name
        if isinstance(default, bool):
            assert shown == str(default).lower(), name
        elif isinstance(default, str | int | float):
            expected = f"{default:g}" if isinstance(default, int | float) else str(default)
            assert shown == expected, name


def names(kind: str) -> set[str]:
    if kind == "Axes of a layout":
        return set(AXES)
    if kind == "GPUs and fabrics":
        return {path.stem for path in (*PROFILE_DIR.glob("*.yaml"), *(PROFILE_DIR / "fabrics").glob("*.yaml"))}
    if kind == "Search spaces":
        return {path.stem for path in SPACES_DIR.glob("*.yaml")}
    if kind == "Failure reasons":
        return set(FailureReason)
    return set(DropReason) if kind == "Reasons for dropping" else set(StudyState)


KINDS = (
    "Axes of a layout", "GPUs and fabrics", "Search spaces", "Failure reasons", "Reasons for dropping",
    "States of a study",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_a_kind_is_in_the_reference(kind: str) -> None:
    text = section(kind)
    missing = {name for name in names(kind) if f"`{name}`" not in text}
    assert names(kind)
    assert not missing
    if text.lstrip().startswith("|"):
        assert set(rows(text)) == names(kind)


@pytest.mark.parametrize("name", AXES)
def test_values_and_default_of_an_axis_are_told(name: str) -> None:
    axis, row = AXES[name], rows(section("Axes of a layout"))[name].split("|")
    assert row[0].strip() == ("" if axis.default is None else axis.shown(axis.default))
    assert {f"`{word}`" for word in axis.words} == set(re.findall(r"`[^`]+`", row[1]))
    if axis.engine is not None:
        assert row[3].strip() == f"`{axis.engine.name}`"


def test_every_search_space_is_told_by_task() -> None:
    told = rows(read(ROOT / "docs" / "ask.md"))
    assert names("Search spaces") <= set(told)


def test_every_metric_is_in_the_reference() -> None:
    told, metrics = rows(section("Metrics")), list(Telemetry().registry.collect())
    assert set(told) == {metric.name for metric in metrics}
    for metric in metrics:
        assert told[metric.name].split("|")[0].strip() == metric.type


def test_labels_of_metrics_are_told() -> None:
    told, registry = rows(section("Metrics")), Telemetry().registry
    for collector in registry._collector_to_names:  # no public way to the labels of a metric without samples
        name, labels = collector._name, ", ".join(collector._labelnames)  # type: ignore[attr-defined]
        assert told[name].split("|")[1].strip() == labels, name
        assert isinstance(collector, Histogram) == ("histogram" in told[name])


def test_every_technique_is_in_the_reference() -> None:
    told = {name.partition("=")[0] for name in rows(section("Techniques for `--what-if`"))}
    assert told == {technique.name for technique in TECHNIQUES}


def errors(root: type[ParlayError] = ParlayError) -> set[type[ParlayError]]:
    return {root}.union(*(errors(kind) for kind in root.__subclasses__()))


def test_every_exit_code_is_in_the_reference() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.M)}
    assert told == {0, *(kind.exit_code for kind in errors())}
    assert {NoFeasibleLayout.exit_code, Cancelled.exit_code} <= told
