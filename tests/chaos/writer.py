"""The writer: sessions that work on the tables with plain SQL, each keeping its part of the ledger.

Connects to the server itself, not through the proxy. A session whose connection dies connects again and first asks
for the end of what it has in doubt: by `pg_xact_status`, and by a row that each transaction leaves in `commits`, as a
crash gives ids that never reached the disk to other transactions.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, LiteralString, cast

import psycopg

from tests.chaos.ledger import TABLES, Entry, Ledger, Outcome, change

__all__ = ["PUBLISH", "SCHEMA", "Writer"]

SCHEMA: LiteralString = """
CREATE TABLE commits (session int, number int, PRIMARY KEY (session, number));
CREATE TABLE wells (id int PRIMARY KEY, session int, value text, padding text);
CREATE TABLE pipes (session int, number int, value text, padding text, PRIMARY KEY (session, number));
CREATE TABLE marks (id int PRIMARY KEY, session int, value text, padding text);
ALTER TABLE marks REPLICA IDENTITY FULL;
"""
PUBLISH: LiteralString = "CREATE PUBLICATION chaos FOR TABLE wells, pipes, marks"

_PATIENCE = 40.0
"""Seconds that a session tries to settle what it has in doubt at the end."""
_BACKLOG = 2000
"""Changes that may wait for the consumer before the sessions slow down."""
_REST = 0.5
_SESSION = "-c lock_timeout=300ms -c statement_timeout=10s -c application_name=chaos-writer"
_OWN = "session = %(session)s"
_KEYS = {"wells": "to_jsonb(id)", "pipes": "jsonb_build_array(session, number)", "marks": "to_jsonb(id)"}
"""The keys as the consumer has them: a value, or a list of several in the relation's order."""
_HERE = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"


class Writer:
    """Some sessions, each a thread, from `start` to `finish`.

    Args:
        dsn: the database.
        seed: what the sessions do is drawn from it.
        pause: seconds between two transactions of a session, at most.
        sessions: how many.
    """

    def __init__(self, dsn: str, seed: str, pause: float = 0.04, sessions: int = 3) -> None:
        self.ledger = Ledger()
        self._stopping = threading.Event()
        self._sessions = [
            _Session(dsn, number, random.Random(f"{seed}/{number}"), pause, self.ledger, self._stopping)
            for number in range(1, sessions + 1)
        ]
        self._threads = [threading.Thread(target=each.run, daemon=True) for each in self._sessions]

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stop, and wait until every transaction's end is known. Raises when a session failed."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_PATIENCE + 20)
        for each in self._sessions:
            if each.failure is not None:
                raise RuntimeError(f"the writer's session {each.number} failed") from each.failure
        if self.ledger.undecided:
            raise RuntimeError(f"nobody knows the end of {self.ledger.undecided[0]}")

    def last_word(self, dsn: str) -> str:
        """One more transaction; the value by which its change is known in the sink."""
        session = _Session(dsn, 0, random.Random(0), 0, self.ledger, self._stopping)
        session.once(lambda: session.insert(count=1, table="wells"))
        return str(self.ledger.entries[-1].changes[-1][-1])


