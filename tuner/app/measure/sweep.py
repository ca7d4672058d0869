"""Windows of ``parlay measure`` that are known beforehand."""

from __future__ import annotations

from serve.measure.window import Window
from serve.measure.window_requests import WindowOrder
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.window_orders import asked_loads, check_prompts, window_order
from tuner.ask.request import SloTarget, require_defined
from tuner.errors import BadInput
from tuner.stats.rate_search import RateFound


class Sweep:
    """Windows that are known beforehand, one after another."""

    def __init__(self, options: MeasureOptions, slo: tuple[SloTarget, ...]) -> None:
        ways = {"--rate": options.rates, "--users": options.users, "--trace": options.trace}
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            raise BadInput(given[1], f"also {given[0]}", "one of " + ", ".join(ways))
        for name, value, way in (
            ("--trace-speed", options.trace_speeds, "--trace"),
            ("--trace-window", options.trace_window, "--trace"),
            ("--think-seconds", options.think_seconds, "--users"),
        ):
            if value and not ways[way]:
                raise BadInput(name, value, f"with {way} only")
        self._left = [window_order(options, slo, load, index) for index, load in enumerate(asked_loads(options))]
        for order in self._left:
            check_prompts(options, order)
            require_defined(slo, int(order.load.output_tokens.max()), "--slo")

    def ask(self) -> WindowOrder | None:
        """The next window, None after the last."""
        return self._left.pop(0) if self._left else None

    def tell(self, window: Window) -> None:
        """Nothing follows from a window."""

    @property
    def found(self) -> RateFound | None:
        """A sweep searches nothing."""
        return None
