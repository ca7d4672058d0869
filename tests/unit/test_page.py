"""The page in a real browser: ask, watch, decide, steer; a wrong form, a token, a lost line; a phone, keys alone."""

from __future__ import annotations

import pytest
import yaml

from tests.browser import PHONE, chromium, opened
from tests.fakes import document, make_request
from tests.page_service import WIDE, PageService
from tests.page_states import FAILURES, drawn, go, settled
from tuner.study.accounts import Scope
from tuner.study.lifecycle import StudyState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LONG = {"space": {"tp": [1, 2], "max_num_batched_tokens": [16384]}, "budget.launches": 2}
FOCUS_SEEN = "(s => s.outlineStyle !== 'none')(getComputedStyle(document.activeElement))"
WANTED = yaml.safe_dump(document(LONG), sort_keys=False)


@pytest.fixture
def service(tmp_path):
    running = PageService(tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        if found is None:
            pytest.skip("no Chromium on PATH")
        yield found


def asked(page, text=WANTED):
    page.goto(page.url.partition("#")[0] + "#/ask")
    settled(page, "document.getElementById('yaml')?.value.length > 10")
    page.fill("#yaml", text)
    settled(page, "document.getElementById('f-budget.launches').value === '2'")


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
        page.wait_for_selector("text=What could still win")
        page.wait_for_selector("[data-figure=ranks] svg")
        page.wait_for_selector(".bar")
        page.wait_for_selector("text=no spec of it ever ran")
        assert page.query_selector(".banner") is not None
        page.click("nav >> text=Studies")
        page.wait_for_selector("td >> text=decided")


def test_form_and_yaml_are_one_request(service, browser):
    with opened(browser, service.url) as page:
        asked(page)
        page.select_option("[id='f-objective']", "max_goodput")
        settled(page, "document.getElementById('yaml').value.includes('objective: max_goodput')")
        page.click("text=Add a target")
        settled(page, "document.getElementById('yaml').value.includes('metric: e2e')")
        page.click("[aria-label='Remove target 3']")
        settled(page, "!document.getElementById('yaml').value.includes('metric: e2e')")


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
        settled(page, "!document.querySelector('[aria-invalid]')")


def test_what_would_do_is_a_button_that_fills_the_form(service, browser):
    with opened(browser, service.url) as page:
        asked(page, WANTED.replace("ms: 100", "ms: 1"))
        page.click("text=Show the plan")
        page.click("button:has-text('a target of')")
        settled(page, "Number(document.getElementById('f-slo.0.ms').value) > 1")
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
        settled(page, "!document.getElementById('line').textContent")


def test_a_service_with_tokens_asks_for_one(tmp_path, browser):
    service = PageService(tmp_path, open_to_all=False)
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
        service.close()


def test_a_token_that_ends_while_a_study_is_watched_is_told(tmp_path, browser, monkeypatch):
    monkeypatch.setattr("tuner.app.service.watching.SILENT_S", 0.2)
    service = PageService(tmp_path, open_to_all=False)
    token, secret = service.store.accounts.create("someone", Scope.TUNE)
    try:
        with opened(browser, service.url) as page:
            page.fill("#token", secret)
            page.press("#token", "Enter")
            page.wait_for_selector("text=Nobody has asked for anything yet")
            asked(page)
            page.click("text=Start the study")
            page.wait_for_selector("text=Waiting for a worker")
            service.store.accounts.revoke(token.id)
            page.wait_for_selector("text=unknown, expired or revoked")
    finally:
        service.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(service, browser, scheme):
    with opened(browser, service.url, width=PHONE, color_scheme=scheme, is_mobile=True) as page:
        asked(page)
        page.fill("#f-name", "mine")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
        page.click("text=Start the study")
        page.wait_for_selector(".state.queued")
        service.work()
        page.wait_for_selector("[data-figure=ranks] svg")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
        page.goto(f"{service.url}#/")
        page.wait_for_selector("td >> text=decided")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


def press_until(page, expression, most=60):
    """Press Tab until the focus is there; it is seen wherever it comes by."""
    for _ in range(most):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS_SEEN), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate(f"(e => {expression})(document.activeElement)"):
            return
    raise AssertionError(expression)


