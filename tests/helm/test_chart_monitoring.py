"""What the chart gives Prometheus and Grafana is what deploy/monitoring says, and its jobs are those of the alerts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import tools
from tests.chart import CHART, documents, render
from tests.chart_cases import POSTGRES, merged
from tests.monitoring.rules import FOLDER

ALL = {
    "serviceMonitor": {"enabled": True, "token": {"secret": "reader"}},
    "rules": {"enabled": True},
    "dashboard": {"enabled": True},
}
VALUES = merged(POSTGRES, {"monitoring": ALL})


@pytest.mark.parametrize("name", ["alerts.yml", "recording.yml", "dashboard.json"])
def test_the_chart_has_a_true_copy(name: str) -> None:
    """Renewed as the golden files are: Helm reads no file outside of the chart."""
    path = CHART / "files" / name
    if os.environ.get("PARLAY_UPDATE_GOLDEN") == "1":
        shutil.copyfile(FOLDER / name, path)
    assert path.read_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.tools
def test_the_rules_that_are_rendered_are_sound_under_promtool(tmp_path: Path) -> None:
    rule = next(made for made in documents(render(VALUES, tmp_path)) if made["kind"] == "PrometheusRule")
    files = [yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in ("recording.yml", "alerts.yml")]
    assert rule["spec"]["groups"] == [group for file in files for group in file["groups"]]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    words = [str(tools.promtool()), "check", "rules", "--lint-fatal", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.tools
def test_the_dashboard_that_is_rendered_is_the_one(tmp_path: Path) -> None:
    made = next(made for made in documents(render(VALUES, tmp_path)) if made["kind"] == "ConfigMap")
    assert json.loads(made["data"]["parlay.json"]) == json.loads(
        (FOLDER / "dashboard.json").read_text(encoding="utf-8")
    )


@pytest.mark.tools
@pytest.mark.parametrize("release", ["parlay", "tuning", "x-parlay", "a" * 53])
def test_alerts_tell_the_service_and_its_workers_by_their_jobs(release: str, tmp_path: Path) -> None:
    made = documents(render(VALUES, tmp_path, release=release))
    monitor = next(one for one in made if one["kind"] == "ServiceMonitor")
    services = [one for one in made if one["kind"] == "Service"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(wanted <= service["metadata"]["labels"].items() for service in services)
    label = monitor["spec"]["jobLabel"]
    jobs = {service["spec"]["ports"][0]["name"]: service["metadata"]["labels"][label] for service in services}
    # The matchers of the alerts: job=~"parlay.*" and job=~"parlay.*-worker".
    assert re.fullmatch("parlay.*", jobs["http"])
    assert not re.fullmatch(".*-worker", jobs["http"])
    assert re.fullmatch("parlay.*-worker", jobs["metrics"])
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == set(jobs)


@pytest.mark.tools
def test_the_api_is_shown_a_token_and_the_controller_is_no_service_to_the_alerts(tmp_path: Path) -> None:
    """Off a loopback address its /metrics asks for one; a scrape that is refused reads as a service that is down."""
    made = documents(render(merged(VALUES, {"controller": {"enabled": True}}), tmp_path))
    monitors = {one["metadata"]["name"]: one["spec"] for one in made if one["kind"] == "ServiceMonitor"}
    shown = {one["port"]: one.get("authorization") for spec in monitors.values() for one in spec["endpoints"]}
    assert shown == {"http": {"credentials": {"name": "reader", "key": "token"}}, "metrics": None, "health": None}
    (service,) = (one for one in made if one["kind"] == "Service" and one["metadata"]["name"] == "parlay-controller")
    assert monitors["parlay-controller"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert not re.fullmatch("parlay.*", service["metadata"]["labels"]["parlay.dev/job"])
