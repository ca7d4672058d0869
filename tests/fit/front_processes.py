"""Processor time of the hops of a path, from /proc: of all threads of a process, and of its busiest one.

The busiest thread is the event loop: that one saturates. Its name in Linux does not tell, so the most that one thread
of a process took in a window stands for it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
# What a process's command line begins with or holds → the hop that it is
NAMES = (
    ("ray::ProxyActor", "proxy"),
    ("ray::ServeReplica:front:OpenAiIngress", "ingress"),
    ("ray::ServeReplica:front:LLMRouter", "router"),
    ("ray::ServeReplica:front:", "replica"),
    ("VLLM::EngineCore", "core"),
    ("VLLM::Worker", "core"),
    ("VLLM::APIServer", "api_server"),
    ("tests.fit.front_vllm_server", "api_server"),
    ("haproxy", "haproxy"),
    ("ray::", "ray"),
    ("raylet/raylet", "ray"),
    ("gcs/gcs_server", "ray"),
)
Threads = dict[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of processor time of a hop's processes: of all threads, and of the busiest one of each process."""

    all_s: float
    loops_s: float


def hop_of(command: str) -> str | None:
    """The hop that a process with this command line is; None where it is none of the path."""
    return next((hop for words, hop in NAMES if words in command), None)


class Processes:
    """The processes of a path, looked at from time to time."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def look(self) -> tuple[dict[int, str], Threads]:
        """Hop of each process, and seconds that each (process, thread) has used so far."""
        hops: dict[int, str] = {os.getpid(): "client"}
        threads: Threads = {}
        for entry in self._proc.iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                hop = hops.get(int(entry.name)) or hop_of(command)
                if hop is None:
                    continue
                for task in (entry / "task").iterdir():
                    threads[int(entry.name), int(task.name)] = _seconds((task / "stat").read_text(encoding="utf-8"))
            except OSError:  # it has ended
                continue
            hops[int(entry.name)] = hop
        return hops, threads


def machine_s(proc: Path = PROC) -> float:
    """Seconds that all processors of the machine have worked so far, for whomever."""
    numbers = [int(word) for word in (proc / "stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICKS  # all but idle and waiting for disks


def used(before: Threads, after: Threads, hops: dict[int, str]) -> dict[str, Used]:
    """What each hop used between two looks."""
    of_process: dict[int, list[float]] = defaultdict(list)
    for (process, thread), seconds in after.items():
        of_process[process].append(seconds - before.get((process, thread), 0.0))
    found: dict[str, Used] = {}
    for process, spent in of_process.items():
        so_far = found.get(hops[process], Used(0.0, 0.0))
        found[hops[process]] = Used(so_far.all_s + sum(spent), so_far.loops_s + max(spent))
    return found


def _seconds(stat: str) -> float:
    fields = stat.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
