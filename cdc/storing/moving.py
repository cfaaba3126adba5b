"""Moving: the part of a store that the loop moves.

Pure but for a mutex, a future and the clock. What readers see are always the contents of one place in the stream and of
what came since: the first fill and every further one gather new contents beside them, which take their place when they
are whole. Changes of the stream go to the contents that are gathered while there are any.

A change is judged here and not by a view, since the store knows more: the row that it holds is the old row of an
update that comes without one, and has the values that the server did not send.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from itertools import chain
from typing import Any

from cdc.errors import CdcError
from cdc.events import Gap, GapKind, Prepared, RowChange, SchemaChange, Truncate, Update
from cdc.health import Status
from cdc.predicate import TRUE
from cdc.relation import Relation
from cdc.storing.contents import Columns, Contents
from cdc.storing.feed import Feed
from cdc.storing.kept import Kept, begun
from cdc.storing.lens import Lens
from cdc.storing.line import cells_of, filled, line_of
from cdc.storing.model import Model
from cdc.storing.polled_rows import PolledRows
from cdc.storing.telling import Changes, Filled, Handler, differences, left, tell, turned
from cdc.transaction import Place, microseconds_of
from cdc.tuples import UNCHANGED

__all__ = ["Moving"]

Texts = tuple[str, ...]
"""A key as the text of its values."""
Moved = list[tuple[Hashable, bytes | None, bytes | None]]
"""Slots of rows, with what was there and what is."""


class Moving:
    """What moves in a store. Use `Store`, or `AsyncStore`.

    Attributes:
        table: the table, as `"schema.table"`.
        feed: the subscription that keeps it in step.
        is_filled: whether it was filled once.
        stale: why it is to be filled anew, as soon as the loop can begin with that; None when it is not.
        wanted: why it is filled, in words; None when it is not.
        round: how often that was begun.
        holes: keys of rows with a value that neither was sent nor is held, so that they have to be read.
        asked: those of them that are being read.
        read: rows that were read for this fill.
        note: what else hears of the table's changes, while rows of it are read.
        kept: the side that its file sees; None for a store without a file.
        is_polled: whether what readers see was found by polling, so that it is as of no place in the stream.
    """

    _waits: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the caller is a handler, which must not wait."""
    _status: Callable[[], Status] = staticmethod(lambda: Status.OFFLINE)
    _wake: Callable[[], None] = staticmethod(lambda: None)
    _takes: Callable[[Handler], None] = staticmethod(lambda handler: None)
    """Raises ConfigurationError for a handler that the consumer cannot call."""

    def __init__(self, table: str, model: Model | None = None) -> None:
        self.table = table
        self.feed: Feed
        self._model = model
        self._mutex = threading.RLock()
        self._shown: Contents | None = None
        """What readers see; None before the table is known."""
        self._gathered: Contents | None = None
        """What takes its place once it is whole."""
        self._lens: Lens | None = None
        self._columns: list[Columns] = []
        self._handlers: list[Handler] = []
        self._future: Future[None] = Future()
        self._failure: BaseException | None = None
        self._veiled: Changes = ()
        """What went when rights changed, and was not told yet."""
        self.is_filled = self.is_polled = False
        self.stale: str | None = None
        self.wanted: str | None = None
        self.round = 0
        self.holes: dict[Hashable, Texts] = {}
        self.asked: set[Hashable] = set()
        self.read = 0
        self.note: Callable[[RowChange | Truncate], None] | None = None
        self.kept: Kept | None = None

    @property
    def is_live(self) -> bool:
        """Whether it holds the table as it is, as far as the server has told."""
        whole = self.is_filled and self._gathered is None and not (self.holes or self.stale)
        return whole and not self.feed.closed and self._status() is Status.LIVE

    def _made(self, contents: Contents, line: bytes) -> Any:
        row = contents.row(line)
        return row if self._model is None else self._model.of(row)

    def look(self) -> None:
        """Tell those who wait when it is live."""
        if self.is_live:
            with suppress(InvalidStateError):
                self._future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """The consumer is over, or the store is."""
        with self._mutex:
            self._failure = error
            if self._future.done():
                self._future = Future()
            self._future.set_exception(error)

    def close_down(self, error: BaseException) -> None:
        """It was closed: nothing is kept."""
        with self._mutex:
            if self._shown is not None:
                self._shown = Contents(self._shown.lens, self._columns)
            self._gathered, self.wanted = None, None
            self.holes.clear()
        self.fail(error)

    def bind(self, lens: Lens) -> None:
        """How it looks at its table from here on. Rows that it may not show any more go at once. It judges by itself.

        Raises SubscriptionError for a model or an index that the table has no column for.
        """
        if self._model is not None:
            self._model.check(str(lens.relation), lens.relation.without(lens.hidden).whole.columns)
        with self._mutex:
            known, self._lens = self._shown, lens
            if known is None:
                self._shown = Contents(lens, self._columns)
                self.want("it begins")
            elif self._gathered is not None:
                gathered, trusted = self._gathered.lens, self.feed.subject is None
                if gathered.relation != lens.relation or not (trusted or gathered.is_like(lens)):
                    self.want(self.wanted or "the table looks different")
                else:
                    self._gathered.lens = lens
            elif known.lens.relation != lens.relation:
                self.want("the table looks different")
            if known is not None:
                self._look_through(known, lens)

    def _look_through(self, known: Contents, lens: Lens) -> None:
        """Let what is shown be shown by this lens, if it is of the same shape; else as far as it is allowed."""
        same = known.lens.relation == lens.relation
        if self.feed.subject is None or (same and lens.is_like(known.lens)):
            known.lens = lens if same else known.lens
            return
        before, now = Contents(known.lens), microseconds_of(time.time())
        # Nobody reads what he may not while it is gone through.
        self._shown = Contents(lens, self._columns)
        if same:
            gone = {slot: line for slot, line in known.rows.items() if lens.shows(cells_of(line), now) != TRUE}
            for slot in gone:
                known.drop(slot)
            known.lens = lens
        else:
            # Its rights say nothing of the rows as they were.
            gone = known.rows
            known.clear()
        known.spoil()
        self._shown, self._veiled = known, left(before, gone, self._maker(before), None)
        self.round += 1  # What is being read was asked for by other rights.

    def deny(self) -> None:
        """It may not show anything, whatever the table has."""
        with self._mutex:
            self._gathered, self.wanted, self.is_filled, self.is_polled = None, None, True, False
            self.holes.clear()
            self.round += 1
            if (shown := self._shown) is not None and self._lens is not None:
                self._veiled = left(before := Contents(shown.lens), shown.rows, self._maker(before), None)
                self._lens = self._lens.blind(self._lens.relation)
                self._shown = Contents(self._lens, self._columns)
                self._shown.follow(shown)
                self._shown.spoil()

    def refill(self, reason: str) -> None:
        """Have the table read again, from any thread; what is shown stays until that is done."""
        self.stale = reason
        self._wake()

    def found(self, relation: Relation) -> None:
        """The catalog describes the table like this."""
        shown = self._shown
        if shown is not None and self._gathered is None and shown.lens.relation != relation:
            self.refill("the table looks different")

    def want(self, reason: str) -> None:
        """Have the table read from its beginning; what is shown stays until that is done."""
        assert self._lens is not None
        with self._mutex:
            self.wanted, self.stale, self.round = reason, None, self.round + 1
            self._gathered = begun(self.kept, Contents(self._lens, self._columns))
            self.holes.clear()
            self.asked.clear()
            self.read = 0

    @property
    def lens(self) -> Lens | None:
        """How it looks at what it gathers, or shows."""
        target = self._gathered or self._shown
        return None if target is None else target.lens

    def gather(self, lens: Lens) -> None:
        """What is read is seen through this lens: what was gathered through another one goes."""
        with self._mutex:
            if self._gathered is not None and self._gathered.lens.relation != lens.relation:
                self._gathered = begun(self.kept, Contents(lens, self._columns))
                self.holes.clear()

    def merge(self, rows: Mapping[Any, bytes], place: Place) -> Changes:
        """Take in rows of a chunk, all of which may be shown, at their place; what is to be told of them."""
        with self._mutex:
            if self._gathered is not None:
                self._gathered.fill(rows)
                self._gathered.place = place
                return ()
            contents, changes = self._shown, []
            if contents is None or self.feed.closed:
                return ()
            for slot, line in rows.items():
                changes.append((slot, contents.rows.get(slot), line))
                contents.put(slot, line)
            contents.place = place
        return self._turned(contents, changes, None)

    def receive(self, event: Any) -> Any:
        """Move, before any handler sees the event; then tell of it. What is to be awaited, or None."""
        if self.note is not None and isinstance(event, RowChange | Truncate):
            self.note(event)
        if self.kept is not None and isinstance(event, RowChange | Truncate) and self.kept.is_past(event):
            return None
        if isinstance(event, RowChange):
            changes = self._receive_row(event)
        elif isinstance(event, Truncate):
            changes = self._truncate(event)
        elif isinstance(event, Filled):
            changes = self._complete(event.changes)
        elif isinstance(event, PolledRows):
            changes = self._poll(event)
        elif isinstance(event, Gap):
            changes = self._gap(event)
        else:
            assert isinstance(event, SchemaChange | Prepared)  # `bind` has seen to what the table looks like.
            return None
        if self._veiled:
            veiled, self._veiled = self._veiled, ()
            changes = chain(veiled, changes)
        return tell(self._handlers, changes) if self._handlers else None

    def _receive_row(self, event: RowChange) -> Changes:
        with self._mutex:
            contents, lens = self._gathered or self._shown, self._lens
            if contents is None or lens is None or self.feed.closed:
                return ()
            if event._relation is not contents.lens.relation and event._relation != contents.lens.relation:
                self.want("the table looks different")
                return ()
            contents.place = event._place
            changes = self._move(contents, event)
        return () if contents is self._gathered or not self._handlers else self._turned(contents, changes, event)

    def _move(self, contents: Contents, event: RowChange) -> Moved:
        """Move the contents by a change: which slots had what, and have what now."""
        lens, old, new = contents.lens, event._old, event._new
        slot_of, rows = lens.keys.of_cells, contents.rows
        if new is None:
            assert old is not None
            return self._gone(contents, slot_of(old.cells))
        after = slot_of(new.cells)
        before = after if old is None else slot_of(old.cells)
        moved: Moved = []
        held = rows.get(before) if isinstance(event, Update) else None
        cells = filled(new.cells, held)
        if before != after and isinstance(event, Update) and not contents.is_other(old, held):
            moved += self._gone(contents, before)
        outcome = lens.shows(cells, event._place[0].commit_microseconds)
        if outcome & TRUE and UNCHANGED in cells:
            # Whether it is to be seen, or what of it, lies in a value that was not sent and is not held.
            self.asked.discard(after)
            self.holes[after] = lens.keys.texts(cells)
            outcome = 0
            moved += [] if (line := contents.drop(after)) is None else [(after, line, None)]
        elif outcome != TRUE:
            moved += self._gone(contents, after)
        else:
            self.holes.pop(after, None)
            line = line_of(cells)
            moved.append((after, rows.get(after), line))
            contents.put(after, line)
        return moved

    def _gone(self, contents: Contents, slot: Hashable) -> Moved:
        self.holes.pop(slot, None)
        line = contents.drop(slot)
        return [] if line is None else [(slot, line, None)]

    def _truncate(self, event: Truncate) -> Changes:
        with self._mutex:
            contents = self._gathered or self._shown
            if contents is None:
                return ()
            rows = contents.rows
            contents.clear()
            self.holes.clear()
            contents.place = event._place
        told = self._handlers and contents is self._shown
        return left(contents, rows, self._maker(contents), event.position) if told else ()

    def _gap(self, gap: Gap) -> Changes:
        if gap.kind is GapKind.SUBJECT_EXPIRED:
            shown = self._shown
            self.close_down(CdcError(f"the store of {self.table} was closed: {gap.reason}"))
            return () if shown is None else left(shown, shown.rows, self._maker(shown), None)
        if self._lens is not None:
            self.want(gap.reason)
        return ()

    def _poll(self, polled: PolledRows) -> Changes:
        """What readers see follows the polls until it is read anew beside the stream, whose changes it waits for."""
        with self._mutex:
            if self._shown is None or not (polled.is_first or self.is_polled):
                return ()
            if polled.is_first:
                self.want("it was polled while there was no stream")
            self._shown, changes = polled.taken_by(self._shown, self._columns, self._maker)
            self.is_polled, self._shown.place = True, None
        return changes

    def _complete(self, changes: Changes) -> Changes:
        """What was gathered is whole, and takes the place of what was shown."""
        with self._mutex:
            shown, gathered = self._shown, self._gathered
            if gathered is None:
                return changes
            if self.kept is not None:
                self.kept.complete(shown, gathered)
            self._shown, self._gathered, self.wanted = gathered, None, None
            self.is_filled, self.is_polled = True, False
        if not self._handlers or shown is None:
            return ()
        return differences(shown, gathered, self._maker(shown), self._maker(gathered))

    def _maker(self, contents: Contents) -> Callable[[bytes], Any]:
        return lambda line: self._made(contents, line)

    def _turned(self, contents: Contents, changes: Any, event: RowChange | None) -> Changes:
        return turned(contents, changes, self._maker(contents), None if event is None else event.position)
