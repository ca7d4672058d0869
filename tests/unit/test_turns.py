"""Deployments that cannot stand beside each other take turns, first come, first served."""

from __future__ import annotations

import threading

import pytest

from serve.launch.turns import Turns
from tuner.errors import Cancelled, Cause
from tuner.trial.cancel import CancelHandle
from tuner.trial.seams import Watch


def watch(said: list[str], handle: CancelHandle | None = None) -> Watch:
    return Watch(handle or CancelHandle(), progress=said.append)


def test_another_kind_waits_its_turn_and_nobody_overtakes_it() -> None:
    turns, entered, said = Turns(), list[str](), list[str]()

    def enter(name: str, kind: str) -> threading.Thread:
        def work() -> None:
            turns.enter(name, kind, watch(said))
            entered.append(name)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    for name in ("a", "b"):
        turns.enter(name, "one", watch(said))
    other = enter("c", "another")
    while not said:
        other.join(0.005)
    late = enter("d", "one")
    late.join(0.02)
    assert entered == []
    turns.leave("a")
    turns.leave("b")
    other.join()
    assert entered == ["c"]
    turns.leave("c")
    late.join()
    assert entered == ["c", "d"]
    assert set(said) == {"waiting for trials behind another front to end"}


@pytest.mark.slow
def test_a_wait_for_a_turn_can_be_cancelled() -> None:
    turns, handle = Turns(), CancelHandle()
    turns.enter("a", "one", watch([]))
    handle.cancel(Cause.SHUTDOWN, "the service ends")
    with pytest.raises(Cancelled):
        turns.enter("b", "another", watch([], handle))
    turns.leave("a")
    turns.enter("c", "another", watch([]))