class _Session:
    """One session of the writer; see `Writer`."""

    def __init__(
        self, dsn: str, number: int, chance: random.Random, pause: float, ledger: Ledger, stopping: threading.Event
    ) -> None:
        self.number = number
        self.failure: BaseException | None = None
        self._dsn, self._chance, self._pause, self._ledger, self._stopping = dsn, chance, pause, ledger, stopping
        self._transactions = self._commits = self._values = self._numbers = 0
        self._connection: psycopg.Connection[Any]
        self._entry: Entry

    def run(self) -> None:
        """Work until told to stop, whatever happens to the server; then settle."""
        try:
            while not self._stopping.is_set():
                self._connected(self._work)
            deadline = time.monotonic() + _PATIENCE
            while not self._connected(self._wind_up) and time.monotonic() < deadline:
                time.sleep(0.05)
        except BaseException as error:
            self.failure = error

    def once(self, work: Callable[[], None]) -> None:
        """One transaction of this work; it is committed. Raises what goes wrong."""
        with psycopg.connect(self._dsn, autocommit=True, options=_SESSION) as self._connection:
            self._transaction(work, Outcome.COMMITTED)

    def _connected(self, work: Callable[[], None]) -> bool:
        """Do some work over a connection of its own; False when that was lost."""
        try:
            with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5, options=_SESSION) as self._connection:
                work()
            return True
        except psycopg.Error:
            time.sleep(0.05)
            return False

    def _work(self) -> None:
        self._settle()
        while not self._stopping.wait(self._chance.uniform(0.1, 1) * self._breath):
            end = self._chance.choices(
                (Outcome.COMMITTED, Outcome.ROLLED_BACK, Outcome.PREPARED), (88, 7, 5 if self.number == 1 else 0)
            )[0]
            # A lock that was not to be had is of no consequence: the ledger says that it was rolled back.
            with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                self._transaction(self._anything, end)
            for entry in self._ledger.of(self.number, Outcome.PREPARED):
                if self._transactions >= entry.number + 3:
                    self._finish_prepared(entry)

    @property
    def _breath(self) -> float:
        """Seconds between two transactions: many when the consumer is far behind, or a round would never end."""
        return _REST if self._ledger.backlog > _BACKLOG else self._pause

    def _wind_up(self) -> None:
        self._settle()
        for entry in self._ledger.of(self.number, Outcome.PREPARED):
            self._finish_prepared(entry)

    # A transaction, from its beginning to its end.

    def _transaction(self, work: Callable[[], None], end: Outcome) -> None:
        self._transactions += 1
        entry = self._entry = self._ledger.open(self.number, self._transactions)
        try:
            self._execute("BEGIN")
            noted = "INSERT INTO commits VALUES (%s, %s) RETURNING pg_current_xact_id()::text::bigint"
            entry.began = self._execute(_HERE)[0][0]
            entry.xid = self._execute(noted, self.number, entry.number)[0][0]
            work()
            self._end(entry, end)
        except psycopg.Error:
            if entry.outcome is Outcome.OPEN:
                entry.outcome = Outcome.ROLLED_BACK
                if not self._connection.broken:
                    self._execute("ROLLBACK")
            raise

    def _end(self, entry: Entry, end: Outcome) -> None:
        if end is Outcome.ROLLED_BACK:
            self._execute("ROLLBACK")
            entry.outcome = Outcome.ROLLED_BACK
            return
        entry.before = self._execute(_HERE)[0][0]
        entry.outcome = Outcome.IN_DOUBT
        if end is Outcome.PREPARED:
            entry.gid = f"{self.number}-{entry.number}"
            self._execute(f"PREPARE TRANSACTION '{entry.gid}'")
            entry.outcome = Outcome.PREPARED
        else:
            self._execute("COMMIT")
            self._committed(entry)

    def _committed(self, entry: Entry) -> None:
        self._commits += 1
        entry.outcome, entry.order = Outcome.COMMITTED, self._commits
        self._ledger.wrote(len(entry.changes))
        entry.after = self._execute(_HERE)[0][0]

    def _finish_prepared(self, entry: Entry) -> None:
        if self._chance.random() < 0.2:
            # Should the answer be lost, it is settled like any other.
            entry.outcome = Outcome.IN_DOUBT
            self._execute(f"ROLLBACK PREPARED '{entry.gid}'")
            entry.outcome = Outcome.ROLLED_BACK
            return
        entry.before = self._execute(_HERE)[0][0]
        entry.outcome = Outcome.IN_DOUBT
        self._execute(f"COMMIT PREPARED '{entry.gid}'")
        self._committed(entry)

    # What is in doubt.

    def _settle(self) -> None:
        """Ask for the end of what was in doubt when the connection died."""
        for entry in list(self._ledger.of(self.number, Outcome.IN_DOUBT)):
            while (outcome := self._outcome(entry)) is Outcome.IN_DOUBT:
                time.sleep(0.02)
            if outcome is Outcome.COMMITTED:
                self._committed(entry)
                entry.after = None if entry.gid is None else entry.after
            entry.outcome = outcome

    def _outcome(self, entry: Entry) -> Outcome:
        try:
            status = self._execute("SELECT pg_xact_status(%s::text::xid8)", entry.xid)[0][0]
        except psycopg.errors.InvalidParameterValue:  # It is in the future: a crash took it away.
            return Outcome.ROLLED_BACK
        if status == "in progress":
            listed = self._execute(
                "SELECT 1 FROM pg_prepared_xacts WHERE gid = %s AND database = current_database()", entry.gid
            )
            return Outcome.PREPARED if listed else Outcome.IN_DOUBT
        noted = self._execute("SELECT 1 FROM commits WHERE session = %s AND number = %s", entry.session, entry.number)
        return Outcome.COMMITTED if status == "committed" and noted else Outcome.ROLLED_BACK

    # The work.

    def _anything(self) -> None:
        """A few pieces of work, some of them undone behind a savepoint."""
        chance = self._chance
        for _ in range(chance.choice((1, 1, 2, 3, 6))):
            piece = chance.choices(
                (self.insert, self.update, self.renumber, self.delete, self.truncate, self.bulk),
                (40, 30, 10, 15, 1.5, 2.5),
            )[0]
            if chance.random() < 0.15:
                self._nested(piece)
            else:
                piece()

    def _nested(self, piece: Callable[[], None]) -> None:
        """A piece in a sub-transaction, which is kept or rolled back."""
        kept = len(self._entry.changes)
        self._execute("SAVEPOINT nested")
        piece()
        if self._chance.random() < 0.5:
            self._execute("RELEASE SAVEPOINT nested")
        else:
            self._execute("ROLLBACK TO SAVEPOINT nested")
            del self._entry.changes[kept:]

    def insert(self, count: int | None = None, table: str | None = None) -> None:
        """A few new rows, one statement each; some are long."""
        name = table or self._table()
        for _ in range(count or self._chance.choice((1, 1, 2, 5))):
            self._insert(name, 1, self._chance.choice((0, 1, 90)))

    def bulk(self) -> None:
        """Many rows by one statement: the server streams the transaction before it has committed."""
        self._insert(self._table(), self._chance.randint(150, 500), 12)

    def update(self) -> None:
        """Other values, in a few rows or in many."""
        name = self._table()
        number = self._number(name)
        values = {"count": self._chance.choice((1, 1, 3, 30)), "skip": self._chance.randint(0, 40)}
        statement = f"UPDATE {name} SET value = %(value)s || {number} WHERE {number} IN ({_some(name)}) AND {_OWN}"
        self._note(name, "UPDATE", statement, **values)

    def renumber(self) -> None:
        """Another key for a row."""
        name = self._table()
        number = self._number(name)
        select = f"SELECT {number}, {_KEYS[name]} FROM {name} WHERE {_OWN} ORDER BY 1 OFFSET %(skip)s LIMIT 1"
        for old, key in self._execute(select, skip=self._chance.randint(0, 9), session=self.number):
            statement = f"UPDATE {name} SET {number} = %(fresh)s, value = %(value)s WHERE {number} = %(old)s AND {_OWN}"
            self._note(name, "UPDATE", statement, key, old=old, fresh=self._fresh())

    def delete(self) -> None:
        """Rows that go."""
        name = self._table()
        values = {"count": self._chance.choice((1, 2, 40)), "skip": self._chance.randint(0, 20)}
        self._note(
            name, "DELETE", f"DELETE FROM {name} WHERE {self._number(name)} IN ({_some(name)}) AND {_OWN}", **values
        )

    def truncate(self) -> None:
        """One table or two are emptied, the rows of the other sessions with them."""
        names = self._chance.choice((("marks",), ("pipes",), ("marks", "pipes"), ("wells",)))
        self._execute(f"TRUNCATE {', '.join(names)}")
        self._entry.changes += [change(name, "TRUNCATE", None) for name in names]

    def _insert(self, name: str, count: int, size: int) -> None:
        statement = (
            f"INSERT INTO {name} ({self._number(name)}, session, value, padding) "
            "SELECT n, %(session)s, %(value)s || n, (SELECT string_agg(md5(n::text || m), '') "
            "FROM generate_series(1, %(size)s) m) FROM generate_series(%(first)s, %(first)s + %(count)s - 1) n"
        )
        self._note(name, "INSERT", statement, first=self._fresh(count), count=count, size=size)

    def _note(self, table: str, operation: str, statement: str, old_key: Any = None, **values: Any) -> None:
        """Execute a statement and note what it says that it has changed."""
        self._values += 1
        values |= {"session": self.number, "value": f"{self.number}/{self._entry.number}/{self._values}/"}
        for key, value in self._execute(f"{statement} RETURNING {_KEYS[table]}, value", **values):
            old = None if operation == "INSERT" else old_key if old_key is not None else key
            new = None if operation == "DELETE" else value
            self._entry.changes.append(change(table, operation, key, old, new))

    def _execute(self, statement: str, *values: Any, **named: Any) -> list[Any]:
        cursor = self._connection.execute(cast("LiteralString", statement), named or values or None)
        return cursor.fetchall() if cursor.description is not None else []

    def _table(self) -> str:
        return self._chance.choices(list(TABLES), (5, 3, 3))[0]

    def _number(self, table: str) -> str:
        """The column that is different in each row."""
        return TABLES[table][-1]

    def _fresh(self, count: int = 1) -> int:
        """The first of some numbers that no session has used."""
        self._numbers += count
        return self.number * 1_000_000 + self._numbers - count


def _some(table: str) -> str:
    """A query for the numbers of some rows of the session."""
    number = TABLES[table][-1]
    return f"SELECT {number} FROM {table} WHERE {_OWN} ORDER BY 1 OFFSET %(skip)s LIMIT %(count)s"
