"""A service asked from Python and from the command line, over real HTTP: the same answers, errors and exit codes."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import copy_of_empty_store, document
from tuner.app import wiring
from tuner.app.cli.commands import main
from tuner.app.client import client as client_module
from tuner.app.client import event_stream
from tuner.app.client.client import ServiceClient
from tuner.app.client.event_stream import StudyEvent, follow
from tuner.app.service.application import application
from tuner.app.service.server import Server
from tuner.app.service.service import Limits, Settings
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import BadInput, Cause, NoFeasibleLayout, ServiceError
from tuner.study.accounts import Scope
from tuner.study.orders import Wish
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

ASKED = document({"space": {"tp": [1, 2]}, "budget.launches": 2})
IMPOSSIBLE = document({"slo": [{"metric": "ttft", "percentile": 99, "ms": 0.01}]})


@pytest.fixture
def store(tmp_path):
    opened = Store(copy_of_empty_store(tmp_path / "store.db"))
    yield opened
    opened.close()


@contextmanager
def served(store, tmp_path, open_to_all=True, port=0, **limits):
    """The address of a service in a thread."""
    listening = socket.create_server(("127.0.0.1", port))
    settings = Settings(("simulated",), tmp_path / "out", (), Limits(requests_per_s=1e4, burst=1e4, **limits))
    stop = CancelHandle()
    server = Server(application(store, settings, open_to_all=open_to_all), listening)
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stop.cancel(Cause.SHUTDOWN, "")
        thread.join()


@contextmanager
def working(store, tmp_path):
    """A worker in a thread."""
    stop = CancelHandle()
    worker = Worker(store, WorkerSettings(("simulated",), None, tmp_path / "out"), stop)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        stop.cancel(Cause.SHUTDOWN, "")
        thread.join()


@pytest.fixture
def url(store, tmp_path):
    with served(store, tmp_path) as address:
        yield address


@pytest.fixture
def client(url):
    with ServiceClient(url) as made:
        yield made


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run ``parlay WORDS`` beside a request: (exit code, stdout, stderr)."""
    (tmp_path / "request.json").write_text(json.dumps(ASKED))
    (tmp_path / "impossible.json").write_text(json.dumps(IMPOSSIBLE))
    (tmp_path / "wrong.json").write_text(json.dumps(document({"slo.0.ms": -1})))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["parlay", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


# From Python


@pytest.mark.slow
def test_every_route_has_a_method(client, store, tmp_path):
    assert client.health().status == client.ready().status == "ok"
    assert client.version().api == "v1"
    assert "h100_sxm" in client.names().gpus
    assert client.profile("h100_sxm")["name"]
    assert "parlay_studies" in client.metrics()
    assert client.plan(ASKED).ranked
    assert client.simulate(ASKED, "tp=1", requests=20).attainment is not None
    made = client.queue(ASKED, name="s", key="k")
    assert made == client.queue(ASKED, name="s", key="k")
    assert client.pause("s").state == "paused"
    assert client.resume("s").state == "queued"
    for number in range(3):
        client.queue(ASKED, name=f"more-{number}")
        client.cancel(f"more-{number}")
    assert [line.name for line in client.all_studies()] == ["more-2", "more-1", "more-0", "s"]
    assert client.studies(limit=1).next
    Worker(store, WorkerSettings(("simulated",), None, tmp_path / "out"), CancelHandle()).run(until_idle=True)
    events = list(client.events("s"))
    assert [event.number for event in events] == list(range(1, client.study("s").last_event + 1))
    assert client.decision("s").ended
    assert client.explanation("s").ended
    assert client.picture("s").sections
    assert client.written(document=ASKED).problem is None
    assert "<html" in client.report("s")
    with pytest.raises(BadInput, match="simulated"):
        client.spec("s", "ray-serve")
    with pytest.raises(BadInput, match="no logs"):
        client.log("s", 99)
    client.delete("s")
    with pytest.raises(BadInput, match="there is no study s"):
        client.study("s")


@pytest.mark.slow
def test_every_route_of_the_service_is_asked_by_a_method(store, tmp_path):
    settings = Settings(("simulated",), tmp_path)
    paths = application(store, settings, open_to_all=True).openapi()["paths"]
    source = Path(client_module.__file__).read_text()
    for path in filter(lambda path: not path.startswith("/assets"), paths):
        if path == "/":
            continue
        last = [word for word in path.split("/") if word and not word.startswith("{")][-1]
        assert last in source, path


def test_what_is_refused_is_the_error_that_it_would_be_here(client):
    with pytest.raises(BadInput) as refused:
        client.plan(document({"slo.0.ms": -1}))
    assert refused.value.where == "request: slo.0.ms"
    assert refused.value.given == "-1"
    assert refused.value.allowed
    with pytest.raises(BadInput, match=r"a/\.\./b"):
        client.study("a/../b")


def test_a_study_without_a_winner_is_no_feasible_layout(store, client, monkeypatch):
    client.queue(ASKED, name="s")
    store.orders.ask("s", Wish.CANCEL)

    def none(*given):
        raise NoFeasibleLayout("none meets it")

    monkeypatch.setattr(wiring, "measured_trial", none)
    with pytest.raises(NoFeasibleLayout, match="none meets it"):
        client.spec("s", "ray-serve")


@pytest.mark.slow
def test_a_token_is_shown_in_a_header_and_its_lack_is_told(store, tmp_path):
    _, secret = store.accounts.create("reader", Scope.READ, None)
    with served(store, tmp_path, open_to_all=False) as address:
        with ServiceClient(address) as nobody, pytest.raises(BadInput, match="bearer token"):
            nobody.studies()
        with ServiceClient(address, secret) as reader:
            assert reader.studies().studies == []
            with pytest.raises(BadInput, match="scope is read"):
                reader.queue(ASKED)


@pytest.mark.parametrize("address", ["ftp://host", "host:80", "http://me:secret@host", "http://host?token=secret"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_showing_it(address):
    with pytest.raises(BadInput, match="--server") as refused:
        ServiceClient(address)
    assert "secret" not in str(refused.value)


def test_a_service_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr("tuner.app.client.transport.time.sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with ServiceClient(f"http://127.0.0.1:{port}") as client, pytest.raises(ServiceError, match="no answer of"):
        client.health()


def test_a_stream_that_breaks_is_taken_up_where_it_broke_off():
    broken = ["retry: 20", "", "id: 1", "event: a", "data: {}", "", ": nothing new", "", "id: 2", "event: b"]
    rest = ["id: 1", "event: a", "data: {}", "", "id: 2", "event: b", 'data: {"x": 1}', ""]
    opened, waited = [], []

    @contextmanager
    def lines(after):
        opened.append(after)
        if len(opened) == 2:
            raise ServiceError("not now")
        yield broken if len(opened) == 1 else rest

    found = list(follow(lines, lambda: len(opened) == 3, wait=waited.append))
    assert found == [StudyEvent(1, "a", {}), StudyEvent(2, "b", {"x": 1})]
    assert opened == [0, 1, 1]
    assert waited == [0.02, 0.02]


def test_a_stream_that_is_gone_for_good_is_given_up(monkeypatch):
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(event_stream.time, "monotonic", lambda: next(clock))

    @contextmanager
    def lines(after):
        raise ServiceError("gone")
        yield

    with pytest.raises(ServiceError, match="gone"):
        list(follow(lines, lambda: False, wait=lambda seconds: None))


@pytest.mark.slow
def test_events_go_on_over_a_restart_of_the_service(store, tmp_path):
    with served(store, tmp_path) as address:
        client = ServiceClient(address)
        client.queue(ASKED, name="s")
        stream = client.events("s")
        found = [next(stream)]
        port = int(address.rpartition(":")[2])
    with served(store, tmp_path, port=port), working(store, tmp_path), client:
        found += stream
    assert [event.number for event in found] == list(range(1, len(found) + 1))
    assert found[-1].data == {"state": "decided"}


# From the command line


@pytest.mark.slow
def test_a_plan_is_the_same_with_a_server(url, run):
    code, out, _ = run("--server", url, "plan", "request.json", "--json")
    here = json.loads(run("plan", "request.json", "--json")[1])
    there = json.loads(out)
    assert code == 0
    assert {**there, "seconds": 0} == {**here, "seconds": 0}
    code, out, _ = run("--server", url, "plan", "request.json")
    assert (code, "tp=1" in out) == (0, True)


@pytest.mark.slow
def test_exit_codes_are_those_without_a_server(url, run, monkeypatch):
    assert run("--server", url, "plan", "impossible.json")[0] == 3
    code, _, err = run("--server", url, "plan", "wrong.json")
    assert (code, "slo.0.ms" in err) == (2, True)
    assert run("--server", url, "show")[0] == 2
    monkeypatch.setattr("tuner.app.client.transport.time.sleep", lambda seconds: None)
    assert run("--server", "http://127.0.0.1:1", "plan", "request.json")[0] == 1


@pytest.mark.slow
def test_what_no_service_answers_refuses_it_by_name(url, run, monkeypatch):
    for words in (["volume", "--model", "x"], ["measure", url], ["serve"], ["token", "list"]):
        code, _, err = run("--server", url, *words)
        assert (code, words[0] in err, "plan, simulate, tune, show, explain, emit" in err) == (2, True, True)
    code, _, err = run("--server", url, "show", "--store", "sqlite:///x")
    assert (code, "--store" in err) == (2, True)
    code, _, err = run("tune", "request.json", "--detach")
    assert (code, "--detach" in err) == (2, True)
    monkeypatch.setenv("PARLAY_SERVER", url)
    assert run("volume", "--model", "meta-llama/Llama-3.1-8B", "--json")[0] == 0


@pytest.mark.slow
def test_a_study_is_asked_for_watched_and_shown_from_elsewhere(url, run, store, tmp_path, monkeypatch):
    monkeypatch.setenv("PARLAY_SERVER", url)
    with working(store, tmp_path):
        code, out, err = run("tune", "request.json", "--study", "s", "--launcher", "simulated", "--json")
        assert code == 0
        answer = json.loads(out)
        assert answer["winner"]["layout"]
        assert "ended" not in answer
        for line in ("kept", "trial 1 of at most 2", "meets the SLO", "Stopped:", "the study is decided"):
            assert line in err
        code, out, _ = run("show", "s", "--json")
        shown = {key: value for key, value in json.loads(out).items() if key not in ("ended", "state")}
        assert {**shown, "files": {}} == {**answer, "files": {}}  # they are written behind the decision
        assert "Winner" in run("show")[1]
        assert json.loads(run("explain", "s", "--json")[1])["why"] == answer["why"]
        assert "milliseconds" in run("explain", "s")[1]
        code, _, err = run("emit", "s")
        assert (code, "simulated" in err) == (2, True)
        assert run("tune", "request.json", "--study", "s")[0] == 2


@pytest.mark.slow
def test_a_study_that_is_detached_waits_at_the_service_and_one_that_is_cancelled_exits_so(url, run, store):
    code, out, err = run("--server", url, "tune", "request.json", "--study", "s", "--detach")
    assert (code, out) == (0, "")
    assert re.search("study s is queued", err)
    timer = threading.Timer(1.0, lambda: ServiceClient(url).cancel("t"))
    timer.start()
    assert run("--server", url, "tune", "request.json", "--study", "t")[0] == 130
    assert store.orders.order("s").wish is None
