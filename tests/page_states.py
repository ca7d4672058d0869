"""Every state in which the page can be seen: what is looked at by eye, by axe and by Lighthouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fakes import document
from tests.page_service import WIDE, PageService, until
from tests.watched_study import watched
from tuner.errors import FailureReason
from tuner.study.accounts import Scope
from tuner.study.orders import Wish

Page = Any  # of Playwright, which a plain installation does not have
BROKEN = "tp=4,pp=1,dp=2,max_num_seqs=32"  # a layout of WIDE that is worth a launch
FAILURES = {BROKEN: FailureReason.ENGINE_CRASHED}
TOKEN = "token"  # of what is kept for the service that asks for one


@dataclass(frozen=True, slots=True)
class Services:
    """A service with studies of every state, one of which runs; one without any; and one that asks for a token."""

    full: PageService
    empty: PageService
    closed: PageService
    secret: str


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """All three."""
    made = []
    for name in ("full", "empty", "closed"):
        (folder / name).mkdir(parents=True)
        made.append(PageService(folder / name, open_to_all=name != "closed"))
    full, empty, closed = made
    try:
        for name in ("decided", "running"):
            full.submit(name, WIDE)
            if name == "decided":
                full.run(name, FAILURES)
        hopeless = {"space": {"tp": [1, 2]}, "slo.0.ms": 3, "budget.launches": 2}
        full.submit("hopeless", hopeless)
        with full.half_way("running", 2, FAILURES):
            full.work()
            for name in ("cancelled", "paused", "queued"):
                full.submit(name, WIDE)
            full.store.orders.ask("cancelled", Wish.CANCEL)
            full.store.orders.ask("paused", Wish.PAUSE)
            _, secret = closed.store.accounts.create("someone", Scope.TUNE)
            yield Services(full, empty, closed, secret)
    finally:
        for service in made:
            service.close()


def go(page: Page, service: PageService, where: str = "") -> None:
    """Open a place of the page afresh."""
    page.goto("about:blank")
    page.goto(f"{service.url}#/{where}")


def settled(page: Page, expression: str) -> None:
    """Wait until it holds; the page's policy forbids what Playwright itself would wait with."""
    until(lambda: page.evaluate(expression), expression)


def drawn(page: Page, *figures: str) -> None:
    """Wait until these charts are there."""
    for name in figures:
        page.wait_for_selector(f"[data-figure='{name}'] svg.main-svg")


def form(page: Page, service: PageService, changes: dict[str, Any] | None = None) -> None:
    """The form, with the tests' request and changes to it."""
    go(page, service, "ask")
    settled(page, "document.getElementById('yaml')?.value.length > 10")
    page.fill("#yaml", yaml.safe_dump(document(changes or {}), sort_keys=False))
    settled(page, "document.getElementById('f-workload.output_tokens.mean').value === '16'")


def _wrong(page: Page, service: PageService) -> None:
    form(page, service)
    page.fill("[id='f-slo.0.ms']", "-5")
    page.press("[id='f-slo.0.ms']", "Tab")
    page.wait_for_selector("[id='f-slo.0.ms'][aria-invalid=true]")


def _wrong_yaml(page: Page, service: PageService) -> None:
    form(page, service)
    page.fill("#yaml", "model: [")
    page.wait_for_selector("#yaml[aria-invalid=true]")


def _planned(page: Page, service: PageService) -> None:
    form(page, service, WIDE)
    page.click("text=Show the plan")
    page.wait_for_selector("td >> text=yes")


def _infeasible(page: Page, service: PageService) -> None:
    form(page, service, {"slo.0.ms": 1})
    page.click("text=Show the plan")
    page.wait_for_selector("button:has-text('a target of')")


def _running(page: Page, service: PageService) -> None:
    go(page, service, "studies/running")
    page.wait_for_selector(".state.running")
    drawn(page, "funnel", "load-ttft-p99")


def _decided(page: Page, service: PageService) -> None:
    go(page, service, "studies/decided")
    page.wait_for_selector(".state.decided")
    drawn(page, "funnel", "ranks", "load-ttft-p99", "front")
    page.wait_for_selector(".bar")


def _hopeless(page: Page, service: PageService) -> None:
    go(page, service, "studies/hopeless")
    page.wait_for_selector(".state.decided")
    page.wait_for_selector("text=No measured layout meets the SLO")


def _log(page: Page, service: PageService) -> None:
    _decided(page, service)
    page.click("li:has-text('engine crashed') >> button")
    page.wait_for_selector("li pre:visible")


def _stands(name: str) -> Callable[[Page, PageService], None]:
    def open_it(page: Page, service: PageService) -> None:
        go(page, service, f"studies/{name}")
        page.wait_for_selector(f".state.{name}")

    return open_it


def _sure(page: Page, service: PageService) -> None:
    _stands("queued")(page, service)
    page.click("button:has-text('Cancel')")
    page.wait_for_selector("dialog[open]")


def _list(page: Page, service: PageService) -> None:
    go(page, service)
    page.wait_for_selector("td >> text=decided")


def _empty(page: Page, service: PageService) -> None:
    go(page, service)
    page.wait_for_selector("text=Nobody has asked for anything yet")


def _missing(page: Page, service: PageService) -> None:
    go(page, service, "studies/none")
    page.wait_for_selector("text=there is no study none")


def _disconnected(page: Page, service: PageService) -> None:
    _stands("queued")(page, service)
    page.wait_for_selector("text=Waiting for a worker")
    service.stop()
    try:
        page.wait_for_selector("text=The line to the service is broken")
    finally:
        service.start()


def _token(page: Page, service: PageService) -> None:
    go(page, service)
    page.wait_for_selector("#token")


def _wrong_token(page: Page, service: PageService) -> None:
    _token(page, service)
    page.fill("#token", "wrong")
    page.press("#token", "Enter")
    page.wait_for_selector("[role=alert]:has-text('unknown, expired or revoked')")


def _deployed(page: Page, service: PageService) -> None:
    watched(service, "decided")
    go(page, service, "studies/decided")
    page.wait_for_selector("#deployed")
    page.wait_for_selector("button:has-text('Approve')")
    drawn(page, "timeline")


STATES: dict[str, tuple[str, Callable[[Page, PageService], None]]] = {
    "empty list": ("empty", _empty),
    "list": ("full", _list),
    "form": ("full", form),
    "wrong field": ("full", _wrong),
    "wrong yaml": ("full", _wrong_yaml),
    "plan": ("full", _planned),
    "infeasible": ("full", _infeasible),
    "queued": ("full", _stands("queued")),
    "running": ("full", _running),
    "paused": ("full", _stands("paused")),
    "cancelled": ("full", _stands("cancelled")),
    "decided": ("full", _decided),
    "hopeless": ("full", _hopeless),
    "log": ("full", _log),
    "deployed": ("full", _deployed),
    "sure": ("full", _sure),
    "no such study": ("full", _missing),
    "token": ("closed", _token),
    "wrong token": ("closed", _wrong_token),
    "disconnected": ("full", _disconnected),
}


def show(page: Page, state: str, made: Services) -> None:
    """Bring the page into a state."""
    which, bring = STATES[state]
    bring(page, getattr(made, which))
