"""A subscription: whose handler wants which changes of which table.

Pure: no I/O. It is the name that users hold on to; what it means for one relation is a `View`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from sys import intern
from typing import Any, Protocol

from cdc.errors import SubscriptionError
from cdc.events import Event
from cdc.lane import lane_of
from cdc.lsn import Position
from cdc.parked import Kept
from cdc.relation import Relation
from cdc.rls import Subject
from cdc.sent import Sent
from cdc.snapshot_progress import SnapshotProgress
from cdc.terms import Terms
from cdc.transaction import Place

__all__ = ["OPERATIONS", "Handler", "Subscription", "operations_of"]

OPERATIONS = frozenset({"INSERT", "UPDATE", "DELETE", "TRUNCATE"})

_USUAL = Terms()

Handler = Callable[[Event], Any]
"""Called with each event. With `AsyncConsumer` it may be a coroutine function."""


def operations_of(names: Iterable[str] | None) -> frozenset[str] | None:
    """The operations that a user names, such as `("insert", "delete")`; None when none are named."""
    if names is None:
        return None
    if not isinstance(names, Iterable):
        raise SubscriptionError(f"operations: {names!r}; choose of insert, update, delete, truncate")
    chosen = frozenset(str(name).upper() for name in ([names] if isinstance(names, str) else names))
    unknown = chosen - OPERATIONS
    if unknown or not chosen:
        wrong = ", ".join(sorted(unknown)) or "none"
        raise SubscriptionError(f"operations: {wrong}; choose of insert, update, delete, truncate")
    return chosen


class Judged(Protocol):
    """What a subscription's view knows of changes that were not shown."""

    @property
    def undecided(self) -> int:
        """Number of those that could not be judged."""

    @property
    def errors(self) -> int:
        """Number of those for which PostgreSQL would raise an error."""

    @property
    def problem(self) -> str | None:
        """Why, for the last of these."""


class Called:
    """What a change touches of a subscription; together, since with many of them memory is what takes time."""

    __slots__ = ("_at_work", "_last", "_parked", "closed", "delivered", "handler", "lane")


