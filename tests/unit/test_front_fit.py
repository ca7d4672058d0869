"""Fitting the path from client to engine: known costs come back from windows made of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.fit.front import TOKEN_SHARE, document, fitted, predicted, with_engine, work
from tests.fit.front_path import append
from tests.fit.front_processes import Used, hop_of, used
from tests.fit.front_rows import Seen, engine_run, read_rows
from tests.fit.front_series import Series, missing, points_of, windows
from tuner.ask.front import Front
from tuner.ask.front_fits import FrontFit, HopFit

KNOWN = FrontFit("vllm", (HopFit("api server", "api_server", 2.0, 0.2, 0.004, 1.0, 0.05),), 0.0, 2.0, {}, "made")


def seen(rate: float, tokens: int = 32) -> Seen:
    """A window of the known path, as it would be measured."""
    front = Front("vllm", 0, 1, 1, 1, "power_of_two")
    row = Seen(
        "vllm",
        "vllm",
        front,
        20.0,
        tokens,
        64,
        rate,
        4.0,
        7,
        "",
        None,
        1.0,
        1.0,
        20.0,
        0.0,
        0.0,
        0,
        0,
        7.0,
        {},
        0.0,
        False,
    )
    count = len(row.arrivals())
    hop = KNOWN.hops[0]
    spent_ms = hop.cores * count * (hop.request_ms + tokens * hop.message_ms) + 1e3 * hop.standing * row.busy_s
    row = replace(row, sent=count, events=tokens * count, cpu_s={"api_server": spent_ms / 1e3})
    made = predicted(KNOWN, row)
    return replace(row, ttft_mean_ms=made.ttft_mean_ms, ttft_p99_ms=made.ttft_p99_ms)


class TestFit:
    def test_processor_time_tells_work_by_request_message_and_second(self) -> None:
        rows = []
        for rate, sent, events in ((4.0, 10, 300), (8.0, 50, 300), (16.0, 150, 4000)):
            spent_ms = 2 * sent + events + TOKEN_SHARE * (32 * sent - events) + 70
            rows.append(replace(seen(rate), events=events, sent=sent, cpu_s={"api_server": spent_ms / 1e3}))
        assert work(rows, "api_server", "api_server") == pytest.approx((2.0, 1.0, 10.0))

    def test_what_replicas_take_more_with_vllm_in_them_is_its_own_work(self) -> None:
        hop = HopFit("replica", "engine", 2.0, 0.2, 0.01, 1.5, 0.1)
        free = FrontFit("ray_serve", (HopFit("proxy", "node", 1.0, 0.1), hop), 5.0, 2.0, {}, "made")
        rows = []
        for sent, events in ((100, 3200), (100, 700), (300, 5000)):
            row = replace(seen(8.0), sent=sent, events=events)
            own_ms = sent * (2.0 + 0.7) + events * (0.2 + 0.03) + row.further * (0.01 + 0.03)
            rows.append(replace(row, cpu_s={"replica": 1.5 * own_ms / 1e3 + 0.1 * row.busy_s}))
        found = with_engine(free, rows)
        assert (found.engine_request_ms, found.engine_token_ms) == pytest.approx((0.7, 0.03))
        assert found.hops[0] == free.hops[0]
        replica = found.hops[1]
        assert (replica.request_ms, replica.message_ms, replica.token_ms) == pytest.approx((2.7, 0.23, 0.04))
        assert found.free.hops[1].message_ms == pytest.approx(0.2)

    @pytest.mark.slow
    def test_known_figures_predict_again(self) -> None:
        rows = [seen(rate, tokens) for rate in (5.0, 20.0, 50.0) for tokens in (16, 48)]  # enough to tell hops freely
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


class TestRows:
    def test_a_mode_of_ray_serve_is_a_path_other_flags_are_options(self) -> None:
        rows = read_rows()
        assert {row.path for row in rows if row.default} >= {"ray_serve_grpc", "ray_serve_throughput", "ray_direct"}
        assert all(row.front.name == row.path for row in rows)
        assert not any("GRPC" in row.options or "THROUGHPUT" in row.options for row in rows)
        assert any(row.options for row in rows)


class TestSeries:
    def test_a_series_is_missing_until_the_table_has_all_its_windows(self, tmp_path: Path) -> None:
        series: dict[str, Series] = {
            name: {"front": "ray_serve", "deploys": [{"windows": windows(0, *rates)}]}
            for name, rates in (("one", (4, 8.5)), ("same", (4,)))
        }
        table = tmp_path / "path.csv"
        assert missing(series, table) == ["one", "same"]
        points = [asdict(point) for point in points_of(series["one"], series["one"]["deploys"][0])]
        for point in points:
            append(table, point)
        assert missing(series, table) == ["same"]
        append(table, points[0])
        assert missing(series, table) == []


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
