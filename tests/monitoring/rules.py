"""What is in deploy/monitoring, as tests read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"


def rules(name: str) -> list[dict[str, Any]]:
    """All rules of a file."""
    document = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    read: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    return read


def queries() -> list[str]:
    """Every query of the dashboard, as Grafana sends it: its variables filled in."""
    shown = dashboard()
    found = [target["expr"] for panel in shown["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in shown["annotations"]["list"]]
    return [text.replace("$__rate_interval", "1m").replace("$", "") for text in found]


def names(query: str) -> set[str]:
    """The metrics, and what recording rules make of them, that a query reads."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    words = re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare)
    return set(words) - {"and", "or", "unless", "by", "on", "without"}


def routes(query: str) -> list[tuple[str, str]]:
    """Its matchers of the label ``route``: operator and value."""
    return re.findall(r'route(=~|!~|!=|=)"([^"]*)"', query)
