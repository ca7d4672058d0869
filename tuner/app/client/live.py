"""The terminal while a study runs at a service: the lines that ``parlay tune`` shows, from the study's events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from tuner.app.client.event_stream import StudyEvent

_SAYS = {True: "meets the SLO", False: "misses the SLO", None: "shows nothing of the SLO"}


class Live:
    """Shows a study to a person. ``console`` writes to stderr, so that stdout stays for answers."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.perf_counter()
        self._best: str | None = None
        self._running: set[int] = set()
        self._status: Status | None = console.status("waiting") if console.is_terminal else None

    def __enter__(self) -> Live:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        """One line for the record; it is no markup."""
        elapsed = int(time.perf_counter() - self._began)
        shown = f"[dim]{elapsed // 60:2d}:{elapsed % 60:02d}[/dim]  {escape(text)}"
        self._console.print(shown, highlight=False, soft_wrap=True)

    def show(self, event: StudyEvent) -> None:
        """An event; of a kind that a newer service may have, nothing is shown."""
        tell: Callable[[Mapping[str, Any]], None] | None = getattr(self, f"_tell_{event.kind}", None)
        if tell is not None:
            tell(event.data)

    def _tell_state(self, data: Mapping[str, Any]) -> None:
        self.note(f"the study is {data['state']}")

    def _tell_asked(self, data: Mapping[str, Any]) -> None:
        self.note(f"asked to {data['wish']}")

    def _tell_planned(self, data: Mapping[str, Any]) -> None:
        dropped = sum(group["count"] for group in data["dropped"])
        priced = f"{data['candidates']:,} layouts priced in {data['seconds']:.2f} s"
        self.note(f"{priced}: {data['kept']} kept, {dropped:,} dropped by the model")

    def _tell_remembered(self, data: Mapping[str, Any]) -> None:
        self.note(f"begins with what was learnt of the prices here by {', '.join(data['studies'])}")

    def _tell_resumed(self, data: Mapping[str, Any]) -> None:
        left = f"; torn down: {', '.join(data['orphans'])}" if data["orphans"] else ""
        self.note(f"resumed: {data['finished']} trials are finished and will not run again{left}")

    def _tell_trial_started(self, data: Mapping[str, Any]) -> None:
        self._running.add(data["trial"])
        which = f"trial {data['trial'] + 1}"
        which += f" of at most {data['launches']}" if data.get("engine_of") is None else ", same engine"
        self.note(f"{which}: {data['layout']} ({data['why']})")

    def _tell_waiting(self, data: Mapping[str, Any]) -> None:
        self.note(f"{data['layout']} {data['text']}")

    def _tell_launching(self, data: Mapping[str, Any]) -> None:
        if self._status is not None:
            self._status.update(escape(f"trial {data['trial'] + 1}: {data['text']}"))

    def _tell_ready(self, data: Mapping[str, Any]) -> None:
        self._of(data["trial"], f"ready after {data['ready_after_s']:.1f} s")

    def _tell_step_started(self, data: Mapping[str, Any]) -> None:
        name = "warm-up" if data["warmup"] else f"load step {data['step'] + 1} of {data['steps']}"
        text = f"{name}, {data['rate_req_per_s']:g} req/s for {data['seconds']:g} s"
        self._tell_launching({"trial": data["trial"], "text": text})

    def _tell_step_measured(self, data: Mapping[str, Any]) -> None:
        if data["warmup"]:
            return
        step = data["measured"]
        parts = [f"{step['rate_req_per_s']:g} req/s", f"{step['completed']}/{step['sent']} answered"]
        for name in ("ttft", "tpot"):
            if (found := step.get(f"{name}_ms")) is not None:
                parts.append(f"{name.upper()} p50 {found['p50']:,.1f} p99 {found['p99']:,.1f} ms")
        invalid = step["invalid_reason"]
        self._of(data["trial"], ", ".join([*parts, f"invalid: {invalid}" if invalid else _SAYS[step["meets_slo"]]]))

    def _tell_trial_finished(self, data: Mapping[str, Any]) -> None:
        result = data["result"]
        detail = f": {result['detail']}" if result["detail"] else ""
        ended = result["failure"] or result["state"]
        self._of(data["trial"], f"{ended}{detail}")
        for line in result["log_tail"][-5:]:
            self._console.print(f"        {line}", style="dim", highlight=False, markup=False, soft_wrap=True)
        self._running.discard(data["trial"])

    def _tell_best_so_far(self, data: Mapping[str, Any]) -> None:
        if data["layout"] and data["layout"] != self._best:
            self.note(f"best so far: {data['layout']}")
        self._best = data["layout"]

    def _tell_ended(self, data: Mapping[str, Any]) -> None:
        self.note(str(data["why"]))

    def _of(self, trial: int, text: str) -> None:
        self.note(f"  trial {trial + 1}: {text}" if len(self._running) > 1 else f"  {text}")
