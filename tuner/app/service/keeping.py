"""The worker processes under a service: started, and started again where they die, until the service ends."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from tuner.errors import Cancelled, Cause
from tuner.trial.cancel import CancelHandle

AGAIN_S = (1.0, 2.0, 5.0, 15.0, 60.0)  # before a worker that died is started again, the n-th time in a row
WELL_S = 60.0  # one that lived for so long was well: its death begins a new row


@contextmanager
def workers(
    words: Callable[[int], Sequence[str]],
    count: int,
    stop: CancelHandle,
    tell: Callable[[str], None],
    environment: Mapping[str, str],
) -> Iterator[None]:
    """So many processes, each of the command line of its number, to the end of the block, or until ``stop``; then they
    are told to end, and waited for. ``environment`` is what they get beside this process's."""
    environment = {**os.environ, **environment}
    runs = [partial(_run, words(number), environment, stop) for number in range(count)]
    threads = [
        threading.Thread(target=_keep, args=(run, number, stop, tell), name=f"worker {number}")
        for number, run in enumerate(runs)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.cancel(Cause.SHUTDOWN, "the service ends")
        for thread in threads:
            thread.join()


def pause_s(deaths: int) -> float:
    """For how long to wait after so many deaths in a row."""
    return AGAIN_S[min(deaths, len(AGAIN_S)) - 1]


def _keep(run: Callable[[], str], number: int, stop: CancelHandle, tell: Callable[[str], None]) -> None:
    deaths = 0
    while stop.cause is None:
        began = time.perf_counter()
        how = run()
        if stop.cause is not None:
            return
        deaths = 1 if time.perf_counter() - began >= WELL_S else deaths + 1
        tell(f"parlay: worker {number} ended ({how}); another is started in {pause_s(deaths):g} s")
        try:
            stop.wait(pause_s(deaths))
        except Cancelled:
            return


def _run(words: Sequence[str], environment: Mapping[str, str], stop: CancelHandle) -> str:
    """One process, from its start to its end; how it ended."""
    try:  # in a session of its own: a terminal's Ctrl-C is for the service to pass on
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    except OSError as error:
        return f"it could not be started: {error}"
    with stop.listening(partial(_terminate, process)):
        code = process.wait()
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _terminate(process: subprocess.Popen[bytes], *_: object) -> None:
    process.terminate()
