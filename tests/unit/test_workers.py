"""Several processes make one window; none of them outlives it, and none is missed in silence."""

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import pytest

from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome
from serve.load.request_spec import Call
from serve.load.workers import Share, WorkerDied, WorkerRun, run_fast
from tests.mock_server import Behaviour, MockServer
from tests.unit.test_bad_servers import BEHAVIOURS
from tuner.errors import BadInput


def body(tokens=4):
    return json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": tokens, "stream": True}).encode()


def spread(worker, workers, count=20, gap_s=0.01):
    """Every so manyth call of one schedule."""
    return Share([Call(index, index * gap_s, body(), 3, 4) for index in range(worker, count, workers)])


def closed(worker, workers, rounds=3):
    """One user for each worker, whose next request follows its last answer."""

    def then(call, sample):
        following = call.index + workers
        return Call(following, sample.end_s + 0.01, body(), 3, 4) if following < rounds * workers else None

    return Share([Call(worker, 0.0, body(), 3, 4)], then)


def dies(worker, workers, how):
    if worker == 1:
        how()
    return spread(worker, workers)


def fails():
    raise ValueError("no such tokenizer")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def run(url, plan, workers=2, timeout_s=20.0):
    load = WorkerRun(Endpoint(url, "m"), timeout_s, plan, workers)
    return load, run_fast(load.run())


def no_process_is_left():
    return not [one for one in multiprocessing.active_children() if one.name.startswith("parlay-load")]


@pytest.mark.slow
def test_the_union_of_the_shares_is_the_schedule():
    with MockServer(ttft_s=0.01) as server:
        load, samples = run(server.url, spread)
        assert len(server.served) == 20
    assert [sample.index for sample in samples] == list(range(20))
    assert {sample.outcome for sample in samples} == {Outcome.OK}
    assert (load.sent, load.in_flight) == (20, 0)
    assert load.client_load is not None
    assert load.client_load.workers == 2
    assert load.client_load.loop_lag_s
    assert no_process_is_left()


@pytest.mark.slow
def test_the_processes_share_one_clock():
    """By the server's log, on that clock, nothing arrives before it was sent, and nothing was sent early."""
    with MockServer() as server:
        load, samples = run(server.url, partial(spread, count=8, gap_s=0.02))
        arrived_s = sorted(served.arrived_s for served in server.served)
    sent_s = sorted(sample.sent_s + time.perf_counter() - load.elapsed_s for sample in samples)
    assert all(sent <= arrived for sent, arrived in zip(sent_s, arrived_s, strict=True))
    assert all(sample.lag_s >= 0 for sample in samples)


@pytest.mark.slow
def test_what_follows_from_an_answer_is_sent_by_the_same_worker():
    with MockServer(ttft_s=0.01) as server:
        _, samples = run(server.url, closed)
    assert [sample.index for sample in samples] == list(range(6))
    for earlier, later in zip(samples, samples[2:], strict=False):
        assert later.sent_s >= earlier.end_s + 0.01


@pytest.mark.slow
def test_bad_servers_look_the_same_through_processes():
    pattern = [behaviour for behaviour, _, _ in BEHAVIOURS]
    with MockServer(lambda number: pattern[number]) as server:
        _, samples = run(server.url, partial(spread, count=len(pattern), gap_s=0.005), timeout_s=3.0)
    assert Counter(sample.error for sample in samples) == Counter(name for _, name, _ in BEHAVIOURS)
    assert all(sample.detail is not None for sample in samples if sample.error in ("malformed", "http_429", "reset"))


@pytest.mark.slow
@pytest.mark.parametrize(("how", "words"), [(fails, "no such tokenizer"), (killed, "exit code -9")])
def test_a_worker_that_dies_is_an_error(how, words):
    with MockServer() as server, pytest.raises(WorkerDied, match=words):
        run(server.url, partial(dies, how=how))
    assert no_process_is_left()


@pytest.mark.slow
def test_a_window_can_be_ended_early():
    async def stopped(url):
        load = WorkerRun(Endpoint(url, "m"), 60.0, partial(spread, count=2000, gap_s=0.01), 2)
        task = asyncio.create_task(load.run())
        while load.sent < 10:
            await asyncio.sleep(0.01)
        assert load.elapsed_s > 0
        load.stop(cut_off=True)
        return await task

    with MockServer(Behaviour.STALL) as server:
        samples = asyncio.run(stopped(server.url))
    assert 10 <= len(samples) < 2000
    assert {sample.outcome for sample in samples} == {Outcome.CUT_OFF}


@pytest.mark.slow
def test_a_cancelled_run_leaves_no_process():
    async def cancelled(url):
        load = WorkerRun(Endpoint(url, "m"), 600.0, spread, 2)
        task = asyncio.create_task(load.run())
        while len(load.open_calls()) < 20:
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with MockServer(Behaviour.SLOW_HEADERS) as server, pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled(server.url))
    assert no_process_is_left()


SCRIPT = """
import multiprocessing, sys, time
from serve.load.endpoint import Endpoint
from serve.load.workers import WorkerRun, run_fast
from tests.unit.test_workers import spread

async def main():
    import asyncio
    load = WorkerRun(Endpoint(sys.argv[1], "m"), 600.0, spread, 2)
    task = asyncio.create_task(load.run())
    while len(load.open_calls()) < 20:
        await asyncio.sleep(0.01)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    await task

run_fast(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("deadly", [signal.SIGINT, signal.SIGKILL])
def test_no_signal_leaves_a_worker_behind(deadly):
    with MockServer(Behaviour.SLOW_HEADERS) as server:
        command = [sys.executable, "-c", SCRIPT, server.url]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        ) as process:
            assert process.stdout is not None
            children = [int(word) for word in process.stdout.readline().split()]
            assert len(children) == 2, process.stderr and process.stderr.read()
            if deadly is signal.SIGINT:
                os.killpg(process.pid, deadly)  # as a terminal does
            else:
                process.kill()
            assert process.wait(20) != 0
    deadline_s = time.monotonic() + 20
    while alive := [pid for pid in children if _alive(pid)]:
        assert time.monotonic() < deadline_s, alive
        time.sleep(0.02)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [0, -1])
def test_a_window_needs_a_worker(workers):
    with pytest.raises(BadInput):
        WorkerRun(Endpoint("http://h", "m"), 1.0, spread, workers)
