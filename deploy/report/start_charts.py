"""What each launch waited for until it answered: a bar per trial, phase upon phase."""

from __future__ import annotations

from deploy.report.charts import SERIES, Figure, base_layout, with_legend
from deploy.report.study_data import ReportData

_PATTERNS = ("", "/", ".", "x", "\\", "+", "-", "|")


def phases_of(data: ReportData) -> tuple[str, ...]:
    """The phases that any start had."""
    trials = (row.trial for row in data.launched if row.trial is not None)
    return tuple(dict.fromkeys(name for trial in trials for name, _ in trial.phases))


def starts(data: ReportData) -> Figure | None:
    """Seconds of each phase of each trial's start, in the order in which they follow each other; None of none known."""
    trials = [row.trial for row in data.launched if row.trial is not None and row.trial.phases]
    if not trials:
        return None
    names = [f"trial {trial.number}" for trial in trials]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": phase,
            "y": names,
            "x": [dict(trial.phases).get(phase, 0.0) for trial in trials],
            "marker": {
                "color": f"$series{index % SERIES}",
                "pattern": {
                    "shape": _PATTERNS[index % len(_PATTERNS)], "fillmode": "overlay", "fgcolor": "$surface", "size": 7,
                },
            },
            "hovertemplate": f"%{{y}}<br>{phase}: %{{x:.3~g}} s<extra></extra>",
        }
        for index, phase in enumerate(phases_of(data))
    ]  # fmt: skip
    layout = base_layout("time since the order, s", "", log_y=False)
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False, "type": "category"}
    layout["yaxis"] |= {"categoryorder": "array", "categoryarray": names}
    layout |= {"barmode": "stack", "height": 110 + 30 * len(names)}
    return with_legend({"data": traces, "layout": layout})
