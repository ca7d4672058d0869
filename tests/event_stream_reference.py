"""The HTML standard's event stream, word for word and slowly, to hold ours against.

https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 "Parsing an event stream" and 9.2.6
"Interpreting an event stream". It reads a stream that has ended, whole.
"""

from __future__ import annotations


def events(stream: bytes) -> list[tuple[str, str]]:
    """(type, data) of every event that is dispatched; the type is empty where the stream names none."""
    text = stream.decode("utf-8", "replace")
    if text.startswith("\ufeff"):
        text = text[1:]
    found: list[tuple[str, str]] = []
    data, kind = "", ""
    for line in _lines(text):
        if line == "":
            if data == "":
                kind = ""
                continue
            if data.endswith("\n"):
                data = data[:-1]
            found.append((kind, data))
            data, kind = "", ""
        elif line.startswith(":"):
            pass
        else:
            if ":" in line:
                place = line.index(":")
                name, value = line[:place], line[place + 1 :]
                if value.startswith(" "):
                    value = value[1:]
            else:
                name, value = line, ""
            if name == "event":
                kind = value
            elif name == "data":
                data += value + "\n"
    return found


def _lines(text: str) -> list[str]:
    """The lines that end; what follows the last end is no line."""
    lines, line, place = [], "", 0
    while place < len(text):
        one = text[place]
        if one == "\r":
            lines.append(line)
            line = ""
            if text[place + 1 : place + 2] == "\n":
                place += 1
        elif one == "\n":
            lines.append(line)
            line = ""
        else:
            line += one
        place += 1
    return lines
