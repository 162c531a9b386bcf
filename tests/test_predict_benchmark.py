"""`predict` beside its parts as a benchmark: what is compared belongs to one round."""

from __future__ import annotations

from benchmarks.questions.predict import figures


def test_a_share_is_of_one_round_and_the_middle_one_counts() -> None:
    found = {one.id: one for one in figures([0.6, 0.32, 0.5], [0.3, 0.304, 0.4])}
    share = found["share"]
    assert (round(share.value, 6), share.low, share.high, share.ok) == (0.8, 0.5, 0.304 / 0.32, False)
    assert (found["predict"].value, round(found["parts"].value, 6)) == (2.0, round(1 / 0.304, 6))
