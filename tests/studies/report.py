"""All orderings of all studies, and the page that shows them with the figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from tests.studies import guide, nvrar, xu, yalis
from tests.studies.ordering import Finding, Ordering

ORDERINGS: tuple[Ordering, ...] = (*xu.ORDERINGS, *yalis.ORDERINGS, *nvrar.ORDERINGS, *guide.ORDERINGS)
_INTRODUCTION = """# What published studies report, and what the cost model says

Made by `python -m tests.studies --out tests/studies/results` (needs matplotlib). Each study is a request in
`tests/studies/requests/`; the model prices its layouts on its cluster, with nothing fitted to the study. Checked are
orderings, not milliseconds; `python -m pytest tests/studies` checks them all, and fails when a gap closes unnoticed.

![TTFT, TPOT and E2E over TP, PP and hybrids](latency_by_layout.svg)

![Time to solution by GPUs, with compute and communication](strong_scaling.svg)

![Prefill-heavy and decode-heavy batches by GPUs and scheme](scaling_by_phase.svg)

![All-reduce time by message, nodes and algorithm](allreduce_by_size.svg)
"""


def findings() -> list[tuple[Ordering, Finding]]:
    """Check everything."""
    return [(ordering, ordering.check()) for ordering in ORDERINGS]


def page(found: Iterable[tuple[Ordering, Finding]]) -> str:
    """The page in Markdown: a table per study, and the gaps with their reasons."""
    return "\n".join([_INTRODUCTION, *_tables(list(found))]) + "\n"


def _tables(found: list[tuple[Ordering, Finding]]) -> Iterator[str]:
    kept = sum(finding.holds for _, finding in found)
    yield f"{kept} of {len(found)} orderings hold.\n"
    for study, rows in groupby(found, key=lambda row: row[0].study):
        of_study = list(rows)
        yield f"## {study}\n\n| reported | holds | by the model |\n|---|---|---|"
        for ordering, finding in of_study:
            yield f"| {ordering.claim} | {'yes' if finding.holds else 'no'} | {finding.figures} |"
        reasons: dict[str, list[str]] = {}
        for ordering, finding in of_study:
            if ordering.gap and not finding.holds:
                reasons.setdefault(ordering.gap, []).append(ordering.claim)
        if reasons:
            yield "\nWhy not:\n"
        for reason, claims in reasons.items():
            yield f"- {'; '.join(claims)}: {reason}."
        yield ""
