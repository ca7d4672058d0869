"""A plan is made of what its launcher can launch."""

from __future__ import annotations

from tuner.ask.layout import ParallelLayout
from tuner.ask.space import Space
from tuner.study.launchable import launchable


def test_a_plan_has_only_paths_that_its_launcher_has() -> None:
    space = Space("s", {"tp": (1, 2), "front": ("auto", "ray_direct", "vllm"), "stream_interval_ms": (0, 20)})

    def refuses(layout: ParallelLayout) -> str | None:
        return f"no {layout.front}" if layout.front in ("ray_direct", "vllm") else None

    narrowed, dropped = launchable(space, None, refuses)
    assert narrowed.axes == {"tp": (1, 2), "front": ("auto",), "stream_interval_ms": (0, 20)}
    assert [(group.count, group.figure) for group in dropped] == [(4, "no ray_direct"), (4, "no vllm")]
    assert narrowed.size + sum(group.count for group in dropped) == space.size
    assert launchable(space, None, lambda _: "nothing runs here") == (space, ())  # not for its front
