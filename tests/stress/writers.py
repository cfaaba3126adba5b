"""The writers: transactions of random sizes, some of which are rolled back, and some of which are seen late.

The server waits for a standby that does not exist, but only for those sessions that ask for it. Their commits are in
the WAL, and so in the stream, while new snapshots still show the rows from before. `Releaser` ends each of these waits
a random while later.
"""

from __future__ import annotations

import random
import threading
import time

import psycopg

from tests.stress.truth import BOOKS, Truth, place

__all__ = ["SETTINGS", "TABLE", "Cutter", "Releaser", "Writer"]

SETTINGS = {"synchronous_standby_names": "nobody", "synchronous_commit": "local", "wal_sender_timeout": "10s"}
"""Nobody waits for the standby, unless a session says so."""
TABLE = f"""
CREATE TABLE books (id int PRIMARY KEY, shelf int NOT NULL, version int NOT NULL);
CREATE INDEX ON books (shelf);
ALTER TABLE books REPLICA IDENTITY FULL;
CREATE PUBLICATION wells FOR TABLE books;
INSERT INTO books SELECT n, n % 64, 0 FROM generate_series(0, {BOOKS - 1}) n;
"""
_STOP = 20.0


class Writer(threading.Thread):
    """Changes books of its own, again and again.

    Args:
        dsn: where they are.
        number: its number among `writers`; every so many books are its own.
        writers: how many there are.
        late: whether its commits wait for the standby.
        pause: seconds between two transactions, on average.
        truth: is told of each version before it is written.
        seed: of what is drawn.
    """

    def __init__(self, dsn: str, number: int, writers: int, late: bool, pause: float, truth: Truth, seed: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self.stopping = threading.Event()
        self.commits = 0
        self.error: BaseException | None = None
        self._dsn, self._late, self._pause, self._truth = dsn, late, pause, truth
        self._books = range(number, BOOKS, writers)
        self._versions = dict.fromkeys(self._books, 0)
        self._random = random.Random(seed * 1000 + number)

    def run(self) -> None:
        """Write until it is to stop."""
        try:
            with psycopg.connect(self._dsn, autocommit=True) as db:
                db.execute(f"SET synchronous_commit = {'on' if self._late else 'local'}")
                while not self.stopping.is_set():
                    self._transaction(db)
                    self.stopping.wait(self._random.expovariate(1 / self._pause))
        except BaseException as error:
            self.error = error

    def _transaction(self, db: psycopg.Connection) -> None:
        versions = self._versions.copy()
        size = self._random.choice((1, 1, 1, 2, 2, 3) if self._late else (1, 1, 1, 2, 3, 5, 8, 20))
        try:
            db.execute("BEGIN")
            for _ in range(size):
                book = self._random.choice(self._books)
                versions[book] += 1
                self._change(db, book, versions[book])
            if self._random.random() < 0.1:
                db.execute("ROLLBACK")
                return
            db.execute("COMMIT")
        except psycopg.errors.QueryCanceled:  # The releaser came too late for the last commit.
            db.execute("ROLLBACK")
            return
        self._versions = versions
        self.commits += 1
        self._truth.settle(versions, db)

    def _change(self, db: psycopg.Connection, book: int, version: int) -> None:
        self._truth.begun[book] = max(self._truth.begun[book], version)
        before, shelf = place(book, version - 1), place(book, version)
        if shelf is None:
            db.execute("DELETE FROM books WHERE id = %s", (book,))
        elif before is None:
            db.execute("INSERT INTO books VALUES (%s, %s, %s)", (book, shelf, version))
        else:
            db.execute("UPDATE books SET shelf = %s, version = %s WHERE id = %s", (shelf, version, book))

    def stop(self) -> None:
        """End it, and raise what ended it before."""
        self.stopping.set()
        self.join(_STOP)
        if self.error is not None:
            raise self.error
        assert not self.is_alive(), f"{self.name} does not end"


class Releaser(threading.Thread):
    """Ends the wait for the standby, for each commit after a random while.

    Args:
        dsn: of the server.
        seed: of what is drawn.
    """

    def __init__(self, dsn: str, seed: int) -> None:
        super().__init__(name="releaser", daemon=True)
        self.stopping = threading.Event()
        self.released = 0
        self._dsn = dsn
        self._random = random.Random(seed)
        self._due: dict[tuple[int, object], float] = {}

    def run(self) -> None:
        """Look again and again who waits."""
        ask = "SELECT pid, xact_start FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        with psycopg.connect(self._dsn, autocommit=True) as db:
            while not self.stopping.is_set():
                waiting = [(int(pid), begun) for pid, begun in db.execute(ask).fetchall()]
                now = time.monotonic()
                self._due = {each: self._due.get(each) or now + self._while() for each in waiting}
                for each, due in self._due.items():
                    if due <= now:
                        db.execute("SELECT pg_cancel_backend(%s)", (each[0],))
                        self.released += 1
                self.stopping.wait(0.005)

    def _while(self) -> float:
        """Seconds; some are longer than a fetch waits."""
        drawn = self._random.random()
        if drawn < 0.75:
            return self._random.random() * 0.03
        return self._random.random() * 0.15 if drawn < 0.93 else self._random.uniform(0.4, 0.6)

    def stop(self) -> None:
        """End it; writers have to have ended before."""
        self.stopping.set()
        self.join(_STOP)


class Cutter(threading.Thread):
    """Ends the stream now and then, so that the consumer has to connect again.

    Args:
        dsn: of the server.
        seed: of what is drawn.
    """

    def __init__(self, dsn: str, seed: int) -> None:
        super().__init__(name="cutter", daemon=True)
        self.stopping = threading.Event()
        self.cuts = 0
        self._dsn = dsn
        self._random = random.Random(seed)

    def run(self) -> None:
        """Cut until it is to stop."""
        with psycopg.connect(self._dsn, autocommit=True) as db:
            while not self.stopping.wait(self._random.uniform(1.0, 3.0)):
                ended = db.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                    "WHERE active AND database = current_database()"
                ).fetchall()
                self.cuts += len(ended)

    def stop(self) -> None:
        """End it."""
        self.stopping.set()
        self.join(_STOP)
