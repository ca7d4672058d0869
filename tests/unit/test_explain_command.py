"""``parlay explain`` and ``show``: the parts of an explanation, as a person and as a script read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.fakes import copy_of_empty_store, document
from tuner.app.cli.commands import app

pytestmark = pytest.mark.slow  # each test looks at a whole study

CHANGES = {
    "load.seconds": 3, "load.warmup_seconds": 0, "budget.launches": 3, "budget.usd": 50.0,
    "slo": [{"metric": "ttft", "percentile": 90, "ms": 500}, {"metric": "tpot", "percentile": 90, "ms": 50}],
}  # fmt: skip


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a command on a store that holds the studies ``feasible`` and ``hopeless``, on a simulated cluster."""
    root = tmp_path_factory.mktemp("explained")
    (root / "out").mkdir()
    store = copy_of_empty_store(root / "out" / "parlay.db")

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, [*words, "--out", str(root / "out"), "--store", store])

    for study, changes in (("feasible", CHANGES), ("hopeless", CHANGES | {"slo.0.ms": 2.0})):
        (root / "request.yaml").write_text(yaml.safe_dump(document(changes)))
        run("tune", str(root / "request.yaml"), "--launcher", "simulated", "--study", study, "--json")
    return run


@pytest.mark.slow
def test_an_explanation_has_all_its_parts(studies):
    answer = json.loads(studies("explain", "feasible", "--json").stdout)
    assert answer["why"].startswith(answer["standings"][0]["layout"])
    assert answer["standings"][0]["meets_slo"] is True
    assert {"mean", "low", "high", "runs", "interval"} <= set(answer["standings"][0]["slo"][0])
    assert all(group["why_safe"] for group in answer["dropped"])
    assert answer["untried"]["fitting"] > 0
    assert answer["infeasible"] is None
    assert answer["learnt"]
    for one in answer["learnt"]:
        assert one["low"] < one["factor"] < one["high"]
        assert one["high"] / one["low"] <= one["prior_high"] / one["prior_low"] * (1 + 1e-9)
    assert 1 <= answer["spent"]["launches"] <= answer["budget"]["launches"] == 3


@pytest.mark.slow
def test_people_read_the_margin_what_was_not_tried_and_the_budget(studies):
    text = studies("explain", "feasible").stdout
    assert "All runs of a layout together, best first" in text
    assert "% of it" in text  # the margin to the target
    assert "What the trials taught" in text
    assert "why that is safe" in text
    assert "it could not have run" in text
    assert "more deployments fit the devices" in text
    assert "of 3 launches" in text


def test_a_study_without_a_winner_says_what_it_would_take(studies):
    for command in ("explain", "show"):
        answer = json.loads(studies(command, "hopeless", "--json").stdout)
        assert answer["infeasible"]["proven"] is True
        assert answer["infeasible"]["would_take"][0]["kind"] == "slo"
        assert "Any of these would do, by the model" in studies(command, "hopeless").stdout


@pytest.mark.slow
def test_show_has_what_explain_counts(studies):
    shown = json.loads(studies("show", "feasible", "--json").stdout)
    explained = json.loads(studies("explain", "feasible", "--json").stdout)
    for key in ("standings", "spent", "budget"):
        assert shown[key] == explained[key]
    assert shown["trials"][0]["purpose"] == "explore"
    assert shown["ended"] is True
    assert shown["state"] == "decided"
    assert "Study feasible is decided." in studies("show", "feasible").stdout
    assert "Winner: " in studies("show", "feasible").stdout


def test_one_layout_is_explained_by_its_milliseconds_or_its_drop(studies):
    winner = json.loads(studies("show", "feasible", "--json").stdout)["winner"]["layout"]
    kept = json.loads(studies("explain", "feasible", "--layout", winner, "--json").stdout)
    assert [row["layout"] for row in kept["layouts"]] == [winner]
    assert kept["dropped"] == []
    gone = json.loads(studies("explain", "feasible", "--layout", "tp=1,dp=16", "--json").stdout)
    assert [group["reason"] for group in gone["dropped"]] == ["placement"]
    assert gone["untried"] is None
