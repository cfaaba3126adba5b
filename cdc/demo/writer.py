"""The writer of the demo: an ordinary program that works on wells with plain SQL and knows nothing of cdc.

Runs in a process of its own, `python -m cdc.demo.writer`, and connects to CDC_DSN as the table's owner. It says
`ready`, then one line for each transaction, on stdout. It ends after the transaction at hand when its stdin is
closed, or at SIGTERM.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from cdc.demo.setting import PROJECTS

__all__ = ["Writer", "main"]

_STATUSES = ("planned", "drilling", "logging", "producing", None)
_KEPT = 2000
"""Wells that stay in the table when the writer tidies up."""

_SOME = "id IN (SELECT id FROM wells WHERE project_id = ANY(%(projects)s) ORDER BY random() LIMIT %(count)s)"
_INSERT = "INSERT INTO wells (name, project_id, depth, status) VALUES (%s, %s, %s, %s)"
_COPY = "COPY wells (name, project_id, depth, status) FROM STDIN"
_DEEPEN = f"""
UPDATE wells SET depth = depth + (random() * 40)::numeric(8, 2), status = %(status)s, revision = revision + 1
WHERE {_SOME}
"""
_MOVE = """
UPDATE wells SET project_id = %(target)s, revision = revision + 1
WHERE id IN (SELECT id FROM wells WHERE project_id = %(source)s ORDER BY random() LIMIT %(count)s)
"""
_RENUMBER = f"UPDATE wells SET id = nextval(pg_get_serial_sequence('wells', 'id')) WHERE {_SOME}"
_DELETE = f"DELETE FROM wells WHERE {_SOME}"
_TIDY = """
DELETE FROM wells WHERE id IN (
    SELECT id FROM wells WHERE project_id = ANY(%(projects)s) ORDER BY id DESC OFFSET %(kept)s)
"""


class Writer:
    """Works on wells in all kinds of transactions.

    Args:
        connection: in autocommit mode, so that each `transaction()` below is one transaction.
        say: called with one line for each transaction.
        chance: what decides; give it a seed to have the same work again.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], say: Callable[[str], None], chance: random.Random | None = None
    ) -> None:
        self._connection = connection
        self._say = say
        self._chance = chance or random.Random()
        self._projects = list(PROJECTS.values())

    def work(self, stopping: threading.Event) -> None:
        """One of each kind first, so that even a short run shows everything; then by chance, until told to stop."""
        for action in (self.copy, self.drill, self.deepen, self.move_in, self.move_out, self.renumber, self.delete):
            action()
        self.roll_back()
        self.roll_back_a_part()
        actions, weights = zip(*self._weights(), strict=True)
        while not stopping.wait(self._chance.uniform(0.005, 0.06)):
            self._chance.choices(actions, weights)[0]()

    def copy(self) -> None:
        """A bulk load in one transaction; the oldest wells go before it, lest the table grow for ever."""
        self._execute(_TIDY, kept=_KEPT)
        count = self._chance.randint(90, 300)
        with self._connection.transaction(), self._connection.cursor().copy(_COPY) as copy:
            for _ in range(count):
                copy.write_row(self._well())
        self._say(f"COPY: {_wells(count)} at once")

    def drill(self) -> None:
        """A transaction of a few inserts, and an update of one of them."""
        count = self._chance.randint(1, 6)
        with self._connection.transaction():
            for _ in range(count):
                self._connection.execute(_INSERT, self._well())
            self._connection.execute("UPDATE wells SET status = 'spudded' WHERE id = lastval()")
        self._say(f"INSERT: {_wells(count)}, new")

    def deepen(self) -> None:
        """An update of several wells."""
        count = self._execute(_DEEPEN, count=self._chance.randint(1, 12), status=self._chance.choice(_STATUSES))
        self._say(f"UPDATE: deeper by up to 40 m, {_wells(count)}")

    def move_in(self) -> None:
        """Wells of another project move to North."""
        self._move(self._chance.choice(("South", "West")), "North")

    def move_out(self) -> None:
        """Wells of North move to another project."""
        self._move("North", self._chance.choice(("South", "West")))

    def renumber(self) -> None:
        """A well gets another id: an update that changes the key."""
        count = self._execute(_RENUMBER, count=1)
        self._say(f"UPDATE: a new id for {_wells(count)}")

    def delete(self) -> None:
        """A few wells are deleted."""
        count = self._execute(_DELETE, count=self._chance.randint(1, 5))
        self._say(f"DELETE: {_wells(count)}")

    def roll_back(self) -> None:
        """Work that is undone: nobody may hear of it."""
        count = self._chance.randint(1, 9)
        with self._connection.transaction(force_rollback=True):
            for _ in range(count):
                self._connection.execute(_INSERT, self._well())
            self._connection.execute("DELETE FROM wells WHERE id = lastval()")
        self._say(f"ROLLBACK: {count + 1} changes that never were")

    def roll_back_a_part(self) -> None:
        """A transaction in which one part is undone, behind a savepoint."""
        with self._connection.transaction():
            self._connection.execute(_INSERT, self._well())
            with self._connection.transaction(force_rollback=True):
                self._connection.execute(_DELETE, {"projects": self._projects, "count": 3})
            self._connection.execute(_INSERT, self._well())
        self._say("SAVEPOINT: 3 deletes undone, 2 wells stay")

    def _weights(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.drill, 25),
            (self.deepen, 34),
            (self.move_in, 8),
            (self.move_out, 8),
            (self.renumber, 4),
            (self.delete, 10),
            (self.copy, 3),
            (self.roll_back, 5),
            (self.roll_back_a_part, 3),
        ]

    def _move(self, source: str, target: str) -> None:
        count = self._execute(_MOVE, source=PROJECTS[source], target=PROJECTS[target], count=self._chance.randint(1, 4))
        self._say(f"UPDATE: from {source} to {target}, {_wells(count)}")

    def _execute(self, statement: str, **values: object) -> int:
        return self._connection.execute(statement, {"projects": self._projects} | values).rowcount

    def _well(self) -> tuple[Any, ...]:
        chance = self._chance
        name = f"{chance.randint(1, 36)}/{chance.randint(1, 12)}-{chance.choice('ABCD')}{chance.randint(1, 40)}"
        depth = round(chance.uniform(400, 5200), 2)
        return name, chance.choice(self._projects), depth, chance.choice(_STATUSES)


def main() -> None:
    """Work on CDC_DSN until stdin is closed or SIGTERM comes."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    threading.Thread(target=_await_end_of_input, args=(stopping,), daemon=True).start()
    try:
        with psycopg.connect(os.environ["CDC_DSN"], autocommit=True) as connection:
            _say("ready")
            Writer(connection, _say).work(stopping)
    except psycopg.Error as error:
        _say(" ".join(str(error).split()))
        sys.exit(1)


def _await_end_of_input(stopping: threading.Event) -> None:
    """The pipe closes when the demo lets go of it, or dies: the writer never outlives the demo."""
    os.read(sys.stdin.fileno(), 1)
    stopping.set()


def _wells(count: int) -> str:
    return "1 well" if count == 1 else f"{count} wells"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
