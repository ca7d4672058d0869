"""What the service tells of deployed winners: how they hold their SLO, and why nothing is seen where nothing is."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.fakes import copy_of_empty_store, document
from tests.service_app import STUDY, client_of, work
from tuner.app.service.application import application
from tuner.app.service.deployed import EVERY_S, RECENT_S, Blind, DeployedWinner, DeployedWinners, deployed_at
from tuner.app.service.service import Settings
from tuner.errors import BadInput, StoreError
from tuner.study.lifecycle import StudyState
from tuner.study.schema import STUDIES
from tuner.study.store import Store

RECORDED = (Path(__file__).parents[1] / "data" / "engine_metrics" / "vllm_0.29.txt").read_text(encoding="utf-8")
CHANGES = {"space": {"tp": [1]}, "budget.launches": 1, "engine.served_model_name": "tiny"}
URL = "http://engine:8000/metrics"


def later(text: str, requests: int, slow: int) -> str:
    """The recorded text after so many further requests; the slow ones took between 0.1 and 0.25 s to their first token,
    the others less than a millisecond."""
    lines = []
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if "time_to_first_token_seconds_bucket" in head:
            bound = float(head.split('le="')[1].split('"')[0])
            line = f"{head} {float(value) + requests - (slow if bound < 0.25 else 0)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with a study that has a winner, of the SLO TTFT p99 ≤ 100 ms and TPOT p99 ≤ 50 ms, and one that waits."""
    folder = tmp_path_factory.mktemp("decided")
    store = Store(copy_of_empty_store(folder / "store.db"))
    client_of(store, folder).post("/v1/studies", json=STUDY | {"name": "s", "request": document(CHANGES)})
    work(store, folder)
    client_of(store, folder).post("/v1/studies", json=STUDY | {"name": "waits"})
    yield store
    store.close()


