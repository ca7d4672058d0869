"""Signals ask for an end once; the second interrupts at once. In processes of their own, as a terminal's are."""

import signal
import subprocess
import sys
import threading

import pytest

from tests.mock_server import Behaviour, MockServer
from tuner.app.cli.signals import cancelled_by_signals
from tuner.trial.cancel import CancelHandle

PROGRAM = """
import os, signal, sys, threading, time
{before}
from tuner.app.cli import commands
from tuner.app.cli.signals import cancelled_by_signals
from tuner.trial.cancel import CancelHandle

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # a line at once: two threads write

def study(**options):
    handle, told = CancelHandle(), threading.Event()
    with cancelled_by_signals(handle, lambda text: (say(text), told.set())):
        say("running")
        try:
            handle.wait(float(sys.argv[1]))
        finally:
            if handle.cause is not None:
                told.wait(30)
            say(handle.cause, handle.words)
            {then}

commands.app = study
commands.main()
"""


def started(before="", then="", seconds=120):
    words = [sys.executable, "-c", PROGRAM.format(before=before, then=then), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "running\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGINT, "operator SIGINT"), (signal.SIGHUP, "operator SIGHUP"), (signal.SIGTERM, "shutdown SIGTERM")],
)
def test_a_signal_asks_for_an_end_and_says_who(number, said):
    with started() as process:
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert out.splitlines() == ["stopping: tearing down what runs; once more to stop at once", said]
    assert (process.returncode, errors) == (130, "parlay: interrupted; the same command with --resume goes on\n")


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_interrupts_at_once(second):
    with started(then="time.sleep(120)") as process:
        process.send_signal(signal.SIGINT)
        assert [process.stdout.readline() for _ in range(2)][1] == "operator SIGINT\n"
        process.send_signal(second)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "parlay: interrupted; the same command with --resume goes on\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_process_was_born_to_ignore_stays_ignored(number):
    """As under nohup, or in the background of a shell without job control."""
    with started(f"signal.signal({int(number)}, signal.SIG_IGN)", seconds=1) as process:
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "None None\n", "")


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)]
    with cancelled_by_signals(CancelHandle(), print):
        assert signal.getsignal(signal.SIGTERM) is not before[2]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)] == before


def test_another_thread_leaves_signals_alone():
    seen = []

    def work():
        with cancelled_by_signals(CancelHandle(), print):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


MEASURING = """
import sys
from serve.measure.http_meter import HttpMeter
from tests.load_windows import FakeDeployment, request, step
from tuner.app.cli.signals import cancelled_by_signals
from tuner.trial.cancel import CancelHandle
from tuner.errors import Cancelled
from tuner.trial.seams import Watch

handle = CancelHandle()
watch = Watch(handle, progress=lambda words: print("running", flush=True))
try:
    with cancelled_by_signals(handle, lambda text: None):
        HttpMeter().measure(FakeDeployment(sys.argv[1]), step(), request(load={"request_timeout_s": 600}), watch)
except Cancelled as end:
    print(end, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_while_the_main_thread_measures(number):
    """Its event loop has ways of its own with signals."""
    with MockServer(Behaviour.SLOW_HEADERS) as server:
        words = [sys.executable, "-c", MEASURING, server.url]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "running\n"
            process.send_signal(number)
            out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert out.splitlines()[-1].endswith(number.name)
