"""What waits at the front while nothing serves: a real HAProxy, before a small server that says what it was asked."""

from __future__ import annotations

import http.client
import threading
import time
from urllib.parse import urlsplit

import pytest

from deploy.rollout.front import Front
from deploy.rollout.front_config import configuration
from serve.measure.live_ingress import Answered
from tests.unit.test_front import Upstream, get, kill

pytestmark = pytest.mark.slow  # a real HAProxy each


@pytest.fixture
def upstream():
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def front(tmp_path):
    made = Front(tmp_path / "front")
    yield made
    kill(made)


def asking(front, found, path="/x"):
    """Ask from a thread of its own; status and body are added to ``found``."""

    def ask():
        answer = get(front, path)
        found.append((answer.status, answer.read(), answer.headers["Retry-After"]))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def test_what_finds_nothing_waits_for_what_is_on_its_way(front, upstream):
    front.route({"old": 1.0}, upstream.address)
    front.route({}, upstream.address)
    front.hold(20.0, 2)
    found = []
    waiting = [asking(front, found) for _ in range(2)]
    time.sleep(0.5)
    assert found == []
    more = get(front, "/x")
    assert (more.status, more.headers["Retry-After"]) == (503, "5")
    assert b"no deployment serves now; one is on its way" in more.read()
    front.hold(0.0, 0)  # those that wait keep the time that they were given
    assert b"no deployment serves now" in get(front, "/x").read()
    front.route({"new": 1.0}, upstream.address)
    for one in waiting:
        one.join(5)
    assert found == [(200, b"/new/x", None)] * 2
    assert front.answered() == {"old": Answered(2, 2), "new": Answered(2, 0)}


def test_nobody_waits_longer_than_was_said_and_who_left_is_not_counted(front, upstream):
    front.route({"old": 1.0}, upstream.address)
    front.hold(1.0, 1)
    assert get(front, "/x").read() == b"/old/x"
    front.route({}, upstream.address)
    began = time.monotonic()
    assert get(front, "/x").status == 503
    assert 0.9 < time.monotonic() - began < 10
    front.hold(3.0, 1)
    gone = http.client.HTTPConnection(urlsplit(front.url).netloc, timeout=10)
    gone.request("GET", "/x")
    time.sleep(0.3)
    gone.close()
    front.hold(20.0, 1)
    for _ in range(40):  # it counts until its own time is over at most
        found = []
        waiting = asking(front, found)
        time.sleep(0.3)
        if not found:
            break
    assert found == []
    front.route({"new": 1.0}, upstream.address)
    waiting.join(5)
    assert found == [(200, b"/new/x", None)]


def test_a_front_that_died_holds_as_it_was_told(front, upstream):
    front.route({}, upstream.address)
    front.hold(20.0, 5)
    kill(front)
    front.see()
    found = []
    waiting = asking(front, found)
    time.sleep(0.3)
    front.route({"new": 1.0}, upstream.address)
    waiting.join(5)
    assert found == [(200, b"/new/x", None)]


def test_a_front_that_an_older_parlay_began_goes_on_refusing(front, upstream, monkeypatch):
    def older(*words):
        lines = configuration(*words).splitlines(keepends=True)
        return "".join(line for line in lines if "hold" not in line)

    with monkeypatch.context() as patched:
        patched.setattr("deploy.rollout.front.configuration", older)
        front.route({}, upstream.address)
    with Upstream() as moved:  # its configuration is written anew, and it goes on as it was
        front.see(moved.address)
    front.hold(20.0, 5)
    assert front._state().hold_s == 20.0
    assert b"no deployment serves now" in get(front, "/x").read()


def test_a_kill_before_a_hold_is_kept_does_it_again(front, upstream, monkeypatch):
    front.route({}, upstream.address)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(front, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        front.hold(0.4, 5)
    monkeypatch.undo()
    front.hold(0.4, 5)
    assert b"one is on its way" in get(front, "/x").read()
