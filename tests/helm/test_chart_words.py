"""What the pods of the service are told are words that this Parlay knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from tests.chart import documents, pods, render
from tests.chart_cases import CHANGES
from tuner.app.cli.commands import app

pytestmark = pytest.mark.tools
CASES = [change for change in CHANGES if change.over.keys() & {"tuner", "controller"}]


@pytest.mark.slow
def test_every_argument_of_every_container_is_parsed(tmp_path: Path) -> None:
    cli, seen = get_command(app), set()
    for change in CASES:
        for document in documents(render(change.values, tmp_path)):
            for pod in pods(document):
                for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                    if "args" not in container:
                        continue
                    words, command = list(container["args"]), cli
                    context = command.make_context("parlay", words, resilient_parsing=True)
                    name, command, rest = command.resolve_command(context, words)  # type: ignore[attr-defined]
                    seen.add(name)
                    if hasattr(command, "commands"):
                        _, command, rest = command.resolve_command(
                            command.make_context(name, [*rest], resilient_parsing=True), rest
                        )
                    command.make_context(name, list(rest))  # raises for an option that does not exist
    assert seen == {"serve", "worker", "token", "controller"}
