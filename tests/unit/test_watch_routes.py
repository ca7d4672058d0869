"""What is deployed, asked of the service, of its client, of the shell, and drawn over time."""

from __future__ import annotations

import json
import sys

import pytest

from deploy.report.timeline_charts import timeline_figure
from deploy.report.timeline_page import render_timeline
from tests.page_service import PageService
from tests.watched_study import OTHER, watched
from tuner.app.cli.commands import main
from tuner.app.client.client import ServiceClient
from tuner.app.service.watch_metrics import WatchMetrics
from tuner.app.watch.policy_file import read_policy
from tuner.app.watch.timeline import timeline_of
from tuner.errors import BadInput
from tuner.retune.rollout import Wish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = PageService(tmp_path_factory.mktemp("service"))
    made.submit("chat", {"space": {"tp": [1, 2]}, "budget.launches": 2})
    made.submit("idle", {"space": {"tp": [1, 2]}, "budget.launches": 2})
    made.work()
    watched(made, "chat")
    yield made
    made.close()


@pytest.fixture
def client(service):
    with ServiceClient(service.url.removesuffix("/")) as made:
        yield made


def test_a_watched_study_is_told_whole(client):
    found = client.watch("chat")
    assert found.standing.state == "held"
    assert found.standing.judgement.held_by == {"consent": f"a human has to agree to {OTHER}"}
    assert [one.state for one in found.deployments] == ["serving"]
    assert len(found.seen) == 40
    assert {one.kind for one in found.happened} == {"noticed", "judged"}
    assert "timeline" in client.watch_picture("chat").figures


def test_what_is_not_watched_is_not_found(client):
    with pytest.raises(BadInput, match="watched"):
        client.watch("idle")


def test_a_human_asks_and_the_audit_has_it(client, service):
    assert client.say("chat", Wish.PAUSE).paused
    assert not client.say("chat", Wish.RESUME).paused
    client.say("chat", Wish.APPROVE)
    assert service.store.looks.said("chat").approved == {OTHER}
    assert [one.action for one in service.store.audit.page(3)] == ["watch approve", "watch resume", "watch pause"]


def test_the_policy_is_changed_and_a_wrong_one_refused(client):
    assert client.watch_with("chat", {"consent": "auto"}).policy["consent"] == "auto"
    with pytest.raises(BadInput, match=r"policy\.consent"):
        client.watch_with("chat", {"consent": "perhaps"})
    with pytest.raises(BadInput):
        client.watch_with("idle", {})


def test_metrics_tell_how_it_stands(service):
    found = {metric.name: metric for metric in WatchMetrics(service.store).collect()}
    states = {one.labels["state"]: one.value for one in found["parlay_watch_state"].samples}
    assert states == {"well": 0, "blind": 0, "noticed": 0, "held": 1, "acting": 0, "failed": 0}
    assert {one.labels["by"]: one.value for one in found["parlay_watch_held"].samples}["consent"] == 1


def test_a_page_shows_it_over_time(service):
    data = timeline_of(service.store, "chat", (("engines", "<none>"),))
    figure = timeline_figure(data)
    assert {trace["name"] for trace in figure["data"]} >= {"lost", "comes up", "has traffic"}
    attained = next(trace for trace in figure["data"] if trace["name"].startswith("within"))
    assert attained["y"][0] == 100
    assert attained["y"][-1] == 50
    page = render_timeline(data)
    assert "&lt;none&gt;" in page
    assert "50.00% of 900 requests" in page


@pytest.mark.parametrize("words", [["watch", "chat"], ["rollout", "pause", "chat"], ["rollout", "resume", "chat"]])
def test_the_shell_asks_the_service(words, service, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["parlay", "--server", service.url.removesuffix("/"), *words, "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["study"] == "chat"


def test_the_shell_shows_it_at_a_glance(service, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["parlay", "--server", service.url.removesuffix("/"), "watch", "chat"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    for words in ("HELD", "slo_burn", OTHER, "held by consent", "serving"):
        assert words in shown


def test_a_policy_is_refused_with_its_place(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("canary: {share: 2}\n")
    with pytest.raises(BadInput, match=r"policy\.yaml\.canary\.share"):
        read_policy(file)
    file.write_text("")
    assert read_policy(file).consent == "approve"
    with pytest.raises(BadInput):
        read_policy(tmp_path / "none.yaml")


def test_watching_it_no_more_leaves_what_serves(client, service):
    assert not client.unwatch("chat").watched
    assert len(service.store.live.of("chat")) == 1
