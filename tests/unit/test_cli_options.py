"""A command's options are declared once, as the fields of a dataclass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tuner.app.cli.options import takes


@dataclass(frozen=True, slots=True)
class Painting:
    """What the command below takes."""

    wall: Annotated[Path, typer.Argument(metavar="WALL", help="What to paint.")]
    colours: Annotated[tuple[str, ...], typer.Option("--colour", help="One coat each.")] = ()
    coats: Annotated[int, typer.Option(min=1, help="How often.")] = 2
    by: Annotated[str | None, typer.Option(help="Who paints.")] = None
    wet: Annotated[bool, typer.Option("--wet", help="Do not wait.")] = False


SHOWN = []
app = typer.Typer(rich_markup_mode=None)


@app.command()
@takes(Painting)
def paint(painting: Painting) -> None:
    """Paint a wall."""
    SHOWN.append(painting)


@pytest.mark.parametrize(
    ("words", "painting"),
    [
        (["north"], Painting(Path("north"))),
        (["north", "--colour", "red", "--colour", "blue"], Painting(Path("north"), colours=("red", "blue"))),
        (["south", "--coats", "3", "--by", "me", "--wet"], Painting(Path("south"), coats=3, by="me", wet=True)),
    ],
)
def test_the_function_gets_the_object(words, painting):
    SHOWN.clear()
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, SHOWN) == (0, [painting])


def test_help_and_refusals_come_from_the_fields():
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for words in ("Paint a wall.", "WALL", "--colour", "One coat each.", "[default: 2; x>=1]", "--by", "--wet"):
        assert words in shown
    assert "--no-wet" not in shown
    assert CliRunner().invoke(app, ["north", "--coats", "0"]).exit_code == 2
    assert CliRunner().invoke(app, []).exit_code == 2
