"""The page in a real browser, and what axe finds wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests import tools

Browser = Any  # of Playwright, which a plain installation does not have
Page = Any
PHONE, DESKTOP = 390, 1280  # widths
# What WCAG 2.2 asks at levels A and AA, and what axe counts as good practice.
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_COLOURS = ["color-contrast", "link-in-text-block"]  # the rules that a change of colours may break


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """Debian's Chromium without a window; None where it, or what drives it, is not here."""
    found = tools.chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        yield None
        return
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(found), args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def opened(browser: Browser, url: str, width: int = DESKTOP, **options: Any) -> Iterator[Page]:
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


def violations(page: Page, colours_alone: bool = False) -> list[str]:
    """What axe finds wrong: the rule, and where. It comes by the debugger, as the page's policy allows its own scripts
    alone."""
    page.evaluate(tools.axe().read_text(encoding="utf-8"))
    only = {"type": "rule", "values": _COLOURS} if colours_alone else {"type": "tag", "values": _RULES}
    found = page.evaluate("only => axe.run({runOnly: only})", only)
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]
