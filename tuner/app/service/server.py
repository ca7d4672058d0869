"""The web server of the service, run until a handle is set."""

from __future__ import annotations

import gc
import socket
import threading

import uvicorn
from fastapi import FastAPI

from tuner.errors import Cause
from tuner.trial.cancel import CancelHandle


class Server:
    """uvicorn on a socket that is open already. What is being answered when it ends has a few seconds; streams end."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=2, lifespan="on", access_log=False
        )
        self._server, self._listening = _Uvicorn(config), listening

    def run(self, stop: CancelHandle) -> None:
        """Answer until ``stop`` is set."""

        def end(cause: Cause, words: str) -> None:
            self._server.should_exit = True

        settle()
        thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listening]}, name="http")
        with stop.listening(end):
            thread.start()
            while thread.is_alive():
                thread.join(0.5)  # in pieces, so that this thread hears signals


class _Uvicorn(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """None: signals have one place, ``tuner.app.cli.signals``."""


def settle() -> None:
    """Load what plans need, and take all that is loaded for good out of the garbage collector's rounds.

    A round over every module, route and schema halts the process for 50 ms (Python 3.11, two cores), several times a
    second under load; over what requests leave behind it is a fraction of one.
    """
    import tuner.app.answers.plan
    import tuner.app.simulate
    import tuner.app.wiring  # noqa: F401

    gc.collect()
    gc.freeze()
