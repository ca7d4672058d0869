"""Windows of ``parlay measure --find-rate``: each follows from those before it."""

from __future__ import annotations

from serve.load.saturation import ClientLimit
from serve.measure.window import Window
from serve.measure.window_requests import WindowOrder
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.window_orders import (
    LengthLimit,
    check_lengths,
    check_prompts,
    open_load,
    positive,
    token_lengths,
    window_order,
)
from tuner.ask.arrivals import CHANGING_PROCESSES
from tuner.ask.request import SloTarget, require_defined
from tuner.ask.slo import Verdict
from tuner.errors import BadInput
from tuner.stats.rate_search import RateFound, RateSearch

SEARCH_RATIO = 64.0  # a search from one rate goes down and up to this ratio of it


class RateFinder:
    """Windows at the rates that tell most of the highest one within the SLO.

    Two ``--rate`` bound the search; one is its first guess. A rate at which the client lagged is tried once more: it
    may have been a disturbance. One whose queue grew counts as missed, as it could not be kept up.
    """

    def __init__(self, options: MeasureOptions, slo: tuple[SloTarget, ...]) -> None:
        if not slo:
            raise BadInput("--find-rate", "no --slo", "a target to search for, such as --slo ttft:p99:500")
        if options.users or options.trace:
            raise BadInput("--find-rate", "--users or --trace", "an open load at rates of its own")
        if options.process in CHANGING_PROCESSES:
            raise BadInput("--find-rate", f"--process {options.process}", "a process whose rate stays")
        if len(options.rates) > 2:
            raise BadInput("--rate", list(options.rates), "one rate to begin with, or two between which to search")
        require_defined(slo, token_lengths("--output-tokens", options.output_tokens).bounds[1], "--slo")
        rates = [positive(rate) for rate in options.rates or (4.0,)]
        low, high = (min(rates), max(rates)) if len(rates) > 1 else (rates[0] / SEARCH_RATIO, rates[0] * SEARCH_RATIO)
        self._search = RateSearch(low, high, start=rates[0] if len(rates) == 1 else None)
        self._options, self._slo = options, slo
        self.within(None)
        self._asked = 0
        self._again: float | None = None
        self._over = False

    def within(self, served_tokens: int | None) -> None:
        """Hold the lengths against what the server takes of prompt and output; raises BadInput where they exceed it."""
        check_lengths(self._options, LengthLimit.of(self._options, served_tokens))

    def ask(self) -> WindowOrder | None:
        """The next window, None when the search is over."""
        rate = self._search.ask() if self._again is None else self._again
        if rate is None or self._over:
            return None
        self._asked += 1
        order = window_order(self._options, self._slo, open_load(self._options, rate, self._asked), self._asked)
        check_prompts(self._options, order)
        return order

    def tell(self, window: Window) -> None:
        """Learn from a window; one without any answer ends the search."""
        rate = window.order.rate_req_per_s
        assert rate is not None  # it was an open load
        again, self._again = self._again, None
        if window.client_bound is not None:
            if again is None and window.client_bound.limit in (ClientLimit.SCHEDULE_LAG, ClientLimit.LOOP_LAG):
                self._again = rate
            else:
                self._search.tell_saturated(rate)
        elif window.invalid is None:
            self._search.tell(rate, window.verdict, certain=window.certain)
        elif window.unsteady is not None:
            self._search.tell(rate, Verdict.MISSED, certain=False)
        else:
            self._over = True

    @property
    def found(self) -> RateFound | None:
        """What is known of the highest rate."""
        return self._search.found
