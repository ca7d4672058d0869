"""A few of the simulated episodes of re-tuning (``python -m tests.benchmarks.retune_episodes`` plays a thousand)."""

import pytest

from tests.benchmarks.retune_episodes import play, table

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
