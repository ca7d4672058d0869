"""``python -m tests.studies --out tests/studies/results``: check every ordering, draw the figures, write the page."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.studies.figures import draw_all
from tests.studies.report import findings, page


def main() -> None:
    """Write all into the folder, and print what holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    found = findings()
    for ordering, finding in found:
        print(f"{'holds' if finding.holds else 'GAP  '} {ordering.study}: {ordering.claim}: {finding.figures}")
    for path in draw_all(out):
        print(path)
    (out / "README.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
