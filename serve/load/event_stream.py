"""Server-sent events, split as the HTML standard says (server-sent events, "Interpreting an event stream").

One byte order mark at the start is dropped; lines end in LF, CRLF or CR, wherever reads cut them; comments and unknown
fields are passed over; one space after the colon is no part of a value; several ``data`` lines make one event, joined
by LF. An event without a ``data`` line is none, and what follows the last blank line is never an event. ``id`` and
``retry`` speak of reconnecting, which a measured request never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_EVENT_BYTES = 1 << 20
_LF = 10
_BOM = b"\xef\xbb\xbf"


ServerEvent = tuple[bytes, bytes]
"""One event: its data, which may be empty, and the type that it names, empty where it names none."""


class EventTooLong(Exception):
    """More than ``MAX_EVENT_BYTES`` came without an end of the event."""


@dataclass(slots=True)
class EventStream:
    """Reads the body of one answer, as it comes. Bytes that are not UTF-8 are left as they are in ``data``: a reader
    who decodes with replacement sees what the standard's decoder shows."""

    _between: bool = True  # nothing is pending: the next byte opens an event
    _opened: bool = False  # the byte order mark is behind us
    _after_cr: bool = False  # the line has ended; an LF that follows belongs to its end
    _rest: bytes = b""  # of a line without an end
    _data: list[bytes] = field(default_factory=list)
    _data_bytes: int = 0
    _kind: bytes = b""

    def feed(self, body: bytes) -> Sequence[ServerEvent]:
        """The events that ``body`` completes; raises EventTooLong where one does not end."""
        if (
            self._between
            and body[:6] == b"data: "
            and body[-1] == _LF
            and body.find(b"\n") == len(body) - 2
            and b"\r" not in body
        ):  # by far the most common read: one event of one line, whole
            self._opened = True
            return ((body[6:-2], b""),)
        return self._lines(body)

    def _lines(self, body: bytes) -> Sequence[ServerEvent]:
        body = self._rest + body
        self._rest = b""
        if not self._opened:
            if len(body) < len(_BOM) and _BOM.startswith(body):
                self._rest, self._between = body, False
                return ()
            self._opened, body = True, body.removeprefix(_BOM)
        if self._after_cr and body:
            body, self._after_cr = body.removeprefix(b"\n"), False
        if b"\r" in body:
            self._after_cr = body.endswith(b"\r")
            body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = body.split(b"\n")
        found: list[ServerEvent] = []
        for line in lines:
            if line:
                self._field(line)
            else:
                if self._data:
                    found.append((b"\n".join(self._data), self._kind))
                    self._data.clear()
                self._kind, self._data_bytes = b"", 0
        self._between = not (self._rest or self._data or self._kind or self._after_cr)
        if not found and len(self._rest) + self._data_bytes > MAX_EVENT_BYTES:
            raise EventTooLong(f"more than {MAX_EVENT_BYTES} bytes")
        return found

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value) + 1
        elif name == b"event":
            self._kind = value.removeprefix(b" ")
