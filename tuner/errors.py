"""The error tree. Everything Parlay raises on purpose is one of these.

ParlayError                 exit code 1: it failed
├── BadInput                exit code 2: what was given is not allowed
├── StoreError              exit code 1: the study store cannot be used
│   └── LeaseLost           another driver of the study has taken over a trial of this one
├── ServiceError            exit code 1: a service that was asked does not answer, or not as it should
├── LaunchFailed            one trial could not start (carries a FailureReason); the study goes on
├── Cancelled               exit code 130: somebody asked for an end before the work was done
└── NoFeasibleLayout        exit code 3: a valid run, but nothing meets the SLO
"""

from __future__ import annotations

from enum import StrEnum


class FailureReason(StrEnum):
    """Why a trial has no figures."""

    DOES_NOT_FIT = "does_not_fit"
    ENGINE_CRASHED = "engine_crashed"
    START_TIMED_OUT = "start_timed_out"
    PLACEMENT_IMPOSSIBLE = "placement_impossible"
    REPLICA_DIED = "replica_died"
    CLIENT_ERROR = "client_error"
    CANCELLED = "cancelled"


class ParlayError(Exception):
    """Base of all errors raised on purpose; its text is one line that a person can act on."""

    exit_code = 1


def reason(error: BaseException) -> str:
    """Why something ended, as is told to whoever asked for it: in the words of an error of ours, else with its name."""
    return str(error) if isinstance(error, ParlayError) else f"{type(error).__name__}: {error}"


class BadInput(ParlayError):
    """Something that a person or a file gave us is not allowed.

    ``where`` names the place (``slo.0.percentile``, ``--layout``, a path), ``given`` is what stood there and
    ``allowed`` says what may stand there instead.
    """

    exit_code = 2

    def __init__(self, where: str, given: object, allowed: str) -> None:
        self.where, self.given, self.allowed = where, given, allowed
        super().__init__(f"{where}: got {given!r}; allowed: {allowed}")


class StoreError(ParlayError):
    """The study store cannot be opened, read or written."""


class LeaseLost(StoreError):
    """A trial that this process runs is another driver's by now: nothing more may be said of it here."""


class ServiceError(ParlayError):
    """A service cannot be reached, does not answer in time, or says that it failed."""


class LaunchFailed(ParlayError):
    """A deployment did not come up, or died; ``log_tail`` holds the engine's last log lines."""

    def __init__(self, reason: FailureReason, detail: str, log_tail: tuple[str, ...] = ()) -> None:
        self.reason, self.detail, self.log_tail = reason, detail, log_tail
        super().__init__(f"{reason.value}: {detail}")


class Cause(StrEnum):
    """Who asks for the end of something that runs."""

    OPERATOR = "operator"  # a person: Ctrl-C, a closed terminal, a button
    BUDGET = "budget"  # what the study may spend is used up
    RACING = "racing"  # another trial has won, or this one has lost
    SHUTDOWN = "shutdown"  # the process is told to end, or cannot go on
    PAUSE = "pause"  # a person: to go on later
    QUOTA = "quota"  # the account has used up what it may take of the clusters; to go on later
    HANDOVER = "handover"  # the worker is told to end; another goes on


class Cancelled(ParlayError):
    """Something that ran ended because it was asked to; ``words`` say more of how, such as a signal's name."""

    exit_code = 130

    def __init__(self, cause: Cause, words: str) -> None:
        self.cause, self.words = cause, words
        super().__init__(f"cancelled by the {cause.value}: {words}" if words else f"cancelled by the {cause.value}")


class NoFeasibleLayout(ParlayError):
    """A valid run that found no layout meeting the SLO; the text says by how much and what would have to change."""

    exit_code = 3