class Subscription(Called):
    """One subscriber's interest in one table.

    Attributes:
        schema, table: the table.
        operations: what it wants, of `"INSERT"`, `"UPDATE"`, `"DELETE"`, `"TRUNCATE"`.
        asked: whether the operations were named, so that each of them has to be published.
        name: what it is called where it is remembered.
        terms: how it wants to be served.
        lane: where its events wait; None when the handler is called at once, event by event.
        filter: the filter's text, or None.
        subject: as whom it looks; None is trusted and sees everything. A renewed one stands here once it is in force.
        closed: whether it receives nothing more.
        closed_reason: why it was closed, such as the end of its subject's time; None when the program closed it.
        delivered: number of events handed out, to the handler or to the lane before it.
        snapshot: how far the reading of the table's rows has come; None when nobody asked for them.
        denied: why nothing is visible at the moment, or None.
        refused: why this subject cannot have it at all, though it was not asked for by its name; or None.
    """

    __slots__ = (
        "_attached",
        "_errors",
        "_in_parts",
        "_name_lost",
        "_oid",
        "_on_close",
        "_on_renew",
        "_order",
        "_problem",
        "_renewed",
        "_seen",
        "_sent",
        "_sight",
        "_trouble",
        "_undecided",
        "_view",
        "accept_undecided",
        "asked",
        "closed_reason",
        "denied",
        "filter",
        "first",
        "name",
        "operations",
        "refused",
        "schema",
        "snapshot",
        "subject",
        "table",
        "terms",
    )

    def __init__(
        self,
        schema: str,
        table: str,
        handler: Handler,
        operations: frozenset[str] | None = None,
        filter: str | None = None,
        subject: Subject | None = None,
        accept_undecided: bool = False,
        first: bool = False,
        on_close: Callable[[Subscription], None] | None = None,
        terms: Terms | None = None,
        name: str | None = None,
    ) -> None:
        self.schema = schema
        self.table = table
        self.handler = handler
        self.operations = OPERATIONS if operations is None else operations
        self.asked = operations is not None
        self.filter = filter
        self.subject = subject
        self.terms = terms or _USUAL
        called = name or f"{schema}.{table} {getattr(handler, '__qualname__', type(handler).__name__)}"
        self.name = intern(called) if type(called) is str else called
        self.lane = lane_of(self.name, self.terms)
        self.accept_undecided = accept_undecided
        self.first = first
        self.closed = False
        self.closed_reason: str | None = None
        self.delivered = 0
        self._undecided = 0
        self._errors = 0
        self._problem: str | None = None
        self._sight: Hashable = None
        """What a subject may see by the rights that were judged last: equal ones show the same; None is nothing."""
        self._view: Judged | None = None
        """Its view on the table as it was announced last; that counts for it."""
        self._order = 0
        """Its place among all who are called for the same change."""
        self.snapshot = SnapshotProgress() if self.terms.snapshot else None
        self.denied: str | None = None
        self.refused: str | None = None
        self._at_work: Any = None
        """What its handler has been given and has not finished with."""
        self._trouble: str | None = None
        """Why its handler is given the same event again, in words."""
        self._parked: Kept | None = None
        """What of it is parked; None when nothing can be."""
        self._last: Place | None = None
        self._on_close = on_close
        self._on_renew: Callable[[Subscription, Subject], None] | None = None
        self._renewed: Subject | None = None
        """A subject that was accepted and is not in force yet."""
        self._attached: frozenset[int] = frozenset()
        """OIDs of the partitions that had been attached when the subscription was checked; PostgreSQL 14 only."""
        self._in_parts = self.terms.snapshot
        """Whether its table has to be one that can be read in parts."""
        self._name_lost = False
        """Whether its table had another name when it changed last, and that was told."""
        self._oid: int | None = None
        """OID of the table when the subscription was checked."""
        self._seen: tuple[Relation, frozenset[str]] | None = None
        """The table as it was described for the last change, and the columns that the subscriber may not know of."""
        self._sent: Sent | None = None
        """What the publications sent of the table when the subscription was checked."""

    @property
    def previous(self) -> Position | None:
        """Position of the event handed out last; None before the first."""
        if self._last is None:
            return None
        transaction, ordinal = self._last
        return transaction.position(ordinal)

    @property
    def undecided(self) -> int:
        """Number of changes that could not be judged and were withheld.

        A change counts when a column that finds the subscription by its value was not sent, also where another
        condition would have hidden the row.
        """
        return self._undecided + sum(view.undecided for view in self._views)

    @property
    def errors(self) -> int:
        """Number of changes with a row for which PostgreSQL would raise an error; nobody is shown such a row."""
        return self._errors + sum(view.errors for view in self._views)

    @property
    def problem(self) -> str | None:
        """Why, for the last of these; None when there were none."""
        return next((view.problem for view in self._views if view.problem is not None), self._problem)

    @property
    def _views(self) -> list[Judged]:
        return [part._view for part in self.parts if part._view is not None]

    @property
    def queued(self) -> int:
        """Number of events that its handler has not finished: those that wait, and what it is at work on."""
        return 0 if self.lane is None else len(self.lane)

    @property
    def label(self) -> str:
        """What it is a subscription to, in words."""
        return self.table

    @property
    def parts(self) -> Sequence[Subscription]:
        """The subscriptions to one table each that it consists of."""
        return (self,)

    @property
    def reader(self) -> Subscription:
        """Whose handler is called, and whose events are counted and linked: itself, but for a family's member."""
        return self

    @property
    def named(self) -> bool:
        """Whether the table was asked for by its name, so that it has to stay."""
        return True

    @property
    def sees_all(self) -> bool:
        """Whether no filter and no rights keep anything from it."""
        return self.filter is None and self.subject is None and not self.closed

    @property
    def parks(self) -> bool:
        """Whether events that its handler cannot take are kept aside."""
        return self.terms.on_error == "park"

    @property
    def expires(self) -> float | None:
        """When its subject's claims are not valid any more, in seconds since 1970; None: never."""
        subject = self._renewed or self.subject
        return None if subject is None else subject.expires

    def update_subject(self, subject: Subject) -> None:
        """Go on as another subject, as when a token was renewed. From any thread, and from a handler.

        It is checked at once, which asks the server on the spot, and in force from the next transaction on. When it may
        see something else than the one before, a `Gap` of kind `GapKind.RIGHTS` comes before the next change.

        Raises SubscriptionError when the subject cannot be had or has expired, or the subscription is trusted or
        closed; then everything stays as it is. ConnectionFailed when the server cannot be asked: try again.
        """
        if not isinstance(subject, Subject):
            raise SubscriptionError(
                f"update_subject takes a cdc.Subject, not {type(subject).__name__}: nobody becomes trusted by it"
            )
        if self.subject is None or self._on_renew is None:
            raise SubscriptionError(f"{self} has no subject of its own to renew: give one when you subscribe")
        if self.closed:
            raise SubscriptionError(f"{self} is closed: subscribe anew")
        self._on_renew(self, subject)

    def close(self) -> None:
        """Receive nothing more, from now on. Idempotent; may be called from any thread and from a handler."""
        self._end(None)

    def _end(self, reason: str | None) -> None:
        if not self.closed:
            self.closed_reason = reason
            self.closed = True
            if self._on_close is not None:
                self._on_close(self)

    def link(self, place: Place) -> Place | None:
        """Note that the change at `place` is delivered now; what was delivered before it."""
        previous, self._last = self._last, place
        self.delivered += 1
        return previous

    def __repr__(self) -> str:
        return f"<Subscription {self.schema}.{self.table} {self._as}>"

    @property
    def _as(self) -> str:
        who = "trusted" if self.subject is None else f"as {self.subject.role}"
        return who + ("" if self.filter is None else f", filter {self.filter!r}")
