"""The logs of a trial where its files are not: the end of them, kept in the store without secrets."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import copy_of_empty_store
from tests.service_app import STUDY, client_of
from tests.world import TP2_DP2, World
from tuner.app.tune import trial_log
from tuner.app.tune.trial_log import LogKeeper, folder_of, log_text
from tuner.ask.scrub import scrubbed
from tuner.study.logs import MOST_BYTES
from tuner.study.store import Store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HF_TOKEN=hf_abcdefghijklmnop", "HF_TOKEN=…"),
        ("env: {'AWS_SECRET_ACCESS_KEY': 'abc/def', 'RANK': '0'}", "env: {'AWS_SECRET_ACCESS_KEY': '…', 'RANK': '0'}"),
        ('{"api_key": "xyz", "port": 8000}', '{"api_key": "…", "port": 8000}'),
        ("serve --api-key s3cret --port 8000", "serve --api-key … --port 8000"),
        ("['--api-key', 's3cret', '--port', '8000']", "['--api-key', '…', '--port', '8000']"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer …"),
        ("postgresql://me:pass@host/db", "postgresql://me:…@host/db"),
        ("token parlay_0123456789ab_" + 43 * "x", "token …"),
        ("api_key=None, max_num_batched_tokens=2048", "api_key=None, max_num_batched_tokens=2048"),
        ("KeyError: 'layers'", "KeyError: 'layers'"),
        ("the value opensesame leaks", "the value … leaks"),
    ],
)  # fmt: skip
def test_no_secret_is_shown(text, shown):
    assert scrubbed(text, {"MY_PASSWORD": "opensesame", "HOME": "/root", "API_TOKEN": "512"}) == shown


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x", "-", "a=", "://", "--a ", "bearer ", "key: ", "'"])
def test_no_text_makes_it_slow(text):
    assert len(scrubbed(text * 200_000, {})) <= 200_000 * len(text)


@given(st.text(alphabet="abcdefghij0123456789+/", min_size=6, max_size=60), st.text(), st.text())
def test_a_variables_value_is_nowhere(secret, before, after):
    assert secret not in scrubbed(f"{before} {secret} {after}", {"DB_PASSWORD": secret}).replace("…", "")


def test_what_is_kept_is_the_end_and_bounded(url):
    store = Store(url)
    world = World(url, None)
    store.create_study("s", world.process()[0]._s.request, {})
    store.logs.keep("s", 0, "a\0é" * MOST_BYTES + "last")
    kept = store.logs.find("s", 0)
    assert kept.endswith("éaélast")
    assert MOST_BYTES - 3 <= len(kept.encode()) <= MOST_BYTES
    store.logs.keep("s", 0, "again")
    assert store.logs.find("s", 0) == "again"
    store.logs.keep("gone", 0, "x")
    assert store.logs.find("gone", 0) is None
    store.close()


@pytest.mark.slow
def test_the_log_of_a_trial_is_kept_while_it_runs_and_when_it_has_ended(tmp_path, monkeypatch):
    world = World(copy_of_empty_store(tmp_path / "store.db"), tmp_path / "logs")
    study, launcher, meter, store, _ = world.process({"budget.launches": 1, "load.rates_req_per_s": [8]})
    monkeypatch.setattr(trial_log, "KEEP_S", 0.01)
    launch, seen = launcher.launch, []

    def logging(order, watch):
        (order.log_dir / "engine.log").write_text("loading\nHF_TOKEN=abc\n")
        return launch(order, watch)

    def measured(layout, step):
        while store.logs.find("s", 0) is None:
            time.sleep(0.01)
        seen.append(store.logs.find("s", 0))
        (tmp_path / "logs" / "trial-000" / "engine.log").open("a").write("serving\n")
        return 1.0

    launcher.launch, meter.ttft_ms = logging, measured
    with LogKeeper(store.logs, "s", tmp_path / "logs") as keeper:
        study._observer = keeper
        assert str(study.run(resume=False, facts={}).winner.layout) == TP2_DP2
    assert seen[0] == "==> engine.log <==\nloading\nHF_TOKEN=…\n"
    assert store.logs.find("s", 0).endswith("serving\n")
    store.close()


def test_the_service_shows_its_own_files_first_and_else_what_was_kept(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    client = client_of(store, tmp_path)
    client.post("/v1/studies", json={**STUDY, "name": "s"})
    assert "no logs are kept" in client.get("/v1/studies/s/trials/3/log").json()["detail"]
    store.logs.keep("s", 3, "of another machine\n")
    assert client.get("/v1/studies/s/trials/3/log").text == "of another machine\n"
    folder = folder_of(tmp_path / "out" / "s" / "logs", 3)
    folder.mkdir(parents=True)
    (folder / "engine.log").write_text("one\ntwo\nMY_SECRET=x1\n")
    assert client.get("/v1/studies/s/trials/3/log?tail=2").text == "==> engine.log <==\ntwo\nMY_SECRET=…\n"
    assert log_text(tmp_path / "nowhere", 5) is None
    assert log_text(folder, 5, 15) == "==> engine.log <==\nMY_SECRET=…\n"  # of its last bytes, whole lines
    store.close()


def test_the_logs_of_rays_workers_are_shown_too(tmp_path):
    """Ray names its workers' files so, and they are what a launch on Ray leaves."""
    for name in ("worker-5451f2-01000000-1957.out", "worker-5451f2-01000000-1957.err"):
        (tmp_path / name).write_text("Loading weights took 3.61 seconds\n")
    (tmp_path / "engine.sock").write_text("nothing to read")
    (tmp_path / "worker-gone.out").symlink_to(tmp_path / "session" / "worker-gone.out")  # of a worker that was killed
    text = log_text(tmp_path, 10)
    assert text is not None
    assert (text.count("==>"), text.count("3.61 seconds")) == (2, 2)
