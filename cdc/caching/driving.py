"""Driving: a filling's steps, performed by the thread that asked. `async_cache` has the same for tasks."""

from __future__ import annotations

import time
from typing import Any

from cdc.caching.filling import Ask, Join, Pause, Read, Steps
from cdc.caching.source import Load, Source

__all__ = ["drive"]


def drive(steps: Steps, source: Source, load: Load, key: Any) -> Any:
    """Perform the steps; gives what they give, and raises what they raise."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Read):
                    answer: Any = source.fenced(load, key) if step.fenced else (source.bare(load, key), None)
                elif isinstance(step, Join):
                    answer = step.fill.done.wait()
                elif isinstance(step, Pause):
                    answer = None
                    time.sleep(step.seconds)
                else:
                    assert isinstance(step, Ask)
                    answer = step.question()
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value
