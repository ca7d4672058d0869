"""What all deployments of ours share: what they know of themselves, how they are waited for, and how they end."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar

from serve.launch.device import device_of
from serve.launch.health import Waiting, served_models, warm_up
from serve.launch.logs import SHOWN_LINES
from serve.launch.start_clock import StartClock
from tuner.errors import FailureReason, LaunchFailed
from tuner.trial.launched import Launched
from tuner.trial.seams import LaunchOrder
from tuner.trial.start_up import StartPhase

POLL_S = 0.25


class Deployed(ABC):
    """What of ``tuner.trial.seams.Deployment`` does not depend on how the layout is brought up."""

    lists_within_s: ClassVar[float]  # what its list of models may take

    def __init__(self, url: str, model_id: str, launched: Launched) -> None:
        self._url, self._model_id, self._launched = url, model_id, launched
        self._ready_after_s = 0.0
        self._clock = StartClock()
        self._down = False

    @property
    def url(self) -> str:
        """Base URL, without ``/v1``."""
        return self._url

    @property
    def model_id(self) -> str:
        """The model name that requests must carry."""
        return self._model_id

    @property
    def launched(self) -> Launched:
        """What was launched, and on what."""
        return self._launched

    @property
    def ready_after_s(self) -> float:
        """Seconds from the order to the first healthy answers."""
        return self._ready_after_s

    @abstractmethod
    def log_tail(self, lines: int = SHOWN_LINES) -> tuple[str, ...]:
        """The engine's last log lines, oldest first."""

    @abstractmethod
    def teardown(self) -> None:
        """End it, and wait until it is gone; nothing where it is down already."""

    @abstractmethod
    def _is_up(self, waiting: Waiting, elapsed_s: float) -> bool:
        """True where it may be asked for its model; raises LaunchFailed as soon as it has died."""

    @abstractmethod
    def _take_stock(self) -> None:
        """Note of what it consists, so that what is lost later is missed."""

    def _timed_out(self, limit_s: float, caution: str | None) -> LaunchFailed:
        phase, since_s = self._clock.doing
        doing = f"it was {phase.words}, since second {since_s:.0f}{'' if caution is None else f'; {caution}'}"
        return LaunchFailed(FailureReason.START_TIMED_OUT, f"not ready within {limit_s:g} s: {doing}")

    def session_ready(self, after_s: float) -> None:
        """What it is launched on was there ``after_s`` seconds after the order."""
        self._clock.session_s = after_s

    @contextlib.contextmanager
    def ended_unless_ready(self) -> Iterator[None]:
        """Tear it down where the block fails; a LaunchFailed then carries the last lines of its logs."""
        try:
            yield
        except LaunchFailed as error:
            lines = error.log_tail or self.log_tail()
            self.teardown()
            raise LaunchFailed(error.reason, error.detail, lines) from None
        except BaseException:
            self.teardown()
            raise

    def wait_until_ready(self, order: LaunchOrder, started: float, waiting: Waiting, here: bool = True) -> None:
        """Return once every replica has answered; raises LaunchFailed where it dies or is too slow, or Cancelled.

        ``here``: its engines run on this machine.
        """
        limit_s = order.request.engine.start_timeout_s
        device = device_of(order.layout, order.request)
        if (caution := device.caution(order.request.engine) if here else None) is not None:
            waiting.tell(caution)
        answered = False
        while not answered:
            elapsed_s = time.perf_counter() - started
            is_up = self._is_up(waiting, elapsed_s)
            if elapsed_s > limit_s:
                raise self._timed_out(limit_s, caution)
            if is_up and waiting.answer(self._lists_its_model):
                self._clock.listed(time.perf_counter() - started)
                waiting.on(StartPhase.FIRST_ANSWER.words, elapsed_s)
                left_s = max(1.0, limit_s - elapsed_s)
                answered = waiting.answer(partial(self._warm_up, order.layout.dp, left_s))
            else:
                phase, since_s = self._clock.doing
                waiting.on(phase.words + self._progress, elapsed_s, since_s)
            waiting.pause(0 if answered else POLL_S)
        self._take_stock()
        self._ready_after_s = time.perf_counter() - started
        self._launched = replace(self._launched, start_up=self._clock.start_up(self._ready_after_s))

    @property
    def _progress(self) -> str:
        """What is to be added to what the engine is busy with."""
        return ""

    def _lists_its_model(self) -> bool:
        return self._model_id in served_models(self._url, timeout_s=self.lists_within_s)

    def _warm_up(self, replicas: int, timeout_s: float) -> bool:
        return warm_up(self._url, self._model_id, replicas, timeout_s=timeout_s)
