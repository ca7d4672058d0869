"""A window in which the client was the bottleneck is told from a slow server."""

import asyncio
import time

import pytest

from serve.load.exact_timer import Alarm
from serve.load.request_sample import Outcome, Sample
from serve.load.saturation import ClientLimit, ClientLoad, Heartbeat, client_bound
from tuner.ask.request import SloTarget


def sample(lag_s=0.0, ttft_s=0.1, outcome=Outcome.OK):
    return Sample(0, 0.0, lag_s, lag_s, (lag_s + ttft_s,), lag_s + ttft_s, 1, 1, outcome)


def load(loop_lag_s=0.0, cpu_share=0.5):
    return ClientLoad((loop_lag_s,) * 100, cpu_share)


@pytest.mark.parametrize(
    ("samples", "client", "limit"),
    [
        ([], None, None),
        ([sample()] * 100, load(), None),
        ([sample(ttft_s=30.0)] * 100, load(), None),  # a slow server is no slow client
        ([sample()] * 99 + [sample(lag_s=9.0)], load(), None),  # one late request of a hundred
        ([sample()] * 98 + [sample(lag_s=0.021)] * 2, load(), ClientLimit.SCHEDULE_LAG),
        ([sample(ttft_s=2.0)] * 98 + [sample(lag_s=0.021)] * 2, load(), None),  # 5 % of the TTFT is 100 ms
        ([sample(ttft_s=2.0)] * 98 + [sample(lag_s=0.11)] * 2, None, ClientLimit.SCHEDULE_LAG),
        ([sample()] * 100, load(loop_lag_s=0.03), ClientLimit.LOOP_LAG),
        ([sample()] * 100, load(cpu_share=1.0), ClientLimit.CPU),
        ([sample(outcome=Outcome.CLIENT_LIMIT)], load(), ClientLimit.FILE_LIMIT),
        ([sample(outcome=Outcome.REFUSED)] * 100, load(), None),
    ],
)
def test_which_limit_the_client_met(samples, client, limit):
    found = client_bound(samples, client)
    assert (None if found is None else found.limit) is limit


@pytest.mark.parametrize(
    ("words", "bound"), [(["ttft:p99:500"], False), (["ttft:p99:100"], True), (["tpot:p99:900"], True), ([], True)]
)
def test_lateness_that_cannot_turn_the_verdict_does_not_count(words, bound):
    late = [sample(lag_s=0.024)] * 100
    assert (client_bound(late, load(), [SloTarget.parse(text) for text in words]) is not None) is bound


def test_the_words_give_the_figures():
    found = client_bound([sample(lag_s=0.25)] * 100, load(cpu_share=0.42))
    assert found.words == "requests left late: p99 250.0 ms, limit 20.0 ms; the client used 42% of a core"


def test_the_busiest_worker_counts():
    merged = ClientLoad.merged([ClientLoad((0.001,) * 99, 0.2), ClientLoad((0.5,), 0.9)])
    assert (merged.workers, merged.cpu_share, len(merged.loop_lag_s)) == (2, 0.9, 100)
    assert merged.loop_lag_p99_ms == pytest.approx(1.0)


@pytest.mark.slow
def test_a_blocked_loop_shows():
    async def blocked():
        heartbeat = Heartbeat()
        for _ in range(3):
            await asyncio.sleep(0.03)
            time.sleep(0.1)
        await asyncio.sleep(0.03)
        return heartbeat.stop()

    assert max(asyncio.run(blocked()).loop_lag_s) >= 0.08


@pytest.mark.slow
def test_a_busy_client_shows():
    async def busy():
        heartbeat = Heartbeat()
        started_s = time.process_time()
        while time.process_time() - started_s < 0.2:
            await asyncio.sleep(0)
        return heartbeat.stop()

    async def idle():
        heartbeat = Heartbeat()
        await asyncio.sleep(0.2)
        return heartbeat.stop()

    assert asyncio.run(busy()).cpu_share > asyncio.run(idle()).cpu_share


def test_an_alarm_never_rings_early_and_can_be_set_again():
    async def waits():
        alarm, late_s = Alarm(), []
        for wait_s in (0.0003, 0.02, -1.0, 0.0, 0.005):
            when_s = time.perf_counter() + wait_s
            await alarm.wait_until(when_s)
            late_s.append(time.perf_counter() - when_s)
        alarm.close()
        return late_s

    assert min(asyncio.run(waits())) >= 0


def test_an_alarm_can_be_woken():
    async def woken():
        alarm = Alarm()
        asyncio.get_running_loop().call_later(0.01, alarm.wake)
        await alarm.wait_until(time.perf_counter() + 600.0)
        alarm.close()
        return True

    assert asyncio.run(asyncio.wait_for(woken(), 60))
