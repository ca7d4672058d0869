"""A few of the simulated episodes of re-tuning (``python -m tests.benchmarks.retune_episodes`` plays a thousand)."""

import json
from dataclasses import asdict

import pytest

from tests.benchmarks.retune_episodes import Scores, line, play, table

pytestmark = pytest.mark.slow
NUMBERS = (1, 9, 13, 14)  # a diurnal load, nodes, prompts four times as long, quiet weeks


def test_changes_are_noticed_and_nothing_else_is_done():
    found = play(NUMBERS)
    by_kind = {one.kind: one for one in found}
    assert by_kind["diurnal"].actions == 0
    assert by_kind["quiet"].actions == 0
    assert not any(one.missed or one.false or one.flaps for one in found)
    ours, oracle, scaled, never = (sum(one.lost_minutes[i] for one in found) for i in range(4))
    assert ours <= 3 * oracle
    assert ours < scaled < never
    assert table(found).count("\n") == 1 + len(by_kind) + 1


def test_what_was_played_before_an_interruption_is_not_played_again(tmp_path):
    done = Scores(1, "diurnal", (1.0, 2.0, 3.0, 4.0), (5.0,) * 4, None, False, False, 0, 0, 0, 0.0, 7)
    kept = tmp_path / "kept.jsonl"
    kept.write_text(json.dumps(asdict(done)) + "\n")
    (found,) = play([1], kept=kept)
    assert line(found) == line(done)
    assert table([found]) == table([done])
