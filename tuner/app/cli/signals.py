"""The one place where signals become a request to end."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tuner.errors import Cause
from tuner.trial.cancel import CancelHandle

CAUSES = {signal.SIGINT: Cause.OPERATOR, signal.SIGHUP: Cause.OPERATOR, signal.SIGTERM: Cause.SHUTDOWN}


@contextmanager
def cancelled_by_signals(cancel: CancelHandle, tell: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal set the handle, to the end of the block; the next one interrupts at once.

    A signal that the process was born to ignore stays ignored. In another than the main thread, which alone may handle
    signals, nothing changes. ``tell`` is told that the end was asked for, in a thread of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.default_int_handler)
        # This thread may be inside the handle's lock, or the terminal's.
        _thread.start_new_thread(end, (signal.Signals(number),))

    def end(which: signal.Signals) -> None:
        cancel.cancel(CAUSES[which], which.name)
        tell("stopping: tearing down what runs; once more to stop at once")

    heard = [number for number in CAUSES if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in heard}
    try:
        for number in heard:
            signal.signal(number, asked)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
