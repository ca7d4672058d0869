"""A processor without instructions for half precision is told of, where an engine would compute in that."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from serve.launch import cpu_dtype, deployed
from serve.launch.cpu_dtype import WORDS, multiplies_bfloat16
from serve.launch.deployed import Deployed
from serve.launch.device import device_of
from serve.launch.health import Waiting
from tests.fakes import make_request
from tuner.ask.layout import ParallelLayout
from tuner.errors import FailureReason, LaunchFailed
from tuner.trial.launched import Launched, NoEngine
from tuner.trial.seams import LaunchOrder, Watch

HALF = ("auto", "bfloat16", "float16")


@pytest.mark.parametrize(
    ("told", "able"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx avx2 fma\n", False),
        ("flags\t\t: fpu avx2 avx512f avx512bw\n", True),
        ("flags\t\t: fpu avx2 avx_ne_convert\n", True),
        ("Features\t: fp asimd bf16\n", True),  # another architecture
    ],
)
def test_it_is_told_from_the_flags_that_linux_shows(tmp_path: Path, told: str, able: bool) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    assert multiplies_bfloat16(tmp_path / "cpuinfo") is able
    assert multiplies_bfloat16(tmp_path / "none")


def order(gpu: str, dtype: str, folder: Path) -> LaunchOrder:
    request = make_request(
        {"cluster": {"gpu": gpu, "gpus_per_node": 2}, "engine": {"dtype": dtype, "start_timeout_s": 0.01}}
    )
    return LaunchOrder("s", 0, "app", ParallelLayout(), request, folder)


class Never(Deployed):
    """Does not start."""

    lists_within_s = 1.0

    def log_tail(self, lines: int = 1) -> tuple[str, ...]:
        return ()

    def teardown(self) -> None:
        pass

    def _is_up(self, waiting: Waiting, elapsed_s: float) -> bool:
        return False

    def _take_stock(self) -> None:
        pass


@pytest.mark.parametrize("able", [True, False])
def test_whoever_waits_for_such_an_engine_is_told_why_it_is_slow(
    able: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_dtype, "multiplies_bfloat16", lambda: able)
    monkeypatch.setattr(deployed, "POLL_S", 0.02)
    for gpu, dtype in (("h100_sxm", "bfloat16"), ("cpu", "float32"), *(("cpu", one) for one in HALF)):
        one = order(gpu, dtype, tmp_path)
        told = device_of(one.layout, one.request).caution(one.request.engine)
        assert told == (None if able or dtype not in HALF or gpu != "cpu" else WORDS)
    for here in (True, False):
        said: list[str] = []
        engine = Never("http://127.0.0.1:1", "m", Launched("local-process", {}, "m", NoEngine("never")))
        with pytest.raises(LaunchFailed) as failed:
            engine.wait_until_ready(
                order("cpu", "auto", tmp_path), time.perf_counter(), Waiting(Watch(progress=said.append)), here
            )
        assert failed.value.reason is FailureReason.START_TIMED_OUT
        assert (said[0] == WORDS) is (WORDS in failed.value.detail) is (here and not able)
