"""A study on the simulated cluster says so wherever it shows, and nothing deployable comes of it."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from tests.fakes import copy_of_empty_store, document
from tuner.app.cli.commands import app
from tuner.errors import BadInput

pytestmark = pytest.mark.slow  # each test looks at a whole study

CHANGES = {"load.seconds": 3, "load.warmup_seconds": 0, "budget.launches": 2, "slo": [
    {"metric": "ttft", "percentile": 90, "ms": 500}, {"metric": "tpot", "percentile": 90, "ms": 50}
]}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(run a command, the answer of tune, what it printed, the folder of its results)."""
    root = tmp_path_factory.mktemp("simulated")
    (root / "request.yaml").write_text(yaml.safe_dump(document(CHANGES)))
    (root / "out").mkdir()
    store = copy_of_empty_store(root / "out" / "parlay.db")

    def run(command, *words):
        words = (command, *words, "--out", str(root / "out"), "--store", store)
        return CliRunner().invoke(app, [str(word) for word in words])

    def tune(*words):
        words = ("--launcher", "simulated", "--study", "rehearsal", *words)
        return run("tune", root / "request.yaml", *words)

    done = tune("--simulated-seed", 3, "--json")
    assert done.exit_code == 0, done.output
    return run, tune, done, root / "out" / "rehearsal"


@pytest.mark.slow
def test_answers_name_it_and_its_seed(study):
    run, _, done, folder = study
    answers = [json.loads(done.stdout), json.loads(run("show", "rehearsal", "--json").stdout)]
    answers += [
        json.loads(run("explain", "rehearsal", "--json").stdout),
        json.loads((folder / "decision.json").read_text()),
    ]
    for answer in answers:
        assert (answer["simulated"], answer["simulated_seed"]) == (True, 3)
    assert answers[0]["winner"] is not None
    assert "simulated cluster, seed 3" in done.stderr


@pytest.mark.slow
def test_tables_and_the_report_name_it(study):
    run, _, _, folder = study
    for command in ("show", "explain"):
        assert "Simulated (seed 3)" in run(command, "rehearsal").stdout
    assert "Simulated: no figure on this page is from a real engine." in (folder / "report.html").read_text()


def test_no_spec_comes_of_it(study):
    run, _, done, folder = study
    assert sorted(json.loads(done.stdout)["files"]) == ["decision", "report"]
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["decision.json", "report.html"]
    refused = run("emit", "rehearsal").exception
    assert isinstance(refused, BadInput)
    assert "simulated" in str(refused)


@pytest.mark.slow
def test_it_goes_on_in_its_own_world_only(study):
    _, tune, done, _ = study
    again = tune("--resume", "--simulated-seed", 3, "--json")
    assert json.loads(again.stdout)["winner"] == json.loads(done.stdout)["winner"]
    refused = tune("--resume", "--simulated-seed", 4).exception
    assert isinstance(refused, BadInput)
    assert "--simulated-seed 3" in str(refused)
