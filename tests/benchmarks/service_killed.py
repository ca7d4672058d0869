"""Kills processes of a service at random instants while simulated studies run, and counts what is wrong then.

    python -m tests.benchmarks.service_killed [--store URL] [--kills 50] [--studies 5] [--seed 0]

Every other kill is of the service itself, which is started again at once; the others are of one of its workers, which
it starts again. What the studies come to is compared with what they come to undisturbed: winner, reasons, and every
trial with all of its figures. Nothing may be lost (a study that has not ended, a decision without its files), launched
twice (a launch that ended and is no trial's) or orphaned (a worker without a service). Rounds of so many studies follow
one another until so many kills are done. ``--store`` is an empty PostgreSQL database; default: SQLite.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.service_process import KilledService, essence, launched_twice, lost, names, submit, undisturbed
from tuner.study.store import Store

LAUNCHES = 10
EVERY_S = (0.5, 5.0)


@dataclass
class Count:
    """What came of all rounds."""

    studies: int = 0
    kills: list[str] = field(default_factory=list)
    in_flight: int = 0
    other: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    without_files: list[str] = field(default_factory=list)
    orphans: int = 0


def round_of(url: str, folder: Path, expected: dict[str, object], kills: int, seed: int, count: Count) -> None:
    """Queue the studies, and disturb them to their end."""
    store, studies = Store(url), len(expected)
    submit(store, studies, LAUNCHES)
    service = KilledService(url, folder / "out", studies, folder / "log")
    service.start()
    try:
        service.disturb(store, studies, kills, EVERY_S, seed, most_s=3600)
    finally:
        count.orphans += len(service.stop())
    for name in names(studies):
        found = store.snapshot(name)
        count.studies += 1
        count.in_flight += lost(found)
        count.twice += launched_twice(found)
        if not expected[name].kept_by(essence(store, name)):
            count.other.append(name)
        if not (folder / "out" / name / "decision.json").exists():
            count.without_files.append(name)
    for name in names(studies):
        store.delete_study(name)
    count.kills += service.killed
    store.close()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--studies", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count, began = Count(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        expected = undisturbed(Path(scratch), options.studies, LAUNCHES)
        alone_s, rounds = time.perf_counter() - began, 0
        while len(count.kills) < options.kills:
            folder = Path(scratch) / f"round-{rounds}"
            folder.mkdir()
            url = options.store or f"sqlite:///{folder}/store.db"
            round_of(url, folder, expected, options.kills - len(count.kills), options.seed + rounds, count)
            rounds += 1
    kind = "PostgreSQL" if options.store else "SQLite"
    print(f"{kind}; {platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%F', time.gmtime())}")
    print(f"undisturbed, one after the other: {options.studies} studies in {alone_s:.0f} s")
    how = ", ".join(f"{count.kills.count(what)} of a {what}" for what in ("worker", "service"))
    print(f"{len(count.kills)} kills ({how}) in {rounds} rounds of {options.studies} studies")
    print(f"other than undisturbed: {len(count.other)} of {count.studies} {count.other or ''}")
    print(f"launches in flight that were begun again: {count.in_flight}")
    print(f"launched twice: {len(count.twice)}; without files: {len(count.without_files)}; orphans: {count.orphans}")


if __name__ == "__main__":
    main()
