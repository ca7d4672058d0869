"""The page in a real browser: ask, watch, decide, steer; a wrong form, a token, a lost line; a phone, keys alone."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import yaml

from tests import tools
from tests.fakes import copy_of_empty_store, document, make_request
from tuner.app.service.application import application
from tuner.app.service.server import Server
from tuner.app.service.service import Settings
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.errors import Cause
from tuner.study.accounts import Scope
from tuner.study.lifecycle import StudyState
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LONG = {"space": {"tp": [1, 2], "max_num_batched_tokens": [16384]}, "budget.launches": 2}
WANTED = yaml.safe_dump(document(LONG), sort_keys=False)


class Running:
    """A service on loopback that can be stopped and started again, and a worker that works when it is told to."""

    def __init__(self, folder, open_to_all=True):
        self.store = Store(copy_of_empty_store(folder / "store.db"))
        self._folder, self._open, self.port = folder, open_to_all, 0
        self.start()

    def start(self):
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        app = application(self.store, Settings(("simulated",), self._folder / "out"), open_to_all=self._open)
        self._stop = CancelHandle()
        self._thread = threading.Thread(target=Server(app, listening).run, args=(self._stop,))
        self._thread.start()

    def stop(self):
        self._stop.cancel(Cause.SHUTDOWN)
        self._thread.join()

    def work(self):
        settings = WorkerSettings(("simulated",), None, self._folder / "out")
        return Worker(self.store, settings, CancelHandle()).run(until_idle=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
def service(tmp_path):
    running = Running(tmp_path)
    yield running
    running.stop()
    running.store.close()


@pytest.fixture(scope="module")
def browser():
    found = tools.chromium()
    if found is None:
        pytest.skip("no Chromium on PATH")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(found), args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def opened(browser, url, width=1280, **options):
    """A page that complains of nothing."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page, complaints = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
    page.goto(url)
    yield page
    context.close()
    assert complaints == []


def until(page, expression):
    """Wait until it holds; the page's policy forbids what Playwright itself would wait with."""
    ends = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < ends, expression
        page.wait_for_timeout(100)


def asked(page, text=WANTED):
    page.goto(page.url.partition("#")[0] + "#/ask")
    until(page, "document.getElementById('yaml')?.value.length > 10")
    page.fill("#yaml", text)
    until(page, "document.getElementById('f-budget.launches').value === '2'")


def test_from_the_question_to_the_decision(service, browser):
    with opened(browser, service.url) as page:
        page.wait_for_selector("text=Nobody has asked for anything yet")
        asked(page)
        page.fill("#f-name", "mine")
        page.click("text=Start the study")
        page.wait_for_selector(".state.queued")
        page.wait_for_selector("text=Waiting for a worker")
        assert service.work() == 1
        page.wait_for_selector(".state.decided")
        page.wait_for_selector("h1:has-text('wins')")
        page.wait_for_selector("[data-figure=ranks] svg")
        page.wait_for_selector(".bar")
        page.wait_for_selector("text=was simulated: no spec of it ever ran")
        assert page.query_selector(".banner") is not None
        page.click("nav >> text=Studies")
        page.wait_for_selector("td >> text=decided")


def test_form_and_yaml_are_one_request(service, browser):
    with opened(browser, service.url) as page:
        asked(page)
        page.select_option("[id='f-objective']", "max_goodput")
        until(page, "document.getElementById('yaml').value.includes('objective: max_goodput')")
        page.click("text=Add a target")
        until(page, "document.getElementById('yaml').value.includes('metric: e2e')")
        page.click("[aria-label='Remove target 3']")
        until(page, "!document.getElementById('yaml').value.includes('metric: e2e')")


def test_what_is_wrong_is_said_at_its_field(service, browser):
    with opened(browser, service.url) as page:
        asked(page)
        page.fill("[id='f-slo.0.ms']", "-5")
        page.press("[id='f-slo.0.ms']", "Tab")
        page.wait_for_selector("[id='f-slo.0.ms'][aria-invalid=true]")
        assert "greater than 0" in page.inner_text("[id='f-slo.0.ms-wrong']")
        assert page.is_disabled("text=Start the study")
        page.fill("#yaml", "model: [")
        page.wait_for_selector("#yaml[aria-invalid=true]")
        page.fill("#yaml", WANTED)
        page.wait_for_selector("text=Start the study >> visible=true")
        until(page, "!document.querySelector('[aria-invalid]')")


def test_what_would_do_is_a_button_that_fills_the_form(service, browser):
    with opened(browser, service.url) as page:
        asked(page, WANTED.replace("ms: 100", "ms: 1"))
        page.click("text=Show the plan")
        page.click("button:has-text('a target of')")
        until(page, "Number(document.getElementById('f-slo.0.ms').value) > 1")
        page.click("text=Show the plan")
        page.wait_for_selector("td >> text=yes")


def test_a_study_is_paused_resumed_and_cancelled(service, browser):
    with opened(browser, service.url) as page:
        asked(page)
        page.click("text=Start the study")
        page.click("button:has-text('Pause')")
        page.wait_for_selector(".state.paused")
        page.click("button:has-text('Resume')")
        page.wait_for_selector(".state.queued")
        page.click("button:has-text('Cancel')")
        page.click("dialog >> text=No")
        page.click("button:has-text('Cancel')")
        page.click("dialog >> text=Yes")
        page.wait_for_selector(".state.cancelled")
        assert service.store.listing.counts()[StudyState.CANCELLED] == 1


def test_a_lost_connection_is_said_and_taken_up_again(service, browser):
    with opened(browser, service.url) as page:
        asked(page)
        page.fill("#f-name", "mine")
        page.click("text=Start the study")
        page.wait_for_selector("text=Waiting for a worker")
        service.stop()
        page.wait_for_selector("text=The line to the service is broken")
        service.work()
        service.start()
        page.wait_for_selector(".state.decided")
        until(page, "!document.getElementById('line').textContent")


def test_a_service_with_tokens_asks_for_one(tmp_path, browser):
    service = Running(tmp_path, open_to_all=False)
    _, secret = service.store.accounts.create("someone", Scope.TUNE)
    try:
        with opened(browser, service.url) as page:
            page.fill("#token", "wrong")
            page.press("#token", "Enter")
            page.wait_for_selector("[role=alert]:has-text('unknown, expired or revoked')")
            page.fill("#token", secret)
            page.press("#token", "Enter")
            page.wait_for_selector("text=Nobody has asked for anything yet")
    finally:
        service.stop()
        service.store.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(service, browser, scheme):
    with opened(browser, service.url, width=390, color_scheme=scheme, is_mobile=True) as page:
        asked(page)
        page.fill("#f-name", "mine")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("text=Start the study")
        page.wait_for_selector(".state.queued")
        service.work()
        page.wait_for_selector("[data-figure=ranks] svg")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.goto(f"{service.url}#/")
        page.wait_for_selector("td >> text=decided")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_alone_will_do(service, browser):
    with opened(browser, service.url) as page:
        page.wait_for_selector("text=Nobody has asked for anything yet")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.tagName")
        assert focused in ("SELECT", "DIV", "A")


def test_what_does_not_exist_is_said(service, browser):
    with opened(browser, f"{service.url}#/studies/none") as page:
        page.wait_for_selector("text=there is no study none")
        page.goto(f"{service.url}#/nothing")
        page.wait_for_selector("text=There is no such page")


def test_a_name_is_never_read_as_html(service, browser):
    service.store.create_study("<img src=x onerror=alert(1)>", make_request(), {})
    with opened(browser, service.url) as page:
        page.wait_for_selector("text=<img src=x")
        assert page.query_selector("img") is None
