"""What the start of a watcher costs: the looks of two weeks are read and shown to the detectors again.

python -m tests.benchmarks.watch_replay [--days 14] [--every 15]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
from pydantic import TypeAdapter

from tests.fakes import copy_of_empty_store, document
from tests.look_streams import DAY_S, MONDAY_S, SLO, Change, Stream, looks
from tuner.app.watch.noticing import Noticing
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.seen import Look
from tuner.study.database import Database
from tuner.study.looks import Looks
from tuner.study.schema import LOOKS
from tuner.study.store import Store
from tuner.trial.launched import Launched, NoEngine

_AT_ONCE = 2000  # looks in one transaction
_LOOK = TypeAdapter(Look)
_STUDY, _NAME = "watched", "live-1"


def keep(url: str, stream: Sequence[Look]) -> None:
    """Many looks at once, as ``Looks`` keeps each."""
    texts = [_LOOK.dump_json(one, exclude_defaults=True).decode() for one in stream]
    rows = [
        {"study": _STUDY, "deployment": _NAME, "at": one.at_s, "look": text}
        for one, text in zip(stream, texts, strict=True)
    ]
    with Database(url).writing() as db:
        db.execute(sa.insert(LOOKS), rows)


def main() -> None:
    """Print how many looks there were, and the processor's seconds for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=14.0)
    parser.add_argument("--every", type=float, default=15.0)
    options = parser.parse_args()
    request = TuneRequest.model_validate(document()).model_copy(update={"slo": SLO})
    launched = Launched("simulated", {}, "m", NoEngine("simulated"))
    live = LiveDeployment(
        _STUDY, _NAME, _STUDY, 0, ParallelLayout(), launched, "simulated", LiveState.SERVING, MONDAY_S, MONDAY_S
    )
    with tempfile.TemporaryDirectory() as folder:
        url = copy_of_empty_store(Path(folder) / "parlay.db")
        with closing(Store(url)) as store:
            store.create_study(_STUDY, request, {})
        stream = looks(Stream(every_s=options.every), options.days * DAY_S, Change(), 0)
        while some := list(islice(stream, _AT_ONCE)):
            keep(url, some)
        kept = Looks(Database(url))
        begun = time.process_time()
        read = len(kept.of(_STUDY, _NAME))
        reading_s = time.process_time() - begun
        begun = time.process_time()
        Noticing(kept, _STUDY).notices(live, request)
        whole_s = time.process_time() - begun
    print(
        f"{read:,} looks, one each {options.every:g} s for {options.days:g} days: {whole_s:.1f} s of a processor, "
        f"{reading_s:.1f} s of them to read them; {1e6 * whole_s / max(read, 1):.0f} µs each"
    )


if __name__ == "__main__":
    main()
