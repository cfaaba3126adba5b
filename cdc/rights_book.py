"""The book of rights: the facts of tables and the roles as they are known at this moment.

May import psycopg. With a table cdc.rights that can be relied on, facts come from its rows, each from its place in the
stream on: `put` takes them as they arrive. What event triggers do not see, as REASSIGN OWNED, is found by asking
whether the newest row still holds. Without the table facts are the newest ones. Roles are always the newest ones.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import psycopg

from cdc.loader import is_visible, snapshot_of
from cdc.lsn import Lsn
from cdc.rights import read_roles
from cdc.rights_rows import (
    Drift,
    Fresh,
    Standing,
    Stated,
    drifted,
    newest_id,
    read_fresh,
    rows_as_of,
    standing,
    stated,
)
from cdc.rls import TableRights
from cdc.rls.facts import Facts
from cdc.rls.grants import Roles, rights_of
from cdc.server import flush_lsn

__all__ = ["Book"]

_GONE = "the table is gone"
_HIDDEN = "the transaction that came last is not visible yet"
_MISSING = Fresh("", _GONE)
_SOON = 1.0
"""Seconds within which a commit that was streamed is visible, as a rule."""


class Book:
    """What is known of rights.

    Args:
        connection: an ordinary connection to the slot's own server.
        publications: names of the publications that are streamed.

    Attributes:
        standing: what cdc.rights is worth.
        last: id of the last row of it that was in force; None without the table.
    """

    def __init__(self, connection: psycopg.Connection[Any], publications: Iterable[str]) -> None:
        self._connection = connection
        self._publications = tuple(publications)
        self.standing = Standing()
        self.last: int | None = None
        self._rows: dict[int, tuple[int, Stated]] = {}
        """The row that is in force for each table, by its id."""
        self._unread: dict[int, tuple[int, object]] = {}
        """Rows that have arrived and were not read yet: their ids and their facts as JSON."""
        self._drift: dict[int, Stated] = {}
        """What holds instead, since the newest row does not say it."""
        self._ahead: dict[int, tuple[int, Lsn]] = {}
        """Newest rows that had not arrived when they were looked at, and where the WAL ended then."""
        self._fresh: dict[int, Fresh] = {}
        self._hidden: dict[int, int] = {}
        """Transactions that were not visible when facts were to be read."""
        self._ledger: list[tuple[int, int]] = []
        """Commit LSN and id of the rows that arrived."""
        self._made: dict[tuple[int, str], tuple[Facts, Roles, TableRights | None]] = {}
        """Rights, and what they were made of."""
        self._names: set[str] = set()
        self._roles = Roles({}, {}, 0, True)

    def begin(self, last: int | None, former: Book | None = None) -> None:
        """Go to where the stream begins: behind the row with this id, or as far as a former book had come.

        None stands for the newest rows.
        """
        known = {*self._rows, *self._fresh}
        self._forget()
        self.standing = standing(self._connection, self._publications)
        if self.standing.oid is not None:
            if former is not None and former.standing.oid == self.standing.oid:
                self.last, self._rows, self._ledger = former.last, dict(former._rows), list(former._ledger)
                self._unread = dict(former._unread)
            else:
                self._start(newest_id(self._connection) if last is None else last)
        self.settle()
        for oid in known:
            self.load(oid)

    def load(self, oid: int, roles: Iterable[str] = (), xid: int | None = None) -> None:
        """Know the facts of a table and these roles. Raises psycopg.Error when the server cannot be asked.

        Facts of now are not known before the transaction `xid`, which the stream may have sent too early, is visible.
        """
        missing = set(roles) - self._names
        if missing:
            self._names |= missing
            self._roles = read_roles(self._connection, sorted(self._names))
        if self.standing.oid is None:
            if xid is not None and not is_visible(self._connection, xid, _SOON):
                self._hidden[oid] = xid
                self._fresh[oid] = Fresh("", _HIDDEN)
                return
            known = {oid: self._fresh.get(oid, _MISSING)}
            self._fresh[oid] = read_fresh(self._connection, known).get(oid, _MISSING)
        elif oid not in self._rows and oid not in self._unread and self.last is not None:
            self._rows |= rows_as_of(self._connection, [oid], self.last) or {oid: (0, self._now(oid))}

    def put(self, table: int, oid: int, number: int, facts: str | None, commit_lsn: Lsn) -> bool:
        """A row of the table cdc.rights has arrived. Whether it is news: one that came before is not.

        Args:
            table: OID of the table that the row is of.
            oid, number, facts: what it says.
            commit_lsn: of the transaction that wrote it.
        """
        known = self._unread.get(oid) or self._rows.get(oid)
        if table != self.standing.oid or number <= (self.last or 0 if known is None else known[0]):
            return False
        self._unread[oid] = (number, None if facts is None else json.loads(facts))
        self.last = max(self.last or 0, number)
        self._ledger.append((commit_lsn, self.last))
        return True

    def settle(self) -> None:
        """Read the rows that have arrived; the server may have to be asked what functions in them do."""
        for oid, (number, said) in list(self._unread.items()):
            self._rows[oid] = (number, stated(self._connection, oid, said))
            self._drift.pop(oid, None)
            del self._unread[oid]

    def poll(self, reached: Lsn) -> None:
        """Ask the server again for all that does not come in the stream. `reached` is how far that was handled."""
        self.settle()
        if not self._names:
            return
        self._look()
        roles = read_roles(self._connection, sorted(self._names))
        self._roles = self._roles if roles == self._roles else roles
        if self.standing.oid is None:
            snapshot = snapshot_of(self._connection) if self._hidden else None
            self._hidden = {oid: xid for oid, xid in self._hidden.items() if snapshot and not snapshot.sees(xid)}
            known = {oid: fresh for oid, fresh in self._fresh.items() if oid not in self._hidden}
            found = read_fresh(self._connection, known)
            self._fresh |= {oid: found.get(oid, _MISSING) for oid in known}
            return
        ends = flush_lsn(self._connection)
        for oid, drift in drifted(self._connection, self._rows).items():
            self._compare(oid, drift, reached, ends)

    def rights(self, oid: int, role: str) -> TableRights | str | None:
        """The rights of a role on a table, or why nobody knows these; None when there is no such role."""
        if role not in self._roles.by_name:
            return None
        found = self._facts(oid)
        if isinstance(found, str):
            return found
        made = self._made.get((oid, role))
        if made is None or made[0] is not found or made[1] is not self._roles:
            made = self._made[oid, role] = (found, self._roles, rights_of(found, self._roles, role))
        return made[2]

    def as_of(self, lsn: Lsn) -> int | None:
        """Id of the last row whose transaction ended before an LSN, up to which everything is finished."""
        if self.last is None:
            return None
        passed = bisect_left(self._ledger, (lsn, 0))
        if passed == 0:
            return None
        del self._ledger[: passed - 1]
        return self._ledger[0][1]

    def _facts(self, oid: int) -> Stated:
        if self.standing.oid is None:
            return self._fresh[oid].facts if oid in self._fresh else "they were not asked for"
        return self._drift.get(oid) or self._rows.get(oid, (0, "they were not asked for"))[1]

    def _now(self, oid: int) -> Stated:
        """The facts as of now, of a table that has no row."""
        drift = drifted(self._connection, [oid]).get(oid)
        return _GONE if drift is None else drift.facts

    def _look(self) -> None:
        """See what cdc.rights is worth now. When that is something else than before, everything is asked for anew."""
        before, self.standing = self.standing, standing(self._connection, self._publications)
        if before.oid == self.standing.oid:
            return
        known = {*self._rows, *self._fresh}
        self._forget()
        if self.standing.oid is not None:
            self._start(newest_id(self._connection))
        for oid in known:
            self.load(oid)

    def _start(self, last: int) -> None:
        self.last, self._ledger = last, [(0, last)]

    def _forget(self) -> None:
        self.last = None
        self._ledger = []
        for kept in (self._rows, self._unread, self._drift, self._ahead, self._fresh, self._hidden):
            kept.clear()

    def _compare(self, oid: int, drift: Drift, reached: Lsn, ends: Lsn) -> None:
        """Whether the row that is in force is the newest one, and whether that holds.

        A newer one is on its way. If it does not come although the stream has passed the place, it never will.
        """
        number, newest = self._rows[oid][0], drift.newest or 0
        if newest == number:
            self._ahead.pop(oid, None)
            if drift.differs:
                self._drift[oid] = drift.facts
            else:
                self._drift.pop(oid, None)
        elif newest > number:
            awaited, ended = self._ahead.setdefault(oid, (newest, ends))
            if awaited <= number:
                self._ahead[oid] = (newest, ends)
            elif ended <= reached:
                del self._ahead[oid]
                self._drift.pop(oid, None)
                self._rows |= rows_as_of(self._connection, [oid], newest)
