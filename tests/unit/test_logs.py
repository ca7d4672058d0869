"""A trial's log files: their last lines."""

from __future__ import annotations

import os
from pathlib import Path

from serve.launch.logs import keep, tail


def test_the_tail_ends_with_what_was_written_last(tmp_path: Path) -> None:
    for order, name in enumerate(("b.log", "a.log")):
        (tmp_path / name).write_text(f":actor_name:x\n{name} 1\n\n{name} 2\n")
        os.utime(tmp_path / name, (order, order))
    files = [tmp_path / "a.log", tmp_path / "b.log", tmp_path / "absent.log"]
    assert tail(files, 3) == ("b.log 2", "a.log 1", "a.log 2")
    assert tail(files, 0) == ()
    keep(files, tmp_path / "kept")
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["a.log", "b.log"]


def test_colours_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\x1b[36m(RayWorkerProc pid=8)\x1b[0m ValueError: no\n")
    assert tail([tmp_path / "a.log"], 5) == ("(RayWorkerProc pid=8) ValueError: no",)
