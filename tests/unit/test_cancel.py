"""Asking for an end: heard once, at once, in every thread."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tuner.errors import Cancelled, Cause, ParlayError
from tuner.trial.cancel import CancelHandle


def test_nobody_has_asked():
    handle = CancelHandle()
    handle.raise_if_cancelled()
    handle.wait(0)
    handle.wait(-1)
    assert (handle.cause, handle.words) == (None, None)


@pytest.mark.parametrize("cause", Cause)
def test_it_says_who_asked_and_how(cause):
    handle = CancelHandle()
    handle.cancel(cause, "words")
    assert (handle.cause, handle.words) == (cause, "words")
    with pytest.raises(Cancelled, match=f"cancelled by the {cause.value}: words") as raised:
        handle.raise_if_cancelled()
    assert (raised.value.cause, raised.value.words) == (cause, "words")
    assert isinstance(raised.value, ParlayError)
    assert not isinstance(raised.value, KeyboardInterrupt)


def test_only_the_first_is_heard():
    handle, told = CancelHandle(), []
    with handle.listening(lambda cause, words: told.append((cause, words))), ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: handle.cancel(Cause.RACING, str(n)), range(64)))
    assert told == [(Cause.RACING, handle.words)]


def test_a_wait_ends_when_it_is_asked():
    handle = CancelHandle()
    threading.Timer(0.1, handle.cancel, (Cause.BUDGET, "spent")).start()
    started = time.perf_counter()
    with pytest.raises(Cancelled, match="spent"):
        handle.wait(60)
    assert time.perf_counter() - started < 30


def test_a_listener_is_told_at_once_where_it_comes_late_and_never_after_it_left():
    handle, told = CancelHandle(), []
    with handle.listening(lambda *end: told.append(("early", *end))):
        pass
    handle.cancel(Cause.OPERATOR)
    with handle.listening(lambda *end: told.append(("late", *end))):
        assert told == [("late", Cause.OPERATOR, "")]
    assert len(told) == 1


def test_a_handle_below_another_ends_with_it_and_by_itself():
    above, below, other = CancelHandle(), CancelHandle(), CancelHandle()
    with above.listening(below.cancel), above.listening(other.cancel):
        other.cancel(Cause.RACING, "lost")
        assert above.cause is below.cause is None
        above.cancel(Cause.SHUTDOWN, "the end")
    assert (below.cause, other.cause) == (Cause.SHUTDOWN, Cause.RACING)
