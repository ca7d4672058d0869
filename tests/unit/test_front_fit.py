"""Fitting the path from client to engine: known costs come back from windows made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from tests.fit.front import document, fitted, predicted, work
from tests.fit.front_processes import Used, hop_of, used
from tests.fit.front_rows import Seen, engine_run
from tuner.ask.front import Front
from tuner.ask.front_fits import FrontFit, HopFit

KNOWN = FrontFit("vllm", (HopFit("api server", "api_server", 2.0, 0.2, 0.004, 1.0, 0.05),), 0.0, 2.0, {}, "made")


def seen(rate: float) -> Seen:
    """A window of the known path, as it would be measured."""
    front = Front("vllm", 0, 1, 1, 1, "power_of_two")
    row = Seen(
        "vllm", "vllm", front, 20.0, 32, 64, rate, 4.0, 7, "", None, 1.0, 1.0, 20.0, 0.0, 0, 0, 7.0, {}, 0.0, False
    )
    count = len(row.arrivals())
    hop = KNOWN.hops[0]
    spent_ms = hop.cores * count * (hop.request_ms + 32 * hop.message_ms) + 1e3 * hop.standing * row.busy_s
    row = replace(row, sent=count, events=32 * count, cpu_s={"api_server": spent_ms / 1e3})
    made = predicted(KNOWN, row)
    return replace(row, ttft_mean_ms=made.ttft_mean_ms, ttft_p99_ms=made.ttft_p99_ms)


class TestFit:
    def test_processor_time_tells_work_by_request_message_and_second(self) -> None:
        rows = [replace(seen(rate), events=events, sent=sent, cpu_s={"api_server": (2 * sent + events + 70) / 1e3})
                for rate, sent, events in ((4.0, 10, 500), (8.0, 50, 300), (16.0, 20, 4000))]  # fmt: skip
        assert work(rows, "api_server", "api_server") == pytest.approx((2.0, 1.0, 10.0))

    @pytest.mark.slow
    def test_known_figures_predict_again(self) -> None:
        rows = [seen(rate) for rate in (5.0, 20.0, 60.0)]
        found = fitted("vllm", rows, {}, "made")
        for row in rows:
            assert predicted(found, row).ttft_mean_ms == pytest.approx(row.ttft_mean_ms, rel=0.05)

    def test_a_written_file_is_read_as_it_was(self) -> None:
        written = yaml.safe_load(document(KNOWN))
        hops = tuple(HopFit(**hop) for hop in written.pop("hops"))
        assert FrontFit(name="vllm", hops=hops, **written) == KNOWN

    def test_too_few_windows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least"):
            fitted("vllm", [], {}, "")


class TestEngine:
    def test_a_request_joins_at_the_next_step(self) -> None:
        run = engine_run(np.array([0.0, 0.005, 0.021, 1.0]), 3, 20.0)
        assert run.first_token_s == pytest.approx([0.02, 0.04, 0.06, 1.02])
        assert run.end_s - run.first_token_s == pytest.approx([0.04] * 4)


class TestProcesses:
    def test_threads_sum_and_the_busiest_of_each_process_stands_for_its_loop(self) -> None:
        before = {(1, 1): 1.0, (1, 2): 0.0, (2, 2): 0.0}
        after = {(1, 1): 3.0, (1, 2): 0.5, (2, 2): 1.0}
        assert used(before, after, {1: "ingress", 2: "ingress"}) == {"ingress": Used(3.5, 3.0)}

    def test_command_lines_tell_hops(self) -> None:
        assert hop_of("ray::ProxyActor.run") == "proxy"
        assert hop_of("ray::ServeReplica:front:OpenAiIngress") == "ingress"
        assert hop_of("ray::ServeReplica:front:LLMServer:m") == "replica"
        assert hop_of("bash") is None