def test_the_keyboard_alone_goes_from_the_token_to_a_started_study(tmp_path, browser):
    service = PageService(tmp_path, open_to_all=False)
    _, secret = service.store.accounts.create("someone", Scope.TUNE)
    try:
        with opened(browser, service.url) as page:
            page.wait_for_selector("#token")
            press_until(page, "e.textContent === 'Skip to the content'", 1)
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.id") == "main"
            press_until(page, "e.id === 'token'", 1)
            page.keyboard.type(secret)
            page.keyboard.press("Enter")
            page.wait_for_selector("text=Nobody has asked for anything yet")
            press_until(page, "e.getAttribute('href') === '#/ask'")
            page.keyboard.press("Enter")
            settled(page, "document.getElementById('yaml')?.value.length > 10")
            press_until(page, "e.id === 'f-slo.0.ms'")
            page.keyboard.press("Control+a")
            page.keyboard.type("700")
            press_until(page, "e.id === 'f-name'")
            settled(page, "document.getElementById('yaml').value.includes('ms: 700')")
            page.keyboard.type("by-keys")
            press_until(page, "e.textContent === 'Start the study'", 1)
            page.keyboard.press("Enter")
            page.wait_for_selector(".state.queued")
            assert page.evaluate("document.activeElement.id") == "main"
            press_until(page, "e.textContent === 'Cancel'")
            page.keyboard.press("Enter")
            page.wait_for_selector("dialog[open]")
            page.keyboard.press("Escape")
            settled(page, "!document.querySelector('dialog')")
            assert page.evaluate("document.activeElement.textContent") == "Cancel"
        assert service.store.study("by-keys").request.slo[0].ms == 700
    finally:
        service.close()


def test_progress_is_told_to_who_hears_the_page(service, browser):
    service.submit("wide", WIDE)
    with service.half_way("wide", 0), opened(browser, service.url) as page:
        go(page, service, "studies/wide")
        page.wait_for_selector("[aria-live=polite]:has-text('Trial 1 at')")
        assert page.get_attribute("progress", "aria-label") == "Trial 1: how far it is"
        assert page.query_selector("text=Chosen: the likeliest to be best") is not None


def test_a_study_that_waits_for_anothers_devices_says_so(service, browser):
    service.submit("wide", WIDE)
    told = {"layout": "tp=4,pp=1,dp=1", "devices": 4, "text": "waits for 4 devices held by first"}
    with opened(browser, service.url) as page:
        go(page, service, "studies/wide")
        service.store.events.tell("wide", "waiting", told | {"held_by": ["first"], "after": []})
        page.wait_for_selector(".at-work >> text=waits for 4 devices held by first")


MOTION = """() => {
  const waits = Object.assign(document.createElement("p"), { className: "skeleton", textContent: "Loading…" });
  document.querySelector("main").append(waits);
  return getComputedStyle(waits).animationName;
}"""


def test_who_wants_no_motion_sees_none(service, browser):
    with opened(browser, service.url, reduced_motion="reduce") as page:
        page.wait_for_selector("td.empty")
        assert page.evaluate(MOTION) == "none"
    with opened(browser, service.url) as page:
        page.wait_for_selector("td.empty")
        assert page.evaluate(MOTION) == "breathe"


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


def test_a_failed_trial_says_why_and_shows_the_end_of_its_log(service, browser):
    service.submit("wide", WIDE)
    service.run("wide", FAILURES)
    with opened(browser, service.url) as page:
        go(page, service, "studies/wide")
        page.wait_for_selector(".fate.failed >> text=engine crashed")
        page.click("li:has(.fate.failed) >> button")
        page.wait_for_selector("pre:visible >> text=fails to start: engine_crashed")
        page.click("li:has(.fate.failed) >> button")
        page.wait_for_selector("pre:visible", state="detached")
        drawn(page, "ranks", "front", "belief", "belief-objective")


