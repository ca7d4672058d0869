"""A streaming endpoint that outruns every load generator here, and logs what it really did.

    python -m tests.benchmarks.mock_endpoint --ttft-ms 20 --itl-ms 5 --log served.npz

It prints its port, serves until its standard input closes, then writes the log. One process, one thread, no event loop
library: an epoll loop, and one queue for each of the two delays. A constant delay keeps a queue in order of its due
times, so nothing is sorted. Every event is one ``send``; nothing is held back to be sent with the next.

With ``--slots N`` at most N answers stream at a time and the others wait in order of arrival, as behind an engine with
so many sequences: it then has a limit of N / (TTFT + (tokens − 1) × ITL) requests per second.

It understands just enough HTTP for the clients measured with it (``Content-Length`` bodies, keep-alive).
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
ASKED = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')
NUMBER = re.compile(rb'"user": *"(\d+)"')
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(text: str) -> bytes:
    """One HTTP chunk."""
    data = text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(chat: bool, choices: list[dict[str, object]], usage: dict[str, int] | None) -> bytes:
    """One event, as long as vLLM's."""
    kind = "chat.completion.chunk" if chat else "text_completion"
    name = "cmpl-0123456789abcdef0123456789abcdef"
    message = {"id": name, "object": kind, "created": 1, "model": "mock", "choices": choices, "usage": usage}
    return chunk(f"data: {json.dumps(message, separators=(',', ':'))}\n\n")


def token(chat: bool) -> bytes:
    """The event of one token."""
    rest = {"logprobs": None, "finish_reason": None, "stop_reason": None}
    own: dict[str, object] = {"delta": {"content": " a"}} if chat else {"text": " a"}
    return event(chat, [{"index": 0, **own, **rest}], None)


TOKEN = {chat: token(chat) for chat in (False, True)}
DONE = chunk("data: [DONE]\n\n") + b"0\r\n\r\n"


@dataclass(slots=True)
class Answer:
    """One request: who asked, what is left to send, and when everything happened (``time.perf_counter``, seconds)."""

    socket: socket.socket
    chat: bool
    asked: int
    number: int
    arrived_s: float
    written_s: list[float] = field(default_factory=list)
    open: bool = True


@dataclass(slots=True)
class Peer:
    """One connection and what of a request has arrived on it."""

    socket: socket.socket
    rest: bytes = b""
    answer: Answer | None = None


class Mock:
    """The server: ``serve`` runs until standard input ends."""

    def __init__(self, ttft_s: float, itl_s: float, slots: int | None = None, port: int = 0) -> None:
        self.ttft_s, self.itl_s, self.slots = ttft_s, itl_s, slots
        self._running = 0
        self._waiting: deque[Answer] = deque()
        self.log: list[Answer] = []
        self._peers: dict[int, Peer] = {}
        self._first: deque[tuple[float, Answer]] = deque()
        self._next: deque[tuple[float, Answer]] = deque()
        self._epoll = select.epoll()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Serve until standard input ends."""
        listener, stdin = self._listener.fileno(), sys.stdin.fileno()
        self._epoll.register(listener, select.EPOLLIN)
        self._epoll.register(stdin, select.EPOLLIN)
        while True:
            due_s = min((queue[0][0] for queue in (self._first, self._next) if queue), default=None)
            wait_s = -1.0 if due_s is None else max(0.0, due_s - time.perf_counter())
            for number, _ in self._epoll.poll(wait_s):
                if number == listener:
                    self._accept()
                elif number == stdin:
                    return
                else:
                    self._read(self._peers[number])
            self._send_due(self._first)
            self._send_due(self._next)

    def _accept(self) -> None:
        try:
            while True:
                client, _ = self._listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers[client.fileno()] = Peer(client)
                self._epoll.register(client.fileno(), select.EPOLLIN)
        except BlockingIOError:
            return

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.socket.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        arrived_s = time.perf_counter()
        peer.rest += data
        head, found, body = peer.rest.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if not found or len(body) < size:
            return
        peer.rest = body[size:]
        self._answer(peer, head, body[:size], arrived_s)

    def _answer(self, peer: Peer, head: bytes, body: bytes, arrived_s: float) -> None:
        if head.startswith(b"GET"):
            model = {"id": "mock", "object": "model", "created": 1, "owned_by": "mock", "max_model_len": 1 << 17}
            text = json.dumps({"object": "list", "data": [model]}).encode()
            peer.socket.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)
            )
            return
        asked, number = ASKED.search(body), NUMBER.search(body)
        chat = b"/chat/" in head.partition(b"\r\n")[0]
        answer = Answer(peer.socket, chat, int(asked[1]) if asked else 16, int(number[1]) if number else -1, arrived_s)
        peer.answer = answer
        self.log.append(answer)
        peer.socket.send(HEAD)
        self._waiting.append(answer)
        self._admit(arrived_s)

    def _admit(self, now_s: float) -> None:
        while self._waiting and (self.slots is None or self._running < self.slots):
            answer = self._waiting.popleft()
            if answer.open:
                self._running += 1
                self._first.append((now_s + self.ttft_s, answer))

    def _send_due(self, queue: deque[tuple[float, Answer]]) -> None:
        now = time.perf_counter
        while queue and queue[0][0] <= now():
            due_s, answer = queue.popleft()
            if not answer.open:
                self._leave()
                continue
            written_s = answer.written_s
            written_s.append(now())
            try:
                answer.socket.send(TOKEN[answer.chat])
                if len(written_s) < answer.asked:
                    self._next.append((due_s + self.itl_s, answer))
                else:
                    usage = {"prompt_tokens": 8, "completion_tokens": answer.asked, "total_tokens": 8 + answer.asked}
                    answer.socket.send(event(answer.chat, [], usage))
                    answer.socket.send(DONE)
                    self._leave()
            except OSError:  # the client has gone, or has not read for so long that the socket's buffer is full
                answer.open = False
                self._leave()

    def _leave(self) -> None:
        self._running -= 1
        self._admit(time.perf_counter())

    def _drop(self, peer: Peer) -> None:
        self._epoll.unregister(peer.socket.fileno())
        del self._peers[peer.socket.fileno()]
        peer.socket.close()
        if peer.answer is not None:
            peer.answer.open = False


def write_log(path: Path, answers: list[Answer]) -> None:
    """Arrays of one row per request (``number`` is -1 without one), and all write times one after the other."""
    np.savez(
        path,
        number=np.array([answer.number for answer in answers], dtype=np.int64),
        arrived_s=np.array([answer.arrived_s for answer in answers]),
        written=np.array([len(answer.written_s) for answer in answers], dtype=np.int64),
        written_s=np.array([one_s for answer in answers for one_s in answer.written_s]),
    )


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ttft-ms", type=float, default=20.0)
    parser.add_argument("--itl-ms", type=float, default=5.0)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the benchmark, which closes our standard input
    mock = Mock(asked.ttft_ms / 1e3, asked.itl_ms / 1e3, asked.slots, asked.port)
    print(mock.port, flush=True)
    gc.disable()  # with a long log alive, a collection takes longer than a token
    mock.serve()
    if asked.log is not None:
        write_log(asked.log, mock.log)


if __name__ == "__main__":
    main()
