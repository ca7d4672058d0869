"""Which files a request may name: by the service when it is asked, and by the worker that comes later, elsewhere."""

from __future__ import annotations

import pytest

from tests.fakes import copy_of_empty_store, document, make_request
from tests.service_app import work
from tuner.app.service.confine import confine
from tuner.errors import BadInput
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Terms
from tuner.study.store import Store

KNOWN = "Qwen/Qwen3-8B"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.mark.parametrize(
    "model",
    ["nosuch", "no/such", "models/a", "a/b/c", "/etc/x", "~", ".", "..", "a\0b", "x" * 5000, "~nobodyatall/x"],
)  # fmt: skip
def test_a_model_that_is_no_known_name_is_a_path_whether_it_exists_here_or_not(model):
    with pytest.raises(BadInput, match="request: model"):
        confine(document({"model": model}), [])


def test_a_known_name_is_one_unless_a_folder_has_it(tmp_path):
    confine(document({"model": KNOWN}), [])
    (tmp_path / "cwd" / KNOWN).mkdir(parents=True)  # it would be read in place of the name
    with pytest.raises(BadInput, match="request: model"):
        confine(document({"model": KNOWN}), [])
    confine(document({"model": KNOWN}), [tmp_path])


@pytest.mark.parametrize("inside", ["model", "deeper/../model", "./model"])
def test_what_lies_beneath_an_opened_folder_may_be_named(tmp_path, inside):
    opened = tmp_path / "opened"
    (opened / "model").mkdir(parents=True)
    confine(document({"model": f"{opened}/{inside}"}), [opened])
    with pytest.raises(BadInput, match="a path beneath"):
        confine(document({"model": f"{opened}/../cwd"}), [opened])
    with pytest.raises(BadInput, match="a path beneath"):
        confine(document({"model": f"{opened}2/model"}), [opened])


def test_a_request_that_was_read_is_looked_at_as_its_document_is():
    confine(make_request().model_dump(), [])


def checkpoint(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_worker_looks_once_more_where_a_link_points(tmp_path):
    """Between the asking and the running, whoever writes beneath an opened folder can point it elsewhere."""
    opened, secret = tmp_path / "opened", checkpoint(tmp_path / "secret")
    (opened / "inside").mkdir(parents=True)
    link = opened / "model"
    link.symlink_to(opened / "inside")
    wanted = document({"model": str(link)})
    confine(wanted, [opened])
    link.unlink()
    link.symlink_to(secret)
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    store.orders.submit("s", make_request({"model": str(link)}), Terms("abc", "simulated", seed=0))
    assert work(store, tmp_path, [opened]) == 1
    assert store.study("s").state is StudyState.FAILED
    assert "a path beneath" in store.orders.order("s").problem
    store.close()


def test_a_worker_in_another_folder_reads_no_name_as_a_path_of_its_own(tmp_path, monkeypatch):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    store.orders.submit("s", make_request({"model": KNOWN}), Terms("abc", "simulated", seed=0))
    checkpoint(tmp_path / "other" / KNOWN)
    monkeypatch.chdir(tmp_path / "other")
    assert work(store, tmp_path) == 1
    assert "request: model" in store.orders.order("s").problem
    store.close()
