"""What is told of an outage that a client saw, in the benchmark on the real stack."""

from __future__ import annotations

from collections import Counter

from tests.retune_load import Asked, Stretch, answered_after, silence_s

# A request a second for a second each, from 1 s on; those of 10 to 19 s are given up after 5 s, that of 9 s breaks.
ASKED = tuple(
    Asked(at, at + 5.0, False, False, "no_answer") if 10 <= at < 20
    else Asked(at, at + 1.0, at != 9, at != 9 and at % 2 == 0, "reset" if at == 9 else "ok")
    for at in map(float, range(1, 31))
)  # fmt: skip


def test_what_is_lost_counts_by_when_it_was_sent() -> None:
    before, during = Stretch.of(ASKED, 0, 9.5), Stretch.of(ASKED, 9.5, 20.0)
    assert (before.sent, before.lost, before.within) == (9, Counter(reset=1), 4)
    assert (during.sent, during.lost, during.within) == (10, Counter(no_answer=10), 0)
    assert during.attainment == "0% of 10"
    assert Stretch.of(ASKED, 40).attainment == "nothing was sent"


def test_silence_is_between_answers_that_were_whole() -> None:
    assert silence_s(ASKED, 5.0, 30.0) == 21.0 - 9.0
    assert silence_s(ASKED, 100.0, 130.0) == 30.0


def test_it_serves_again_with_the_first_answer_to_what_was_sent_since() -> None:
    assert answered_after(ASKED, 9.5) == 21.0
    assert answered_after(ASKED, 30.0) is None