class Engine(http.server.BaseHTTPRequestHandler):
    """Shows a text, or leads elsewhere."""

    text, elsewhere = RECORDED, ""

    def do_GET(self) -> None:
        self.send_response(302 if self.elsewhere and self.path == "/metrics" else 200)
        if self.elsewhere:
            self.send_header("Location", self.elsewhere)
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[tuple[str, type[Engine]]]:
    kind = type("Handler", (Engine,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    server.server_close()


def shown(store: Store, folder: Path, *winners: DeployedWinner) -> dict[str, float]:
    """The lines of a scrape about deployed winners."""
    app = application(
        store, Settings(("simulated",), folder), open_to_all=True, deployed=lambda: [one.seen for one in winners]
    )
    text = app.state.service.metrics.text().decode()
    lines = [line for line in text.splitlines() if line.startswith("parlay_deployed_") and "_created" not in line]
    return {
        name.removeprefix("parlay_deployed_"): float(value) for name, _, value in (x.rpartition(" ") for x in lines)
    }


def winner(*texts: str | None, study: str = "s", urls: tuple[str, ...] = (URL,)) -> DeployedWinner:
    """One whose addresses show these texts, one look after the other; None: it cannot be read."""
    from serve.measure.engine_latencies import parse_latencies

    left = list(texts)

    def fetch(url: str) -> object:
        text = left.pop(0)
        return (None, f"{url} cannot be read") if text is None else (parse_latencies(text), None)

    return DeployedWinner(study, urls, fetch)  # type: ignore[arg-type]


# Which addresses


def test_addresses_are_given_by_study() -> None:
    words = ["a=http://x:8000", "b=https://y/engine/metrics", "a=http://z:8000/metrics/"]
    assert deployed_at(words) == {
        "a": ("http://x:8000/metrics", "http://z:8000/metrics"),
        "b": ("https://y/engine/metrics",),
    }


@pytest.mark.parametrize(
    "word",
    ["", "s", "=http://x", "s=", "s=x:8000", "s=file:///etc/passwd", "s=http://", "s=http://me:pw@x", "s=http://x:0",
     "s=http://x:99999", "s=http://[::1", "s=ftp://x"],
)  # fmt: skip
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(BadInput, match="STUDY=URL"):
        deployed_at([word])


@pytest.mark.slow
def test_no_metric_has_a_line_where_nothing_is_deployed(decided: Store, tmp_path: Path) -> None:
    assert shown(decided, tmp_path) == {}


# What is seen


@pytest.mark.slow
def test_the_share_of_requests_within_each_target_is_told_with_its_bounds(decided: Store, tmp_path: Path) -> None:
    one = winner(RECORDED, later(RECORDED, 10, 1))
    one.look(decided, 0.0)
    one.look(decided, EVERY_S)
    found = shown(decided, tmp_path, one)
    ttft, tpot = 'metric="ttft",percentile="99",study="s"', 'metric="tpot",percentile="99",study="s"'
    assert found[f"requests_total{{{ttft}}}"] == 10
    for bound in ("least", "likely", "most"):  # 100 ms is an edge of vLLM's buckets: nothing is open
        assert found[f'within_target_total{{bound="{bound}",{ttft}}}'] == 9
        assert found[f'attainment_ratio{{bound="{bound}",{ttft}}}'] == pytest.approx(0.9)
        assert f'attainment_ratio{{bound="{bound}",{tpot}}}' not in found  # none of that came
    assert found[f"requests_total{{{tpot}}}"] == 0
    assert found[f"required_ratio{{{ttft}}}"] == 0.99
    assert {found[f'blind{{reason="{reason}",study="s"}}'] for reason in Blind} == {0}


@pytest.mark.slow
def test_a_target_inside_a_bucket_has_a_share_between_two(decided: Store, tmp_path: Path) -> None:
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    asked = document({**CHANGES, "slo": [{"metric": "ttft", "percentile": 90, "ms": 200}]})
    client_of(store, tmp_path).post("/v1/studies", json=STUDY | {"name": "s", "request": asked})
    work(store, tmp_path)
    one = winner(RECORDED, later(RECORDED, 10, 3))
    one.look(store, 0.0)
    one.look(store, EVERY_S)
    found = {key.split('"')[1]: value for key, value in shown(store, tmp_path, one).items() if "attainment" in key}
    assert found == pytest.approx({"least": 0.7, "likely": 0.7 + 0.3 * 2 / 3, "most": 1.0})
    store.close()


@pytest.mark.slow
def test_the_last_minutes_forget_what_was_before(decided: Store, tmp_path: Path) -> None:
    texts = [later(RECORDED, 10 * look, 10) for look in range(1, 30)]  # the first ten were slow, and none since
    one = winner(RECORDED, *texts)
    for look in range(len(texts) + 1):
        one.look(decided, look * EVERY_S)
        share = ((one.seen.recent or {})[decided.study("s").request.slo[0].key].shares or {}).get("likely")
        if look == 0:
            assert share is None  # nobody knows of what came before
        elif look * EVERY_S < RECENT_S + EVERY_S:
            assert share == pytest.approx(1 - 1 / look)
        else:
            assert share == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "reason", "words"),
    [
        ((None,), Blind.UNREACHABLE, "cannot be read"),
        (("",), Blind.NO_METRICS, "shows no latencies"),
        ((RECORDED.replace('"tiny"', '"other"'),), Blind.OTHER_MODEL, "serves other, not tiny"),
        ((RECORDED.replace("request_time_per_output_token", "new_name"),), Blind.NO_METRICS, ""),
    ],
)
def test_blind_says_why_and_nothing_that_it_does_not_know(
    texts: tuple[str | None, ...], reason: Blind, words: str, decided: Store, tmp_path: Path
) -> None:
    one = winner(*texts)
    one.look(decided, 0.0)
    assert one.seen.blind == {reason}
    assert words in one.seen.why
    found = shown(decided, tmp_path, one)
    assert found[f'blind{{reason="{reason}",study="s"}}'] == 1
    assert not [name for name in found if name.startswith("attainment")]


@pytest.mark.slow
def test_whoever_becomes_blind_forgets_no_count_and_tells_no_share(decided: Store, tmp_path: Path) -> None:
    one = winner(RECORDED, later(RECORDED, 10, 0), None, later(RECORDED, 30, 0))
    for look in range(3):
        one.look(decided, look * EVERY_S)
    found = shown(decided, tmp_path, one)
    assert not [name for name in found if name.startswith("attainment")]
    requests = 'requests_total{metric="ttft",percentile="99",study="s"}'
    assert found[requests] == 10
    one.look(decided, 3 * EVERY_S)
    assert shown(decided, tmp_path, one)[requests] == 30


