"""What ships for Prometheus and Grafana names only what there is: metrics, labels, routes, headings of the runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.fakes import copy_of_empty_store, make_request
from tests.monitoring.rules import FOLDER, dashboard, names, queries, routes, rules
from tests.rollouts import a_live, a_rollout
from tests.unit.test_docs import ROOT, anchors, read, rows, section
from tuner.app.service.application import application
from tuner.app.service.deployed import Seen
from tuner.app.service.metrics import ServiceMetrics
from tuner.app.service.service import Settings
from tuner.app.tune.telemetry import Telemetry
from tuner.app.watch.memory import Memory
from tuner.app.watch.standing import standing
from tuner.ask.request import Metric, SloTarget
from tuner.retune.policy import RetunePolicy
from tuner.stats.buckets import Within
from tuner.study.orders import Terms
from tuner.study.store import Store

ALERTS, RECORDED = rules("alerts.yml"), rules("recording.yml")
BY_PROMETHEUS = {"up", "ALERTS"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}
TARGET, COUNT = SloTarget(metric=Metric.TTFT, percentile=99.0, ms=500), Within(4, 1, 2, 3)
DEPLOYED = Seen("s", (TARGET,), frozenset(), {TARGET.key: COUNT}, {TARGET.key: COUNT})
RUNBOOK = ROOT / "docs" / "runbook.md"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("service")
    store = Store(copy_of_empty_store(folder / "store.db"))
    yield application(store, Settings(("simulated",), folder), open_to_all=True)
    store.close()


@pytest.fixture(scope="module")
def series(service: Any) -> set[str]:
    """Every name that a scrape can show, as Prometheus stores it."""
    metrics = [*service.state.service.metrics.registry.collect(), *Telemetry().registry.collect()]
    found = {f"{metric.name}{suffix}" for metric in metrics for suffix in SUFFIXES[metric.type]}
    return found | {rule["record"] for rule in RECORDED} | BY_PROMETHEUS


USED = [
    *(pytest.param(rule["expr"], id=rule.get("alert") or rule["record"]) for rule in ALERTS + RECORDED),
    *(pytest.param(query, id=f"panel-{n}") for n, query in enumerate(queries())),
]


@pytest.mark.parametrize("query", USED)
def test_a_query_reads_what_there_is(query: str, series: set[str]) -> None:
    assert names(query) - series == set()


def test_names_are_found_in_a_query() -> None:
    query = 'sum by (job, le) (rate(a_total{b="c_total"}[5m])) / on (job) group_left () x:y:z5m > 2 * 1e9 unless d_sum'
    assert names(query) == {"a_total", "x:y:z5m", "d_sum"}


@pytest.mark.slow
@pytest.mark.parametrize("query", [param for param in USED if routes(param.values[0])])
def test_a_route_that_a_query_names_is_one_of_the_service(query: str, service: Any) -> None:
    known = set(service.openapi()["paths"])
    for operator, value in routes(query):
        parts = value.split("|") if operator in ("!~", "=~") and "(" not in value else [value]
        for part in parts:
            matches = re.compile(part).fullmatch if operator in ("=~", "!~") else part.__eq__
            assert any(matches(route) for route in known), f"{operator} {part}"


def test_the_labels_of_the_route_metric_are_routes_of_the_service(service: Any) -> None:
    client = TestClient(service, base_url="http://localhost")
    client.get("/v1/studies/none")
    assert 'route="/v1/studies/{name}"' in client.get("/metrics").text


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    said = alert["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    page, anchor = said["runbook_url"].rpartition("}")[2].split("#")
    assert (ROOT / page) == RUNBOOK
    assert anchor in anchors(RUNBOOK)


def test_the_runbook_has_no_other_alerts_and_tells_of_each_what_it_means_and_what_to_do() -> None:
    parts = dict(re.findall(r"^### (Parlay\w+)\n(.*?)(?=^##|\Z)", read(RUNBOOK), re.M | re.S))
    assert set(parts) == {alert["alert"] for alert in ALERTS}
    for name, text in parts.items():
        assert re.findall(r"^\*\*(\w+)", text, re.M) == ["Means", "Look", "Do"], name


def test_every_alert_is_tried() -> None:
    tried = (ROOT / "tests" / "monitoring" / "alerts_test.yml").read_text(encoding="utf-8")
    for alert in ALERTS:
        found = re.findall(rf"alertname: {alert['alert']}\n\s+eval_time: \w+\n\s+exp_alerts:( \[\])?", tried)
        assert {"", " []"} <= set(found), f"{alert['alert']}: once it fires, and once it does not"


def test_every_rule_that_is_recorded_is_read() -> None:
    read_by = set().union(*(names(param.values[0]) for param in USED))
    assert {rule["record"] for rule in RECORDED} <= read_by


def test_the_dashboard_can_be_imported() -> None:
    shown = dashboard()
    assert shown["schemaVersion"] >= 39
    assert "id" not in shown  # an id is that of one Grafana
    panels = shown["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in shown["templating"]["list"]}
    assert "datasource" in variables
    text = (FOLDER / "dashboard.json").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"} == variables
    for panel in panels:
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


# The reference


def test_every_metric_of_the_service_is_in_the_reference(service: Any) -> None:
    told, metrics = rows(section("Metrics of the service")), service.state.service.metrics.registry.collect()
    ours = {metric.name: metric.type for metric in metrics if metric.name.startswith("parlay_")}
    assert {name: row.split("|")[0].strip() for name, row in told.items()} == ours


def test_labels_of_metrics_of_the_service_are_told(tmp_path: Path) -> None:
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    told, metrics = rows(section("Metrics of the service")), ServiceMetrics(store, lambda: [DEPLOYED])
    metrics.answered("/v1", "GET", 200, 0.1)
    for name in ("runs", "waits"):
        store.orders.submit(name, make_request({"budget.usd": 5}), Terms("", "simulated"))
    store.orders.claim("d", ("simulated",), lambda *_: False)
    store.watched.watch("runs", RetunePolicy(), {})
    claim = store.watched.claim("runs", "me", lambda *_: True)
    assert claim is not None
    store.rollouts.begin(a_rollout(watched="runs"), a_live("new", watched="runs", study="runs"), claim)
    store.watched.remember(claim, Memory(standing=standing(0.0, (), None, None, (), None)).model_dump(mode="json"))
    shown: dict[str, set[str]] = {}
    for metric in metrics.registry.collect():
        for sample in metric.samples:
            shown.setdefault(metric.name, set()).update(set(sample.labels) - {"le"})
    assert {name: row.split("|")[1].strip() for name, row in told.items()} == {
        name: ", ".join(sorted(shown[name], key=told[name].split("|")[1].find)) for name in told
    }
    store.close()
