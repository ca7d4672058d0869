"""The front before applications of Ray Serve: a real HAProxy, before a small server that says what it was asked."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.rollout.front import Front
from deploy.rollout.front_config import PARTS, parts_of, shares_map
from deploy.rollout.front_counts import Refused
from serve.launch.processes import free_port
from serve.measure.live_ingress import Answered
from tests.launcher_contract import eventually
from tuner.errors import ParlayError

pytestmark = pytest.mark.slow  # a real HAProxy each


class Upstream(ThreadingHTTPServer):
    """In the place of Ray Serve's proxy: answers with the path; ``/slow`` once it is let go, token by token."""

    daemon_threads = True

    def __init__(self):
        self.asked: list[str] = []
        self.go = threading.Event()
        super().__init__(("127.0.0.1", 0), Answers)

    def handle_error(self, *_):
        """A connection that the front gave up."""

    @property
    def address(self):
        return f"127.0.0.1:{self.server_address[1]}"


STATUSES = {"missing": 404, "refused": 503}


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(STATUSES.get(self.path.rpartition("/")[2], 200))
        if self.path.endswith("/broken"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.chunk(b"data: first\n\n")
            self.close_connection = True
            return
        if self.path.endswith("/slow"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.chunk(b"data: first\n\n")
            self.server.go.wait(20)
            self.chunk(b"data: last\n\n")
            self.chunk(b"")
            return
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream():
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.go.set()
        server.shutdown()


@pytest.fixture
def front(tmp_path):
    made = Front(tmp_path / ("deep-" * 30) / "front")
    yield made
    kill(made)


def kill(front):
    pid = front._folder / "pid"
    if pid.exists():
        try:
            os.kill(int(pid.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            return
        assert eventually(5, lambda: not front._alive())


def get(front, path):
    connection = http.client.HTTPConnection(urlsplit(front.url).netloc, timeout=10)
    connection.request("GET", path)
    return connection.getresponse()


def dealt(front, requests=200):
    return Counter(get(front, "/v1/models").read().decode().split("/")[1] for _ in range(requests))


def test_nothing_is_there_before_anything_is_ordered(front):
    assert front.url is None
    assert front.see().shares == {}
    front.close()


def test_requests_are_dealt_by_shares_and_paths_begin_with_the_application(front, upstream):
    front.route({"one": 1.0}, upstream.address)
    answer = get(front, "/v1/models?a=b")
    assert answer.headers["X-Parlay-Deployment"] == "/one"
    assert answer.read() == b"/one/v1/models?a=b"
    front.route({"one": 0.7, "two": 0.3}, upstream.address)
    assert front.see().shares == {"one": 0.7, "two": 0.3}
    found = dealt(front)
    assert set(found) == {"one", "two"}
    assert 20 < found["two"] < 110  # 60 ± 6.5
    front.route({"two": 1.0}, upstream.address)
    assert dealt(front, 20) == {"two": 20}


def test_where_nobody_serves_it_says_so_and_when_to_come_again(front, upstream):
    front.route({}, upstream.address)
    answer = get(front, "/v1/models")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert b"no deployment serves now" in answer.read()
    assert front.see().foreign is None


def test_a_stream_is_passed_on_as_it_comes_and_outlives_a_change_of_shares(front, upstream):
    front.route({"one": 1.0}, upstream.address)
    answer = get(front, "/slow")
    assert answer.readline() == b"data: first\n"
    assert front.see().under_way["one"] == 1
    front.route({"two": 1.0}, upstream.address)
    assert front.see().under_way == {"one": 1, "two": 0}
    assert get(front, "/x").read() == b"/two/x"
    upstream.go.set()
    assert answer.read().endswith(b"data: last\n\n")
    assert eventually(5, lambda: front.see().under_way["one"] == 0)


def test_it_outlives_its_owner_and_is_found_again(front, upstream):
    front.route({"one": 0.5, "two": 0.5}, upstream.address)
    again = Front(front._folder)
    assert again.url == front.url
    assert again.see() == front.see()
    pid = (front._folder / "pid").read_text()
    again.route({"two": 1.0}, upstream.address)
    assert (front._folder / "pid").read_text() == pid
    assert os.getpgid(int(pid)) != os.getpgid(0)


def test_one_that_died_is_started_anew_with_the_shares_that_were_ordered(front, upstream):
    front.route({"one": 0.25, "two": 0.75}, upstream.address)
    url = front.url
    kill(front)
    assert front.see().shares == {"one": 0.25, "two": 0.75}
    assert front.url == url
    assert set(dealt(front)) == {"one", "two"}


def test_shares_that_somebody_changed_by_hand_are_told(front, upstream):
    front.route({"one": 0.9, "two": 0.1}, upstream.address)
    front._command("clear map ./shares.map")
    front._command("add map ./shares.map 0:999 slot1")
    assert front.see().foreign == "the front deals 100.0% to two, and 90.0% to one, 10.0% to two was ordered"


@pytest.mark.parametrize("written", [True, False])
def test_a_kill_between_the_order_and_the_deed_is_no_change_by_hand(front, upstream, monkeypatch, written):
    front.route({"one": 1.0}, upstream.address)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(front, "_have_running" if written else "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        front.route({"two": 1.0}, upstream.address)
    after = Front(front._folder)
    assert after.see().foreign is None
    assert after.see().shares == {"one": 1.0}
    after.route({"two": 1.0}, upstream.address)
    assert after.see().shares == {"two": 1.0}


def test_another_proxy_is_followed(front, upstream):
    front.route({"one": 1.0}, f"127.0.0.1:{free_port()}")
    assert get(front, "/x").status == 503
    front.route({"one": 1.0}, upstream.address)
    assert get(front, "/x").read() == b"/one/x"


def test_a_proxy_that_moved_is_followed_without_an_order(front, upstream):
    assert front.see(upstream.address).shares == {}
    front.route({"one": 1.0}, f"127.0.0.1:{free_port()}")
    assert front.see(upstream.address).foreign is None
    assert get(front, "/x").read() == b"/one/x"
    kill(front)
    front.see(None)
    assert get(front, "/x").read() == b"/one/x"


def test_another_proxy_is_followed_after_a_kill_on_the_way_to_it(front, upstream, monkeypatch):
    front.route({"one": 1.0}, f"127.0.0.1:{free_port()}")
    command = front._command

    def killed(*commands):
        if commands[0].startswith("set server"):
            raise KeyboardInterrupt
        return command(*commands)

    monkeypatch.setattr(front, "_command", killed)
    with pytest.raises(KeyboardInterrupt):
        front.route({"one": 1.0}, upstream.address)
    after = Front(front._folder)
    after.see()
    assert get(after, "/x").read() == b"/one/x"


def test_slots_are_given_on_for_ever(front, upstream):
    for number in range(15):
        front.route({f"d{number}": 0.5, f"d{number + 1}": 0.5}, upstream.address)
        front.route({f"d{number + 1}": 1.0}, upstream.address)
        front.forget(f"d{number}")
    assert get(front, "/x").read() == b"/d15/x"
    assert front.see().foreign is None


def test_slots_are_given_on_where_nobody_said_who_is_gone(front, upstream):
    for number in range(15):
        front.route({f"d{number}": 0.5, f"d{number + 1}": 0.5}, upstream.address)
        front.route({f"d{number + 1}": 1.0}, upstream.address)
    assert get(front, "/x").read() == b"/d15/x"
    assert front.see().foreign is None


def test_a_slot_with_requests_under_way_is_never_given_on(front, upstream):
    front.route({"slow": 1.0}, upstream.address)
    answer = get(front, "/slow")
    answer.readline()
    for number in range(15):
        front.route({f"d{number}": 1.0}, upstream.address)
    assert front.see().under_way["slow"] == 1
    upstream.go.set()
    assert answer.read().endswith(b"data: last\n\n")


def test_an_address_that_is_taken_is_said(tmp_path, upstream):
    taken = Front(tmp_path / "front", port=upstream.server_address[1])
    with pytest.raises(ParlayError, match="cannot be started: "):
        taken.route({"one": 1.0}, upstream.address)


def test_an_order_that_is_not_done_is_said(front, upstream, monkeypatch):
    front.route({"one": 1.0}, upstream.address)
    command = front._command
    monkeypatch.setattr(front, "_command", lambda one: command(one.replace("@", "@9")))
    with pytest.raises(ParlayError, match=r"does not replace slots\.map: "):
        front.route({"two": 1.0}, upstream.address)
    monkeypatch.undo()
    assert dealt(front, 20) == {"one": 20}
    front.route({"two": 1.0}, upstream.address)
    assert front.see().shares == {"two": 1.0}


def test_one_that_does_not_begin_is_said(front, upstream, monkeypatch):
    def late(command, **_):
        raise subprocess.TimeoutExpired(command, 10.0)

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(ParlayError, match="does not begin within 10 s"):
        front.route({"one": 1.0}, upstream.address)


def test_an_end_waits_for_what_is_under_way(front, upstream):
    front.route({"one": 1.0}, upstream.address)
    answer = get(front, "/slow")
    answer.readline()
    front.close()
    time.sleep(0.1)
    upstream.go.set()
    assert answer.read().endswith(b"data: last\n\n")


@given(st.dictionaries(st.sampled_from("abc"), st.floats(1e-4, 1), min_size=1))
def test_thousandths_add_up_and_nobody_is_left_out(shares):
    found = parts_of(shares)
    assert sum(found.values()) == PARTS
    assert min(found.values()) >= 1
    total = sum(shares.values())
    assert all(abs(found[name] / PARTS - share / total) < 0.004 for name, share in shares.items())
    assert shares_map(shares, {name: name for name in shares}).count("\n") == len(shares)


def test_what_is_answered_is_counted_by_application_and_what_breaks_off_has_failed(front, upstream):
    front.route({"one": 1.0}, upstream.address)
    assert front.answered() == {"one": Answered(0, 0)}
    get(front, "/x").read()
    get(front, "/missing").read()
    get(front, "/refused").read()
    with pytest.raises(http.client.IncompleteRead):  # of an answer that nobody waits for, the client would be first
        get(front, "/broken").read()
    assert eventually(5, lambda: front.answered() == {"one": Answered(4, 2)})
    answer = get(front, "/slow")  # given up by whoever asked
    answer.readline()
    answer.close()
    assert eventually(5, lambda: front.answered()["one"].requests == 5)
    assert front.answered()["one"].failed == 2


def test_a_proxy_that_is_not_there_is_a_failure(front, upstream):
    front.route({"one": 1.0}, f"127.0.0.1:{free_port()}")
    get(front, "/x").read()
    assert eventually(5, lambda: front.answered() == {"one": Answered(1, 1)})


def test_what_nobody_could_answer_is_a_failure_of_whoever_had_the_traffic_last(front, upstream):
    front.route({"old": 1.0}, upstream.address)
    front.route({}, upstream.address)
    for _ in range(3):
        get(front, "/x").read()
    assert front.answered() == {"old": Answered(3, 3)}
    front.route({"new": 1.0}, upstream.address)
    get(front, "/x").read()
    assert front.answered() == {"old": Answered(3, 3), "new": Answered(1, 0)}
    front.forget("old")
    assert front.answered() == {"new": Answered(1, 0)}
    kill(front)
    assert front.answered() == {}
    front.see()
    front.route({}, upstream.address)
    get(front, "/x").read()
    assert front.answered() == {"new": Answered(1, 1)}
    kill(front)
    front.see()
    for _ in range(3):
        get(front, "/x").read()
    assert front.answered() == {"new": Answered(3, 3)}


@given(st.lists(st.tuples(st.sampled_from(["one", "two", ""]), st.integers(0, 5), st.booleans()), max_size=8))
def test_what_the_front_refuses_is_counted_once_whoever_has_the_traffic(steps):
    account, haproxy = Refused("one"), 0
    for name, refused, anew in steps:
        if anew:
            account, haproxy = account.anew, 0
        haproxy += refused
        assert sum(account.now(haproxy).values()) == haproxy
        account = account.dealt({name: 1.0} if name else {}, haproxy)
        assert account.whose == name or not name
        assert sum(account.now(haproxy).values()) == haproxy