@pytest.mark.slow
def test_one_address_of_several_may_have_no_engine_but_must_answer(decided: Store) -> None:
    idle = winner(RECORDED, "up 1\n", urls=("http://a", "http://b"))
    idle.look(decided, 0.0)
    assert idle.seen.blind == set()
    gone = winner(RECORDED, None, urls=("http://a", "http://b"))
    gone.look(decided, 0.0)
    assert gone.seen.blind == {Blind.UNREACHABLE}
    assert gone.seen.recent is not None


@pytest.mark.slow
@pytest.mark.parametrize(("study", "words"), [("nobody", "there is no study"), ("waits", "has no winner")])
def test_without_a_winner_no_address_is_read(study: str, words: str, decided: Store, tmp_path: Path) -> None:
    one = winner(study=study)
    one.look(decided, 0.0)
    assert one.seen.blind == {Blind.NO_WINNER}
    assert words in one.seen.why
    assert set(shown(decided, tmp_path, one)) == {f'blind{{reason="{r}",study="{study}"}}' for r in Blind}


@pytest.mark.slow
def test_a_store_that_is_down_ends_no_watch(decided: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = winner(RECORDED, later(RECORDED, 10, 0)), winner()
    one.look(decided, 0.0)

    def down(_: str) -> None:
        raise StoreError("the store is down")

    monkeypatch.setattr(decided.listing, "state", down)
    one.look(decided, EVERY_S)
    other.look(decided, EVERY_S)
    assert one.seen.blind == set()
    assert (other.seen.blind, other.seen.why) == ({Blind.NO_WINNER}, "the store is down")


@pytest.mark.slow
def test_a_study_that_is_deleted_meanwhile_ends_no_watch(decided: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one = winner(study="gone")
    monkeypatch.setattr(decided.listing, "state", lambda _: StudyState.DECIDED)
    one.look(decided, 0.0)
    assert one.seen.blind == {Blind.NO_WINNER}
    assert "gone" in one.seen.why


# Over HTTP


@pytest.mark.slow
def test_winners_are_watched_while_the_service_runs(decided: Store, engine: tuple[str, type[Engine]]) -> None:
    url, kind = engine
    said: list[str] = []
    places = deployed_at([f"s={url}", f"waits={url}"])
    winners = DeployedWinners(
        decided, (DeployedWinner(study, urls) for study, urls in places.items()), said.append, every_s=0.01
    )
    with winners:
        until = time.monotonic() + 20
        while winners.seen[0].blind and time.monotonic() < until:
            time.sleep(0.01)
        kind.text = later(RECORDED, 10, 0)
        while not any(one.total for one in (winners.seen[0].counts or {}).values()) and time.monotonic() < until:
            time.sleep(0.01)
        kind.text = ""
        while not winners.seen[0].blind and time.monotonic() < until:
            time.sleep(0.01)
    assert winners.seen[0].counts
    assert max(one.total for one in winners.seen[0].counts.values()) == 10
    assert said == [
        "parlay: the deployed winner of waits: study waits has no winner",
        f"parlay: the deployed winner of s: {url}/metrics shows no latencies of vLLM's",
    ]
    assert not [thread for thread in threading.enumerate() if thread.name == "deployed"]


@pytest.mark.slow
def test_nobody_is_led_to_another_address(decided: Store, engine: tuple[str, type[Engine]]) -> None:
    url, kind = engine
    one = DeployedWinner("s", (f"{url}/metrics",))
    kind.elsewhere = url.replace("127.0.0.1", "localhost") + "/other"
    one.look(decided, 0.0)
    assert (one.seen.blind, one.seen.why) == ({Blind.UNREACHABLE}, f"{url}/metrics answers with status 302")
    kind.elsewhere = "/other"
    one.look(decided, EVERY_S)
    assert one.seen.blind == set()


@pytest.mark.slow
def test_a_study_that_cannot_be_read_any_more_ends_nothing(tmp_path: Path) -> None:
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    client_of(store, tmp_path).post("/v1/studies", json=STUDY | {"name": "old"})
    with sa.create_engine(store.url).begin() as db:
        db.execute(sa.update(STUDIES).values(request='{"of": "an older Parlay"}'))
    looking = DeployedWinner("old", (URL,))
    looking.look(store, 0.0)
    assert looking.seen.blind == {Blind.NO_WINNER}
    assert "study old cannot be read" in looking.seen.why
    store.close()
