"""How far off a GPU is priced by the fitted sections of another: what the search's prior of unmeasured devices is from.

    python -m tests.fit.taken_over --data DIR

DIR as for ``tests.fit.compute``. Prints log(predicted / measured) of each GPU's rows with each section taken over from
GPUs of another generation: its median, and its spread.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.fit.tables import FILES, KINDS, read_table, rows_where
from tuner.ask.profile import load_profile
from tuner.validate.operations import predict_rows_with

PAIRS = {
    "a100_sxm": ("h100_sxm", "l40s"),
    "h100_sxm": ("a100_sxm", "b200_sxm"),
    "h200_sxm": ("b200_sxm", "a100_sxm"),
    "b200_sxm": ("h200_sxm", "h100_sxm"),
    "l40s": ("a100_sxm", "h100_sxm"),
}


def main() -> None:
    """Print every pair, and the root mean square of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    tables = {kind: read_table(parser.parse_args().data / name) for kind, name in FILES.items()}
    medians, spreads = [], []
    for system, relatives in PAIRS.items():
        for relative in relatives:
            shown = []
            for section, kind in KINDS.items():
                rows = rows_where(tables[kind], tables[kind]["system"] == system)
                taken = replace(load_profile(system), **{section: getattr(load_profile(relative), section)})
                error = np.log(predict_rows_with(taken, kind, rows) / rows["latency_ms"])
                medians.append(np.median(error))
                spreads.append(np.std(error))
                shown.append(f"{section} {medians[-1]:+.2f} ± {spreads[-1]:.2f}")
            print(f"{system} by {relative}: {', '.join(shown)}")
    print(f"medians {np.sqrt(np.mean(np.square(medians))):.2f} (root mean square), spread {np.median(spreads):.2f}")


if __name__ == "__main__":
    main()
