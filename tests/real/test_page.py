"""The page on real vLLM: asked for in the form, watched, decided, and a spec of what was served downloaded."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium, opened
from tests.page_service import until
from tests.page_states import settled
from tests.real.test_tune import REPO, free_port, processes_of, request_file

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.tools, pytest.mark.timeout(600)]
DECIDED_MS = 400_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    """``parlay serve`` with one worker that starts engines without Ray; ended as an operator does."""
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    request_file(folder, tiny_model)
    words = [sys.executable, "-m", "tuner.app.cli.commands", "serve", "--no-auth", "--launchers", "local"]
    words += ["--store", f"sqlite:///{folder}/store.db", "--out", str(folder / "out"), "--port", str(port)]
    words += ["--root", str(tiny_model.resolve().parent)]
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=REPO, stdout=output, stderr=output)
    try:
        until(lambda: process.poll() is not None or b"serving http" in log.read_bytes(), "it never answered")
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}/", folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        print(log.read_text()[-3000:])
    assert processes_of(folder) == []


def test_from_the_form_to_a_spec_of_what_was_measured(service: tuple[str, Path], tiny_model: Path) -> None:
    url, folder = service
    with chromium() as browser:
        if browser is None:
            pytest.skip("no Chromium on PATH")
        with opened(browser, f"{url}#/ask", accept_downloads=True) as page:
            settled(page, "document.getElementById('yaml')?.value.length > 10")
            page.fill("#yaml", (folder / "request.yaml").read_text())
            settled(page, "document.getElementById('f-budget.launches').value === '2'")
            settled(page, "!document.querySelector('[aria-invalid]')")
            page.fill("#f-name", "real")
            page.click("text=Start the study")
            page.wait_for_selector(".state.running", timeout=DECIDED_MS)
            page.wait_for_selector(".state.decided", timeout=DECIDED_MS)
            page.wait_for_selector("h1:has-text('wins')")
            told = [banner.inner_text() for banner in page.query_selector_all(".banner")]
            assert not [text for text in told if "Simulated" in text]  # that a CPU's kernels are estimates is told
            with page.expect_download() as downloading:
                page.click("[aria-label='Download the vLLM command line']")
            command = Path(downloading.value.path()).read_text()
            page.click("li:has-text('Trial 1') >> button")
            page.wait_for_selector("pre:visible >> text=vLLM")
    assert str(tiny_model.resolve()) in command
