"""How long each launch of a study took to start, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tuner.app.cli.tables import ABSENT, left_title, number
from tuner.trial.results import TrialResult
from tuner.trial.start_up import StartPhase


def starts_table(console: Console, trials: Sequence[TrialResult]) -> None:
    """A row per trial whose start is known by phase; a column per phase that took any of them half a second."""
    known = [(trial.number + 1, up) for trial in trials if (up := trial.start_up) is not None]
    shown = [phase for phase in StartPhase if any(up.phases_s.get(phase, 0.0) >= 0.5 for _, up in known)]
    if not shown:
        return
    table = Table(title="From the order to the first answers, s", **left_title(None))
    table.add_column("trial", justify="right")
    for phase in shown:
        table.add_column(str(phase).replace("_", "\n"), justify="right")
    table.add_column("all", justify="right")
    table.add_column("compiled")
    for row, up in known:
        cells = [number(up.phases_s.get(phase), 1) for phase in shown]
        table.add_row(str(row), *cells, number(up.seconds, 1), _COMPILED[up.compiled_anew])
    console.print(table)


_COMPILED = {True: "anew", False: "from the cache", None: ABSENT}
