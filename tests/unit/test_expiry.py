"""Expiry: who is over at a time, also when subjects were renewed and subscriptions closed meanwhile."""

from __future__ import annotations

import math

from cdc import Subject, Subscription
from cdc.expiry import Expiry, ended_at


def subscription(exp: float | None) -> Subscription:
    return Subscription("public", "wells", print, subject=Subject("anon", None if exp is None else {"exp": exp}))


def test_the_earliest_is_next() -> None:
    expiry = Expiry()
    assert expiry.next == math.inf and expiry.over(1e18) == []
    five, three, never = subscription(5), subscription(3), subscription(None)
    for each in (five, three, never):
        expiry.watch(each)
    assert expiry.next == 3 and expiry.over(2.9) == []
    assert expiry.over(3) == [three] and expiry.over(3) == [] and expiry.next == 5
    assert expiry.over(100) == [five] and expiry.next == math.inf


def test_renewed_and_closed_ones() -> None:
    expiry = Expiry()
    longer, shorter, endless, closed = (subscription(5) for _ in range(4))
    for each in (longer, shorter, endless, closed):
        expiry.watch(each)
    for each, exp in ((longer, 9), (shorter, 2), (endless, None)):
        each.subject = subscription(exp).subject
        expiry.watch(each)
    expiry.forget(closed)
    assert expiry.over(2) == [shorter]
    assert expiry.over(8) == [] and expiry.next == 9
    assert expiry.over(9) == [longer] and expiry.over(1e18) == []


def test_closed_ones_are_not_kept() -> None:
    expiry = Expiry()
    for number in range(10_000):
        each = subscription(1e12 + number)
        expiry.watch(each)
        expiry.forget(each)
    assert len(expiry._heap) < 100


def test_any_number_can_be_told() -> None:
    assert ended_at(0) == "the subject expired at 1970-01-01T00:00:00+00:00"
    assert ended_at(-1e300) == "the subject expired at -1e+300 s"