def test_a_study_without_a_winner_offers_what_would_do(service, browser):
    service.submit("hopeless", {"space": {"tp": [1, 2]}, "slo.0.ms": 3, "budget.launches": 2})
    service.work()
    with opened(browser, service.url) as page:
        go(page, service, "studies/hopeless")
        page.click("button:has-text('a target of')")
        settled(page, "Number(document.getElementById('f-slo.0.ms')?.value) > 3")
        settled(page, "!document.querySelector('[aria-invalid]')")


CHANGES = [
    ({"kind": "slo", "what": "all", "value": 1.5}, "r.slo.map(one => one.ms)", [150, 75]),
    ({"kind": "slo", "what": "ttft p99", "value": 123.2}, "r.slo.map(one => one.ms)", [124, 50]),
    ({"kind": "rate", "what": "requests_per_s", "value": 3.456}, "r.workload.arrival.requests_per_s", 3.45),
    ({"kind": "slo_and_rate", "what": "tpot p99", "value": 60, "rate_req_per_s": 4},
     "[r.slo[1].ms, r.workload.arrival.requests_per_s]", [60, 4]),
    ({"kind": "nodes", "what": "h100_sxm", "value": 3}, "r.cluster.nodes", 3),
    ({"kind": "gpus_per_node", "what": "h100_sxm", "value": 16}, "r.cluster.gpus_per_node", 16),
    ({"kind": "link", "what": "inter_node_gb_per_s", "value": 100}, "r.cluster.inter_node_gb_per_s", 100),
]  # fmt: skip


SPEC = 'applications:\n- name: "llama <1>"\n'


def of_real_engines(page):
    """Have the service tell of the same study as if engines had run, and of one spec that this layout cannot be."""

    def decision(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"simulated": False})

    def spec(route):
        if route.request.url.endswith("/helm-values"):
            route.fulfill(status=409, json={"detail": "not this layout"}, content_type="application/problem+json")
        else:
            route.fulfill(body=SPEC, content_type="text/plain")

    page.route("**/v1/studies/mine/decision", decision)
    page.route("**/v1/studies/mine/specs/*", spec)


def test_a_spec_of_the_winner_is_copied_and_downloaded_with_one_click(service, browser):
    service.submit("mine", LONG)
    service.work()
    with opened(browser, service.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        of_real_engines(page)
        go(page, service, "studies/mine")
        page.click("[aria-label='Copy the KubeRay RayService']")
        page.wait_for_selector("[role=status]:has-text('KubeRay RayService is copied.')")
        assert page.evaluate("navigator.clipboard.readText()") == SPEC
        with page.expect_download() as download:
            page.click("[aria-label='Download the KubeRay RayService']")
        assert download.value.suggested_filename == "mine-rayservice.yaml"
        assert download.value.path().read_text() == SPEC
        page.wait_for_selector("text=Helm values: not this layout")
        page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))")  # as without TLS
        page.click("[aria-label='Copy the vLLM command line']")
        page.wait_for_selector("[role=status]:has-text('vLLM command line is selected: copy it with your keys.')")
        assert page.evaluate("getSelection().toString()").strip() == SPEC.strip()


def test_every_change_that_a_request_can_say_is_put_into_it(service, browser):
    script = "async ([c, d]) => { const {applied} = await import('/assets/remedies.js'); applied(c)(d); return d; }"
    with opened(browser, service.url) as page:
        for change, look, expected in CHANGES:
            changed = page.evaluate(script, [change, document()])
            assert page.evaluate(f"r => {look}", changed) == expected, change


def test_what_the_form_cannot_say_stays_as_it_was_written(service, browser):
    with opened(browser, service.url) as page:
        asked(page)
        assert page.input_value("[id='f-objective']") == ""
        assert page.input_value("[id='f-space']") == "(as in the YAML)"
        page.select_option("[id='f-objective']", "min_cost")
        settled(page, "document.getElementById('yaml').value.includes('min_cost')")
        assert "max_num_batched_tokens" in page.input_value("#yaml")
        page.select_option("[id='f-space']", "dense")
        settled(page, "document.getElementById('yaml').value.includes('space: dense')")
