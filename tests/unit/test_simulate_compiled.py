"""Compiled code is kept between processes, and no longer than the sources that it came from."""

import importlib.util
import pickle

import numba
import numpy as np
import pytest

from tuner.ask.arrivals import ClosedLoad, OfferedLoad
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec
from tuner.cost.latency import StepCosts
from tuner.simulate import SimulationSettings, Simulator, compiled
from tuner.simulate.precompile import precompile

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


@pytest.mark.slow
@pytest.mark.parametrize("written", [pickle.dumps(numba.__version__), b""], ids=["index", "code"])
@pytest.mark.parametrize("broken", [b"cmoved_since\nState\n.", b"cos\nmoved_since\n.", b"\x80\x05", b""])
def test_what_an_earlier_version_left_is_compiled_anew_where_it_cannot_be_read(tmp_path, written, broken):
    """A pickle names modules, and modules move from one version to the next."""
    path = tmp_path / "kept.py"
    path.write_text(SOURCE)
    assert load_anew(path)(3) == 6
    (file,) = (tmp_path / "__pycache__").glob("*.nbi" if written else "*.nbc")
    file.write_bytes(written + broken)
    assert load_anew(path)(3) == 6
    again = load_anew(path)
    assert again(3) == 6
    assert sum(again.stats.cache_hits.values()) == 1


def test_what_an_installation_compiles_is_all_that_a_study_needs():
    """One signature for every layout and load: no run compiles more than ``precompile``."""
    from tuner.simulate.drive import run

    precompile()
    costs = StepCosts(load_model("Qwen/Qwen3-30B-A3B"), Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=8)))
    lengths = np.array([64, 64]), np.array([4, 4])
    loads = [
        OfferedLoad(np.array([0.0, 0.1]), *lengths, prefix_group=np.array([0, 0])),
        ClosedLoad(users=2, think_s=0.5, prompt_tokens=lengths[0], output_tokens=lengths[1]),
    ]
    settings = SimulationSettings(gap_limits_ms=(50.0,), shared_prefix_tokens=16, router="prefix_aware")
    for layout in ("tp=2", "pp=2", "dp=2", "dp=2,ep=true", "pp=2,dp=2,ep=true", "tp=2,dcp=2"):
        shape = ParallelLayout.parse(layout)
        simulator = Simulator(costs, shape, kv_tokens=4096, longest_tokens=128, settings=settings)
        for load in loads:
            simulator.run(load)
    assert len(run.signatures) == 1
