"""A trial's log files: their last lines."""

from __future__ import annotations

import os
from pathlib import Path

from serve.launch.logs import keep, show, tail


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


def test_what_is_written_elsewhere_is_shown_until_it_is_kept(tmp_path: Path) -> None:
    session, trial = tmp_path / "session", tmp_path / "trial-000"
    session.mkdir()
    files = [session / "worker-a-1.out", session / "worker-a-1.err"]
    for file in files:
        file.touch()
    show(files, trial)
    files[0].write_text("loading\n")
    show(files, trial)  # it is looked again and again
    assert (trial / "worker-a-1.out").read_text() == "loading\n"
    keep(files, trial)
    for file in files:
        file.unlink()
    assert [(path.name, path.read_text()) for path in trial.iterdir()] == [("worker-a-1.out", "loading\n")]
