"""A study as the service lists and tells it."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.study.listing import StudyHead, StudyLine
from tuner.study.orders import Order


class StudyLineAnswer(Answer):
    """One line of a list of studies."""

    name: str = Field(description="Its name.")
    state: str = Field(description="queued, running, paused, decided, failed or cancelled.")
    created_at: float = Field(description="When it was asked for, s since 1970.")
    model: str = Field(description="The request's model.")
    objective: str = Field(description="What the winner is best at.")
    trials: int = Field(description="Trials so far.")
    owner: str | None = Field(description="The token that asked; null: the command line did.")
    priority: int | None = Field(description="A higher one is run first; null: it never waited.")


class StudyListAnswer(Answer):
    """A page of studies, the newest first."""

    studies: list[StudyLineAnswer] = Field(description="The lines.")
    next: str | None = Field(description="The cursor of the next page; null: there is none.")


class OrderAnswer(Answer):
    """How a queued study is to be run, and by whom."""

    owner: str = Field(description="The token that asked; empty where none was needed.")
    launcher: str = Field(description="What it runs on.")
    simulated_seed: int | None = Field(description="Of the simulated cluster; null where engines run.")
    priority: int = Field(description="A higher one is run first.")
    submitted_at: float = Field(description="When it was queued, s since 1970.")
    worker: str | None = Field(description="Who runs it; null: nobody now.")
    wish: str | None = Field(description="pause or cancel, while its worker has yet to do it.")
    problem: str | None = Field(description="Why it could not be run, or is held; null where it can.")


class StudyAnswer(Answer):
    """One study: what was asked, and where it stands."""

    name: str = Field(description="Its name.")
    state: str = Field(description="queued, running, paused, decided, failed or cancelled.")
    created_at: float = Field(description="When it was asked for, s since 1970.")
    request: dict[str, object] = Field(description="The request, every default filled in.")
    facts: dict[str, str] = Field(description="Machine, launcher and versions; empty until it has begun.")
    candidates: int | None = Field(description="Points of the space; null until it was planned.")
    kept: int | None = Field(description="Candidates that the plan kept; null until it was planned.")
    trials: int = Field(description="Trials so far.")
    last_event: int = Field(description="Number of its last event; 0: none yet.")
    pinned: bool = Field(description="Whether it stays however old it gets.")
    order: OrderAnswer | None = Field(description="Null of a study of the command line.")


def study_line_answer(line: StudyLine) -> StudyLineAnswer:
    """One line."""
    return StudyLineAnswer(
        name=line.name,
        state=line.state.value,
        created_at=line.created_at,
        model=line.model,
        objective=line.objective,
        trials=line.trials,
        owner=line.owner,
        priority=line.priority,
    )


def study_answer(head: StudyHead) -> StudyAnswer:
    """One study."""
    return StudyAnswer(
        name=head.name,
        state=head.state.value,
        created_at=head.created_at,
        request=head.request,
        facts=head.facts,
        candidates=head.candidates,
        kept=head.kept,
        trials=head.trials,
        last_event=head.last_event,
        pinned=head.pinned,
        order=None if head.order is None else order_answer(head.order),
    )


def order_answer(order: Order) -> OrderAnswer:
    """How a study is to be run."""
    return OrderAnswer(
        owner=order.terms.owner,
        launcher=order.terms.launcher,
        simulated_seed=order.terms.seed,
        priority=order.terms.priority,
        submitted_at=order.submitted_at,
        worker=order.worker or None,
        wish=order.wish.value if order.wish else None,
        problem=order.problem,
    )
