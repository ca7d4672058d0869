"""One server process of vLLM and the engine processes below it, from its start to its teardown."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from serve.launch.deployed import Deployed
from serve.launch.engine_processes import EngineProcesses, ended_with
from serve.launch.failure import crash, replica_died
from serve.launch.health import Waiting
from serve.launch.logs import SEARCHED_LINES, SHOWN_LINES, tail
from serve.launch.processes import ProcessId, end, group_of, identify, writers_under
from tuner.errors import FailureReason, LaunchFailed
from tuner.trial.launched import Launched

STOP_PATIENCE_S = 10.0


class LocalProcessDeployment(Deployed):
    """Implements ``tuner.trial.seams.Deployment`` for one server process and the engine processes below it."""

    lists_within_s = 5.0

    def __init__(
        self,
        *,
        process: subprocess.Popen[bytes],
        url: str,
        model_id: str,
        launched: Launched,
        logs: Path,
        on_teardown: Callable[[], None],
    ) -> None:
        super().__init__(url, model_id, launched)
        self._process = process
        self._logs, self._on_teardown = logs, on_teardown
        self._leader = identify(process.pid)
        self._engine = EngineProcesses()
        self._ready: frozenset[ProcessId] | None = None

    @property
    def metrics_urls(self) -> tuple[str, ...]:
        """Where the server shows its engines' own metrics."""
        return (f"{self._url}/metrics",)

    def failure(self) -> tuple[FailureReason, str] | None:
        """REPLICA_DIED where the server, or an engine process that it had when it was ready, has ended."""
        if self._down or self._ready is None:
            return None
        lost, code = self._engine.look(self._leaders), self._process.poll()
        if code is not None:
            what = f"the server {ended_with(code)}"
        elif lost:
            what = "; ".join(str(process) for process in lost)
        elif ended := sorted(process.pid for process in self._ready if not process.alive):
            what = f"{len(ended)} of its processes ended: {ended}"
        else:
            return None
        return replica_died(what, self.log_tail(SEARCHED_LINES))

    def log_tail(self, lines: int = SHOWN_LINES) -> tuple[str, ...]:
        """The server's and engine's last log lines, oldest first."""
        return tail(self._logs.glob("*.log"), lines)

    def teardown(self) -> None:
        """End the server's process group and wait until it is gone."""
        if self._down:
            return
        members = group_of(self._leader) if self._leader is not None else ()
        end({*members, *writers_under([self._logs])}, patience_s=STOP_PATIENCE_S)
        self._process.wait()
        self._down = True
        self._on_teardown()

    def _is_up(self, waiting: Waiting, elapsed_s: float) -> bool:
        """From its start on; it has died where it had the time to, after a process of its engine did, too."""
        self._engine.look(self._leaders)
        self._clock.process_seen(0.0)
        self._clock.read(self._logs.glob("*.log"), elapsed_s)
        if self._process.poll() is not None or self._engine.lost_for_long:
            raise self._crashed()
        return True

    def _take_stock(self) -> None:
        if self._leader is not None:
            self._ready = frozenset(group_of(self._leader))

    def _crashed(self) -> LaunchFailed:
        code = self._process.poll()
        fallback = "the server hangs" if code is None else f"the server {ended_with(code)}"
        lost = self._engine.look(self._leaders)
        return crash(self.log_tail(SEARCHED_LINES), f"{fallback} before it was ready", status=code, lost=lost)

    @property
    def _leaders(self) -> tuple[ProcessId, ...]:
        return () if self._leader is None else (self._leader,)
