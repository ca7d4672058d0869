"""Compiled code is kept between processes, and no longer than the sources that it came from."""

import importlib.util

import pytest

from tuner.simulate import compiled

SOURCE = """
from tuner.simulate.compiled import compiled


@compiled
def doubled(value):
    return 2 * value
"""


def load_anew(path):
    spec = importlib.util.spec_from_file_location("kept", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.doubled


@pytest.mark.parametrize(("changed", "hits"), [(False, 1), (True, 0)])
def test_a_change_of_any_source_has_all_compiled_anew(tmp_path, monkeypatch, changed, hits):
    path = tmp_path / "kept.py"
    path.write_text(SOURCE)
    assert load_anew(path)(3) == 6
    if changed:
        monkeypatch.setattr(compiled, "SOURCES", "of another version")
    again = load_anew(path)
    assert again(3) == 6
    assert sum(again.stats.cache_hits.values()) == hits
