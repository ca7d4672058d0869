"""Replace one top-level section of a profile's YAML text, leaving every other line as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any


def write_section(path: Path, section: str, fits: Mapping[str, Any], source: str) -> None:
    """Put ``fits`` (dataclasses by key) under ``section`` of the file, and ``source`` under ``sources``."""
    lines = [f"{section}:", *(f"  {key}: {{{_flow(fit)}}}" for key, fit in fits.items())]
    text = _replaced(path.read_text(encoding="utf-8"), section, "\n".join(lines) + "\n")
    path.write_text(_as_measured(_with_source(text, section, source), section), encoding="utf-8")


def _flow(fit: Any) -> str:
    """The fields that differ from their default, four significant digits."""
    shown = []
    for item in fields(fit):
        value = getattr(fit, item.name)
        if value == item.default:
            continue
        shown.append(f"{item.name}: {value if isinstance(value, str) else float(f'{value:.4g}')}")
    return ", ".join(shown)


def _replaced(text: str, key: str, block: str) -> str:
    """``text`` with the top-level block of ``key`` exchanged, or appended if there is none."""
    pattern = re.compile(rf"^{re.escape(key)}:.*\n(?:^[ #].*\n|^\n)*", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(lambda _: block, text, count=1)
    return text.rstrip("\n") + "\n" + block


def _with_source(text: str, section: str, source: str) -> str:
    entry = f"  {section}: >-\n    {source}\n"
    pattern = re.compile(rf"^  {re.escape(section)}: >-\n(?:^    .*\n)+", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(lambda _: entry, text, count=1)
    return text.replace("sources:\n", f"sources:\n{entry}", 1)


def _as_measured(text: str, section: str) -> str:
    """With the section among those that were measured on the device."""
    found = re.search(r"^measured: \[(.*)\]\n", text, re.MULTILINE)
    names = [name.strip() for name in found[1].split(",")] if found else []
    line = f"measured: [{', '.join(dict.fromkeys([*names, section]))}]\n"
    return text.replace(found[0], line) if found else text.replace("sources:\n", f"{line}sources:\n", 1)
