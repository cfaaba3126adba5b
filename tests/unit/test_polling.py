"""Polling beside a stream: what was looked at before may not overwrite what the stream has brought."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import pytest

from cdc.dispatcher import Dispatcher
from cdc.fallback import Fallback
from cdc.options import Options
from cdc.polled import Finding
from cdc.polling import Polling
from cdc.storing.polled_rows import PolledRows
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.versions import Versions


class Taker:
    """Stands for what is polled, and notes what it is given."""

    is_kept = True

    def __init__(self) -> None:
        self.subscription = Subscription("public", "wells", print)
        self.taken: list[Finding] = []

    def look(self, *arguments: Any) -> Finding:
        raise NotImplementedError

    def apply(self, finding: Finding) -> Any:
        self.taken.append(finding)
        yield from ()


def polling() -> Polling:
    target = Target("", ["wells"], None, None, "deliver", Options(), {}, fallback=Fallback(polls=True))
    made = Polling(target, Dispatcher(), {}, lambda: None, lambda: False)
    made.begin("", "no right")
    return made


def offered(to: Polling, is_first: bool, began: float) -> bool:
    """Whether what a look found is taken over."""
    taker = Taker()
    rows = PolledRows("wells", None, {}, True, is_first)  # type: ignore[arg-type]
    future: Future[Any] = Future()
    future.set_result([(taker, Finding(taker, began, Versions(None, {}), 0, rows))])  # type: ignore[arg-type]
    to._future = future
    list(to.steps())
    return bool(taker.taken)


@pytest.mark.parametrize("is_first", [True, False])
def test_without_a_stream_what_is_found_is_taken_over(is_first: bool) -> None:
    assert offered(polling(), is_first, time.monotonic())


def test_what_a_stream_has_kept_is_not_overwritten() -> None:
    made = polling()
    began = time.monotonic()
    made.stream(begins=True)
    assert not offered(made, True, time.monotonic())
    assert offered(made, False, time.monotonic())  # It follows polls already, and is to be filled anew.
    made.stream(begins=False)
    assert not offered(made, True, began)
    assert offered(made, True, time.monotonic())


def test_nothing_is_taken_over_once_the_stream_is_live() -> None:
    made = polling()
    made.end()
    assert not made.is_active
    assert not offered(made, False, time.monotonic())
