"""``parlay measure --find-rate``: the highest rate at which the SLO holds, or why there is none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from serve.measure.engine_metrics import EngineWindow
from serve.measure.first_answer import Agreed
from tests.measure_command import measure
from tests.measure_sample import SLO, measured_window
from tests.mock_server import MockServer
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.rate_finder import RateFinder
from tuner.ask.slo import Verdict
from tuner.errors import BadInput
from tuner.stats.rate_search import SearchEnd


class Server:
    """Windows as a server would give them that holds the SLO below ``limit`` requests/s."""

    def __init__(self, limit, client_limit=1e9, dead_at=1e9):
        self.limit, self.client_limit, self.dead_at = limit, client_limit, dead_at

    def window(self, order):
        rate = order.rate_req_per_s
        ttft_ms = 50 if rate < self.limit else 900
        invalid, seconds = rate > self.client_limit, 100 / rate
        found = measured_window(rate, ttft_ms=ttft_ms, invalid=invalid, broken=None, seconds=seconds)
        found = replace(found, ended_early=Verdict.MET if rate < self.limit else Verdict.MISSED)
        return replace(found, engine=EngineWindow(restarted=("0",))) if rate > self.dead_at else found


def find(server, **options):
    source = RateFinder(MeasureOptions("http://h", seconds=1, warmup_seconds=0, **options), SLO)
    rates = []
    while (order := source.ask()) is not None:
        rates.append(order.rate_req_per_s)
        source.tell(server.window(order))
    return source.found, rates


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"rates": (3.0,)}, {"rates": (2.0, 40.0)}], ids=["alone", "a guess", "a range"]
)
def test_a_search_finds_the_limit(options):
    found, rates = find(Server(limit=10), **options)
    assert found.end is SearchEnd.FOUND
    assert found.at_least_req_per_s < 10.5
    assert found.at_most_req_per_s > 9.5
    assert 8 < found.rate_req_per_s < 10
    assert found.windows == len(rates) <= 12


@pytest.mark.slow
def test_a_search_says_where_it_ends_otherwise():
    assert find(Server(limit=0.0001))[0].end is SearchEnd.LOWEST_FAILS
    assert find(Server(limit=1e9), rates=(1.0, 8.0))[0].end is SearchEnd.HIGHEST_PASSES
    saturated, _ = find(Server(limit=100, client_limit=20), rates=(1.0, 200.0))
    assert saturated.end is SearchEnd.CLIENT_SATURATED
    assert saturated.rate_req_per_s <= 20


def test_a_dead_server_ends_a_search():
    found, rates = find(Server(limit=100, dead_at=5))
    assert (found.end, found.rate_req_per_s) == (None, rates[0])
    assert len(rates) <= 3


@pytest.mark.parametrize(
    "options", [{"users": (2,)}, {"trace": Path("t.csv")}, {"rates": (1.0, 2.0, 3.0)}, {"rates": (0.0,)}]
)
def test_a_search_needs_rates_of_its_own(options):
    with pytest.raises(BadInput):
        RateFinder(MeasureOptions("http://h", **options), SLO)
    with pytest.raises(BadInput, match="--find-rate"):
        RateFinder(MeasureOptions("http://h"), ())


@pytest.mark.slow
def test_a_search_shows_its_rate_in_words_and_keys(monkeypatch):
    server = Server(limit=10)
    monkeypatch.setattr("tuner.app.measure.run.first_answer", lambda endpoint, *_: Agreed(endpoint))
    monkeypatch.setattr("serve.measure.window_runner.WindowRunner.run", lambda self, order: server.window(order))
    words = ["--find-rate", "--slo", "ttft:p99:400", "--seconds", "1"]
    with MockServer() as mock:
        code, out, _ = measure(mock.url, *words, "--json")
        shown = measure(mock.url, *words)[1]
    found = json.loads(out)
    assert code == 0
    assert set(found["found_rate"]) == {"rate_req_per_s", "at_least_req_per_s", "at_most_req_per_s", "windows", "end"}
    assert found["load"]["rate_req_per_s"] == found["found_rate"]["rate_req_per_s"]
    assert f"the SLO holds up to {found['found_rate']['rate_req_per_s']:.3g} requests/s" in shown
