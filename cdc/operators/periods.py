"""OVERLAPS, of two periods with both ends, or with their lengths.

Pure: no I/O. The manual: "Functions and Operators", Date/Time Functions and Operators.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from itertools import product
from typing import Any

from cdc.operators.builtins import Builtin, Table
from cdc.operators.calendar import DAY
from cdc.operators.context import Context, Undecided
from cdc.operators.dates import TIMESTAMP, TIMESTAMPTZ
from cdc.operators.interval_texts import Span
from cdc.operators.intervals import finite
from cdc.operators.moments import later
from cdc.operators.times import TIME
from cdc.operators.zones import zone_of

__all__ = ["TABLE"]

_Plus = Callable[[Context, int, Span], int]
_INTERVAL = "interval"


def _overlaps(start: int | None, end: int | None, other: int | None, last: int | None) -> bool | None:
    """Whether two periods have a time in common; a period may be written backwards, or lack an end that is NULL."""
    (start, end), (other, last) = _period(start, end), _period(other, last)
    if start is None or other is None:
        return None
    if start > other:
        return _reaches(other, start, end, last)
    if start < other:
        return _reaches(start, other, last, end)
    return True if end is not None and last is not None else None


def _period(start: int | None, end: int | None) -> tuple[int | None, int | None]:
    """With the earlier end in front; with the one that is known in front when the other is NULL."""
    if start is None:
        return end, None
    return (end, start) if end is not None and start > end else (start, end)


def _reaches(first: int, second: int, end: int | None, until: int | None) -> bool | None:
    """Whether the period that starts first reaches the start of the second; `until` is the first one's end."""
    if until is None:
        return None
    if second < until:
        return True
    return None if end is None else False


def _time_later(context: Context, micros: int, span: Span) -> int:
    finite(span)
    if abs(span[2]) > 2**62:
        raise Undecided("an extreme interval")
    return (micros + span[2]) % DAY


_LATER: dict[str, _Plus] = {
    TIMESTAMP: lambda context, micros, span: later(lambda: UTC, micros, span),
    TIMESTAMPTZ: lambda context, micros, span: later(lambda: zone_of(context), micros, span),
    TIME: _time_later,
}


def _with_lengths(plus: _Plus, is_first: bool, is_second: bool) -> Builtin:
    """OVERLAPS of periods of which the first, the second, or both have a length instead of an end."""

    def end(context: Context, start: int | None, length: Any, is_length: bool) -> int | None:
        if not is_length:
            return length  # type: ignore[no-any-return]  # an end
        return None if start is None or length is None else plus(context, start, length)

    def overlaps(context: Context, start: int | None, size: Any, other: int | None, other_size: Any) -> bool | None:
        ends = end(context, start, size, is_first), end(context, other, other_size, is_second)
        return _overlaps(start, ends[0], other, ends[1])

    return Builtin(overlaps, strict=False, contextual=True)


TABLE: Table = {
    f"overlaps({kind}, {_INTERVAL if first else kind}, {kind}, {_INTERVAL if second else kind})": _with_lengths(
        plus, first, second
    )
    for kind, plus in _LATER.items()
    for first, second in product((False, True), repeat=2)
}
