"""How fast the page is there, and what Lighthouse and axe say of it.

    python -m tests.benchmarks.page_quality [--runs 3]

Lighthouse 12.2.3 opens four places of the page in Debian's Chromium, as a desktop on loopback without throttling; its
figures are medians over the runs. First contentful paint is to be at most 1 s, accessibility and best practices at
least 95. axe counts what is wrong in every state of the page, in light, in dark and on a phone: nothing is to be.
The service runs in this process, with studies on simulated clusters, one of which is in the middle of a trial.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import tools
from tests.browser import PHONE, chromium, opened, violations
from tests.page_states import STATES, Services, services, show

PLACES = {"list": "", "form": "ask", "running study": "studies/running", "decided study": "studies/decided"}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {}, "dark": {"color_scheme": "dark"}, "phone": {"width": PHONE, "is_mobile": True}
}  # fmt: skip
CATEGORIES = ("accessibility", "best-practices")
PAINT_MS, SCORE = 1000.0, 95.0
AUDIT_S = 180.0  # beyond which Lighthouse hangs: it waits 15 s for what goes on loading


def audit(url: str, chrome: Path) -> dict[str, Any]:
    """What Lighthouse says of one address."""
    words = ["node", str(tools.lighthouse()), url, "--output=json", "--quiet", "--preset=desktop"]
    words += ["--max-wait-for-load=15000"]  # a study that runs is never done with loading: it listens
    words += ["--throttling-method=provided", f"--only-categories=performance,{','.join(CATEGORIES)}"]
    words += ["--chrome-flags=--headless=new --no-sandbox"]
    environment = os.environ | {"CHROME_PATH": str(chrome)}
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=AUDIT_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"Lighthouse did not end within {AUDIT_S:g} s at {url}")
    if done.returncode:
        sys.exit(done.stderr.strip()[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def failed(report: dict[str, Any]) -> Iterator[str]:
    """The audits that cost points."""
    for category in CATEGORIES:
        for ref in report["categories"][category]["auditRefs"]:
            one = report["audits"][ref["id"]]
            if ref["weight"] and one["scoreDisplayMode"] == "error":
                yield f"{one['id']}: could not be judged: {one.get('errorMessage', 'no reason')}"
            elif ref["weight"] and one["score"] is not None and one["score"] < 1:
                yield f"{one['id']}: {one['title']}"


def score(report: dict[str, Any], category: str) -> float:
    """From 0 to 100; NaN, which meets no target, where one of its audits could not be judged."""
    found = report["categories"][category]["score"]
    return math.nan if found is None else 100.0 * found


def paint_of(report: dict[str, Any]) -> float:
    """First contentful paint in ms; NaN where there was none."""
    return float(report["audits"]["first-contentful-paint"].get("numericValue", math.nan))


def middle(values: Sequence[float]) -> float:
    """The median; NaN where one of them is."""
    return math.nan if any(math.isnan(value) for value in values) else statistics.median(values)


def judged(made: Services, chrome: Path, runs: int) -> bool:
    """Print what Lighthouse says; whether all targets are met."""
    good = True
    print(f"{'place':15} {'first paint, ms':>16} {'accessibility':>14} {'best practices':>15}")
    for name, where in PLACES.items():
        reports = [audit(f"{made.full.url}#/{where}", chrome) for _ in range(runs)]
        paint_ms = middle([paint_of(report) for report in reports])
        scores = [middle([score(report, category) for report in reports]) for category in CATEGORIES]
        print(f"{name:15} {paint_ms:16.0f} {scores[0]:14.0f} {scores[1]:15.0f}", flush=True)
        for line in sorted({line for report in reports for line in failed(report)}):
            print(f"    {line}")
        good = good and paint_ms <= PAINT_MS and all(found >= SCORE for found in scores)
    return good


def counted(made: Services) -> int:
    """Print what axe finds wrong, and how much that is."""
    total = 0
    with chromium() as browser:
        if browser is None:
            sys.exit("Playwright is not installed")
        for look, options in LOOKS.items():
            for state in STATES:
                with opened(browser, "about:blank", **options) as page:
                    show(page, state, made)
                    found = violations(page)
                total += len(found)
                print("".join(f"    {look}, {state}: {line}\n" for line in found), end="")
    print(f"axe: {total} violations in {len(STATES)} states, each in {', '.join(LOOKS)}")
    return total


def main() -> int:
    """Print all of it; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    chrome = tools.chromium()
    if chrome is None:
        sys.exit("Chromium is not on PATH")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs; Lighthouse 12.2.3, axe-core 4.14.1; medians of {runs} runs")
    with tempfile.TemporaryDirectory() as folder, services(Path(folder)) as made:
        good, wrong = judged(made, chrome, runs), counted(made)  # the second too, where the first misses a target
    return 0 if good and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
