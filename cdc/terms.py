"""Terms: how a subscription wants to be served, as the user writes it in `on` and `subscribe`.

Pure: checks what was written and says what is wrong with it. What the terms do is the matter of `delivery`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict

from cdc.errors import ConfigurationError
from cdc.reconnect import Backoff
from cdc.rls import Subject

__all__ = ["OPTIONS", "Options", "Terms"]

_RETRY = Backoff(first=0.1, longest=10.0)


class Options(TypedDict, total=False):
    """The options of `on` and `subscribe`.

    operations: of `insert`, `update`, `delete`, `truncate`; all when left out.
    filter: which rows, such as `"status=eq.active"`.
    subject: as whom to look; row-level security, grants and column rights decide. None is trusted.
    accept_undecided: go without changes that cannot be judged instead of refusing the subscription.
    queue: events that may wait for a thread of the handler's own (a task of its own with AsyncConsumer); a full
        queue keeps the stream waiting. None: the handler is called on the loop.
    batch: the handler takes a list of at most so many events.
    linger: seconds that the first event of a list waits for others at most.
    debounce: seconds of quiet after which the handler is called once, with a list of what came before.
    transaction: the handler takes a whole transaction, as a `CommittedTransaction`, when it has committed.
    retries: how often an event is handed over again when the handler raised.
    backoff: waits between these attempts; default 0.1 s doubling to 10 s.
    on_error: `"stop"` ends the consumer when the last attempt failed; `"park"` keeps the event aside and goes on.
    snapshot: begin with the rows that the table has.
    name: what the subscription is called where it is remembered; default: the handler's name and the table.
    """

    operations: Iterable[str] | None
    filter: str | None
    subject: Subject | None
    accept_undecided: bool
    queue: int | None
    batch: int | None
    linger: float
    debounce: float | None
    transaction: bool
    retries: int
    backoff: Backoff
    on_error: str
    snapshot: bool
    name: str | None


OPTIONS = frozenset(Options.__annotations__)
"""Names of the options."""

_CHOICES = frozenset({"operations", "filter", "subject", "accept_undecided", "name"})


@dataclass(frozen=True, slots=True)
class Terms:
    """How a subscription wants to be served; see `Options`. Raises ConfigurationError for what cannot be."""

    queue: int | None = None
    batch: int | None = None
    linger: float = 0.05
    debounce: float | None = None
    transaction: bool = False
    retries: int = 0
    backoff: Backoff = _RETRY
    on_error: str = "stop"
    snapshot: bool = False

    def __post_init__(self) -> None:
        for name in ("queue", "batch"):
            _check(name, getattr(self, name), "a number of events, 1 at least", least=1, optional=True)
        _check("retries", self.retries, "a number of attempts, 0 at least")
        _check("linger", self.linger, "a number of seconds", fraction=True)
        _check("debounce", self.debounce, "a number of seconds", fraction=True, optional=True)
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(f"backoff is a cdc.Backoff, as cdc.Backoff(first=1.0), not {self.backoff!r}")
        if self.on_error not in ("stop", "park"):
            raise ConfigurationError(f"on_error is 'stop' or 'park', not {self.on_error!r}")
        for name in ("snapshot", "transaction"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} is True or False, not {getattr(self, name)!r}")
        if (self.batch is not None) + (self.debounce is not None) + self.transaction > 1:
            raise ConfigurationError("batch, debounce and transaction each gather events: choose one of them")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Terms:
        """The terms among the options of a subscription. Raises TypeError for an option that does not exist."""
        unknown = options.keys() - OPTIONS
        if unknown:
            raise TypeError(f"there is no option {', '.join(sorted(unknown))}; there are {', '.join(sorted(OPTIONS))}")
        if options.get("linger") is not None and options.get("batch") is None:
            raise ConfigurationError("linger is for lists: say how long they may be with batch=")
        terms = cls(**{name: value for name, value in options.items() if name not in _CHOICES})
        return _shared(terms)


@lru_cache(maxsize=64)
def _shared(terms: Terms) -> Terms:
    """The same terms for all who want the same."""
    return terms


def _check(name: str, value: Any, what: str, least: int = 0, fraction: bool = False, optional: bool = False) -> None:
    if value is None and optional:
        return
    kinds = (int, float) if fraction else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < math.inf:
        raise ConfigurationError(f"{name} is {what}, not {value!r}")
