"""No state of the page breaks a rule that axe knows: in light and dark, and on a phone, where nothing is too wide."""

from __future__ import annotations

import pytest

from tests.browser import PHONE, chromium, opened, violations
from tests.page_states import STATES, services, show

pytestmark = [pytest.mark.slow, pytest.mark.tools, pytest.mark.timeout(240)]
LOOKS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": {"width": PHONE, "is_mobile": True}}

# Every part of the page is in one of these; CI has no time for the other states, which share their parts.
SOON = {"empty list", "list", "wrong field", "plan", "infeasible", "running", "decided", "deployed", "wrong token"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        if found is None:
            pytest.skip("no Chromium on PATH")
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with services(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.mark.parametrize(
    "state", [pytest.param(state, marks=() if state in SOON else pytest.mark.long) for state in STATES]
)
def test_axe_finds_nothing(state, made, browser):
    """In the dark the colours alone are others; what is narrow is laid out anew."""
    with opened(browser, "about:blank") as page:
        show(page, state, made)
        assert violations(page) == []
        page.emulate_media(**LOOKS["dark"])
        drawn(page)
        assert violations(page, colours_alone=True) == []
        page.emulate_media(color_scheme="light")
        phone = {"width": PHONE, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        page.context.new_cdp_session(page).send("Emulation.setDeviceMetricsOverride", phone)
        drawn(page)
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


def drawn(page):
    """Wait until a change of how it looks is on the screen."""
    page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


@pytest.mark.parametrize("look", LOOKS)
def test_what_loads_can_be_read_at_its_faintest(look, made, browser):
    with opened(browser, "about:blank", **LOOKS[look]) as page:
        show(page, "empty list", made)
        page.evaluate(
            """() => {
              const waits = document.createElement("p");
              waits.className = "skeleton";
              waits.textContent = "Loading…";
              waits.style.cssText = "animation: none; opacity: .75";
              document.querySelector("main").append(waits);
            }"""
        )
        assert violations(page) == []


def test_axe_finds_what_is_wrong(browser):
    with opened(browser, "about:blank") as page:
        page.set_content("<img src='data:,'><input>")
        assert {one.partition(":")[0] for one in violations(page)} >= {"image-alt", "label"}
