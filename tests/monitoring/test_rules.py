"""The rules under a real promtool: they are sound, each alert comes when it should; the dashboard's queries parse."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests import tools
from tests.monitoring.rules import FOLDER, queries

pytestmark = pytest.mark.tools


def promtool(*words: str, cwd: Path = FOLDER) -> str:
    done = subprocess.run([str(tools.promtool()), *words], capture_output=True, text=True, timeout=120, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_sound() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", "recording.yml", "alerts.yml")


def test_the_example_of_a_configuration_is_sound() -> None:
    assert "2 rule files found" in promtool("check", "config", "prometheus.yml")


def test_each_alert_comes_when_it_should_and_not_else() -> None:
    promtool("test", "rules", "alerts_test.yml", cwd=Path(__file__).parent)


def test_the_queries_of_the_dashboard_parse(tmp_path: Path) -> None:
    rules = [{"record": f"q{n}", "expr": text} for n, text in enumerate(queries())]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "queries.yml", cwd=tmp_path)
