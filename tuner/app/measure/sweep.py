"""Windows of ``parlay measure`` that are known beforehand."""

from __future__ import annotations

from serve.measure.window import Window
from serve.measure.window_requests import WindowOrder
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.window_orders import LengthLimit, asked_loads, check_lengths, check_prompts, window_order
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
        self._options, self._slo = options, slo
        self._left = self._orders(LengthLimit.of(options))

    def within(self, served_tokens: int | None) -> None:
        """Hold all windows against what the server takes of prompt and output; raises BadInput where they exceed it."""
        self._left = self._orders(LengthLimit.of(self._options, served_tokens))

    def _orders(self, limit: LengthLimit) -> list[WindowOrder]:
        options, slo = self._options, self._slo
        check_lengths(options, limit)
        loads = enumerate(asked_loads(options, limit))
        orders = [window_order(options, slo, load, index) for index, load in loads]
        for order in orders:
            check_prompts(options, order)
            require_defined(slo, int(order.load.output_tokens.max()), "--slo")
        return orders

    def ask(self) -> WindowOrder | None:
        """The next window, None after the last."""
        return self._left.pop(0) if self._left else None

    def tell(self, window: Window) -> None:
        """Nothing follows from a window."""

    @property
    def found(self) -> RateFound | None:
        """A sweep searches nothing."""
        return None
