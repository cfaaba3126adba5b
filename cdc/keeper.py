"""A keeper: brings a store's rows from its file, decides whether they may be trusted, and saves what has changed.

Part of the loop, which calls it where it may block. Rows are trusted when nothing can have changed them that the slot
will not send again: the same database, table, publications and life of the slot, and a position that is not behind what
was confirmed. Otherwise the table is read anew, and what the file had is shown until then, as of its position.

Rows for a subject are shown once the stream has come to where the database was when the store began: then every
change of its rights has been applied.
"""

from __future__ import annotations

import os
import time
from dataclasses import fields, is_dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any
from uuid import UUID

import psycopg

from cdc.errors import CdcError, SubscriptionError
from cdc.log import log
from cdc.lsn import Position
from cdc.pgoutput import describe
from cdc.recorder import told_of
from cdc.recording import Told
from cdc.session import Session
from cdc.snapshot import Texts
from cdc.store_file import StoreFile
from cdc.store_mark import StoreMark
from cdc.storing.feed import Feed
from cdc.storing.kept import Batch, Kept
from cdc.storing.lens import Lens
from cdc.values import Types

__all__ = ["SLICE", "Keeper", "source_of"]

SLICE = 20_000
"""Rows that are saved at once."""
_PLAIN = (str, bytes, int, float, Decimal, UUID, date, datetime, timedelta, type(None))
_EVERY = 1.0
_RETRY_AFTER = 10.0
_VARIABLES = {
    "service": "PGSERVICE", "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE",
}  # fmt: skip


class Keeper:
    """Keeps one store in one file.

    Args:
        feed: the store's subscription.
        path: the file.
        source: which database the consumer was told to read; rows of another one are not shown.
        types: the user's decoders.

    Attributes:
        problem: why the file is not up to date, or None.
        ground: what the rows rest on; see `store_ground`.
        after: the key up to which all was read; None while nothing is read, or nothing was read yet.

    Raises ConfigurationError when the file cannot be used.
    """

    def __init__(self, feed: Feed, path: str | Path, source: str, types: Types) -> None:
        self.problem: str | None = None
        self.ground = ""
        self.after: Texts | None = None
        self._feed = feed
        self._kept = feed.store.kept = Kept(feed.store)
        self._source = _hash(source)
        self._file = StoreFile(path)
        self._mark: StoreMark | None = None
        self._lines: list[bytes] = []
        self._why = "its file is new"
        self._saved_at = self._retry_at = 0.0
        self._saved: object = None
        self._has_begun = self._closed = False
        try:
            self._load(types)
        except BaseException:
            self._file.close()
            raise

    def _load(self, types: Types) -> None:
        found = self._file.load()
        if found is None:
            return
        mark, lines = found
        if (mark.wanted, mark.source) != (self._wanted, self._source):
            self._why = "its file is of another table, filter, subject or database"
        elif not (mark.done or mark.after):
            self._why = "its file was not whole"
        else:
            self._mark, self._lines = mark, lines
            if mark.done and self._feed.subject is None:
                self._show(mark, types)

    def _show(self, mark: StoreMark, types: Types) -> None:
        """Let the store show the rows, as of their position."""
        types.add(mark.told.types)
        relation = describe(mark.told.message, types, mark.told.key)
        try:
            self._kept.recall(Lens(relation, types.equality), self._lines, mark.position)
        except SubscriptionError:
            return  # A model or an index wants what the table did not have. The opening says so if it still has not.
        self._lines = []

    @property
    def _wanted(self) -> str:
        feed = self._feed
        return _hash((feed.schema, feed.table, feed.filter, feed.subject))

    # When the store begins.

    def begin(self, session: Session, handed: Position | None) -> Texts | None:
        """Go on from the file, or have the table read anew.

        Args:
            session: the open session.
            handed: the last change that was handed out in this process; it will not come again.

        The key behind which rows are to be read; empty when none are.
        """
        store, mark, lines = self._feed.store, self._mark, self._lines
        self._lines, self._has_begun = [], True
        lens = store.lens
        assert lens is not None
        reason = self._why if mark is None else self._distrust(mark, lens, session, handed)
        if mark is not None and mark.database != _database(session):
            self._kept.forget()
        if mark is None or reason is not None:
            log.info("store.file_not_used", store=self._feed.name, path=str(self._file.path), reason=reason)
            store.want(reason or self._why)
            return None
        self.ground = mark.ground
        log.info("store.file_used", store=self._feed.name, path=str(self._file.path), position=str(mark.position))
        if mark.done and self._feed.subject is None:
            if lines:
                self._kept.recall(lens, lines, mark.position)
            self._kept.trust(mark.position)
            return None
        store.want("it goes on from its file")
        self._kept.resume(lines, mark.position, mark.done)
        self.after = mark.after
        return mark.after or ()

    def _distrust(self, mark: StoreMark, lens: Lens, session: Session, handed: Position | None) -> str | None:
        """Why the rows may not be trusted; None when they may."""
        told, saved = told_of(session.admission, lens.relation), session.saved
        known = [each for each in (saved.position, handed) if each is not None and each.epoch == saved.epoch]
        rules = (
            ("it is of another database", mark.database != _database(session)),
            ("the table was to be read anew", mark.due),
            ("the table is another one, or was altered", _shape(mark.told) != _shape(told)),
            ("the table was rewritten or published anew", mark.ground != self._feed.ground),
            ("other rights", mark.sight is None or mark.sight != self._sight(lens)),
            ("other publications", mark.publications != _publications(session)),
            ("messages are counted now, or were before", mark.messages != bool(session.messages)),
            ("a temporary slot has no past", session.slot.temporary),
            ("the slot is another one, or was made anew", mark.epoch != saved.epoch),
        )
        found = next((reason for reason, holds in rules if holds), None)
        if found is None and known and (mark.position is None or mark.position < max(known)):
            found = f"it is behind the slot: {mark.position} is before {max(known)}"
        return None if found is None else f"its file is not used: {found}"

    def _sight(self, lens: Lens) -> str | None:
        """A hash of what may be seen; None when that cannot be told in another process."""
        if self._feed.subject is None:
            return ""
        written = _written(lens.sight)
        return None if written is None else _hash(written)

    # Saving.

    @property
    def _state(self) -> object:
        """What the mark says besides the position."""
        store = self._feed.store
        return store.is_filled and not store.wanted, self.after, bool(store.holes or store.stale)

    def _may_save(self, now: float) -> bool:
        return self._has_begun and not (self._closed or self._feed.closed) and now >= self._retry_at

    def is_due(self, now: float) -> bool:
        """Whether there is something to save."""
        if not self._may_save(now):
            return False
        count = self._kept.count
        return count >= SLICE or (now - self._saved_at >= _EVERY and (count > 0 or self._state != self._saved))

    def save(self, session: Session, handed: Position | None, every: bool = False) -> None:
        """Save what has changed: up to some thousand rows, or every one. A failure is a `problem`.

        Args:
            session: the open session.
            handed: the last change that was handed out to everybody who sees it.
            every: whether to go on until nothing is left.
        """
        now = time.monotonic()
        if not self._may_save(now):
            return
        self._saved_at = now
        while True:
            state = self._state
            batch = self._kept.take(SLICE if self._kept.count > 2 * SLICE else 2 * SLICE)
            try:
                if batch is None:
                    self._note_due()
                    self._saved = state
                    return
                self._save(batch, session, handed, state)
            except CdcError as error:
                if batch is not None:
                    self._kept.give_back(batch)
                self._failed(error, now)
                return
            self._saved, self.problem = state, None
            if batch.whole or not every:
                return

    def _save(self, batch: Batch, session: Session, handed: Position | None, state: object) -> None:
        if session.slot.temporary and not (batch.changes or batch.anew) and state == self._saved:
            return  # Nobody will ask for its position.
        mark = self._made(batch, session, handed)
        self._file.save(batch.changes, mark, batch.anew)
        self._mark = mark

    def _note_due(self) -> None:
        """The table is read anew, and the file stays as of its position."""
        if self._mark is not None and not self._mark.due:
            mark = replace(self._mark, due=True)
            self._file.save({}, mark)
            self._mark = mark

    def _made(self, batch: Batch, session: Session, handed: Position | None) -> StoreMark:
        saved, lens = session.saved, batch.lens
        known = [handed, batch.position]
        here = [each for each in known if each is not None and each.epoch == saved.epoch]
        return StoreMark(
            told=told_of(session.admission, lens.relation),
            wanted=self._wanted,
            sight=self._sight(lens),
            source=self._source,
            database=_database(session),
            publications=_publications(session),
            messages=bool(session.messages),
            epoch=saved.epoch,
            position=max(here, default=None),
            ground=self.ground,
            done=batch.filled and batch.whole,
            due=batch.due,
            after=self.after if batch.whole and not (batch.filled or batch.due) else None,
        )

    def _failed(self, error: CdcError, now: float) -> None:
        if self.problem is None:
            log.warning("store.file_not_saved", store=self._feed.name, reason=str(error))
        self.problem, self._retry_at = str(error), now + _RETRY_AFTER

    def close(self) -> None:
        """Give the file back. Idempotent."""
        self._closed = True
        self._file.close()


