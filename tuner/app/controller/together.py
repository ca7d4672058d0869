"""What several threads ask for at the same time, done at once: one thing is made durable as slowly as many are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Asked, Answer]):
    """Hands ``do`` all that was asked for while it was busy, and each who asked the answer at his place; an error is
    everybody's. The threads that ask do the work themselves, one of them at a time."""

    def __init__(self, do: Callable[[Sequence[Asked]], Sequence[Answer]]) -> None:
        self._do = do
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[Asked, Future[Answer]]] = []

    def __call__(self, asked: Asked) -> Answer:
        """The answer to it."""
        answer: Future[Answer] = Future()
        with self._lock:
            self._waiting.append((asked, answer))
        with self._turn:
            if not answer.done():
                self._work()
        return answer.result()

    def _work(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        try:
            found = self._do([asked for asked, _ in batch])
        except BaseException as error:
            for _, answer in batch:
                answer.set_exception(error)
            return
        for (_, answer), one in zip(batch, found, strict=True):
            answer.set_result(one)