def source_of(dsn: str) -> str:
    """Which database a DSN names, without what says how to get there: user, password and the like."""
    try:
        said = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        said = {}  # The opening says what is wrong with it.
    names = ("service", "host", "hostaddr", "port", "dbname")
    return repr([said.get(name) or os.environ.get(_VARIABLES[name]) for name in names])


def _hash(said: object) -> str:
    return sha256(repr(said).encode()).hexdigest()[:16]


def _shape(told: Told) -> object:
    return told.message, told.key


def _database(session: Session) -> tuple[str, str]:
    return session.saved.system_id, session.control.info.dbname


def _publications(session: Session) -> tuple[tuple[str, int], ...]:
    return tuple(zip(session.saved.publications, session.saved.publication_oids, strict=False))


def _written(said: Any) -> str | None:
    """What a predicate's key says, the same in each process; None where it has something that has no such text."""
    if is_dataclass(said) and not isinstance(said, type):
        said = (type(said).__qualname__, *(getattr(said, each.name) for each in fields(said)))
    if isinstance(said, tuple | frozenset):
        parts = [_written(each) for each in said]
        texts = [each for each in parts if each is not None]
        if len(texts) < len(parts):
            return None
        return repr((type(said).__name__, sorted(texts) if isinstance(said, frozenset) else texts))
    if isinstance(said, FunctionType):
        is_named = said.__closure__ is None and "<" not in said.__qualname__
        return f"{said.__module__}.{said.__qualname__}" if is_named else None
    return repr(said) if isinstance(said, _PLAIN) else None
