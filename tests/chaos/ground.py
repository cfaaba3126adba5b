"""The ground: a private server for the rounds of one lane, one after the other, and what can be done to it.

Touches that server and its processes only.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from cdc.testing import Sandbox
from tests.chaos.plan import SENDER_TIMEOUT
from tests.chaos.writer import PUBLISH, SCHEMA
from tests.harness import SETUP

__all__ = ["Ground"]

_SETTINGS = {
    "wal_sender_timeout": f"{round(SENDER_TIMEOUT * 1000)}ms",
    "logical_decoding_work_mem": "64kB",
    "deadlock_timeout": "100ms",
    "max_prepared_transactions": "64",
}


class Ground:
    """A server, started on `with`.

    Args:
        version: the major version of PostgreSQL; None takes the one that `Sandbox` takes.
    """

    def __init__(self, version: str | None = None) -> None:
        self.server = Sandbox(settings=_SETTINGS, version=version)

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()

    def database(self) -> str:
        """The DSN of a new database with the tables, their publication and the schema cdc."""
        dsn = self.server.create_database()
        with psycopg.connect(dsn, autocommit=True) as connection:
            for script in (SETUP, SCHEMA, PUBLISH):
                connection.execute(script)
        return dsn

    def clear(self, dsn: str) -> None:
        """Drop the database, and the slot in it."""
        name = str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            for _ in range(100):
                ask = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = %s"
                connection.execute(ask, (name,))
                with suppress(psycopg.errors.ObjectInUse):
                    drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
                    connection.execute(drop, (name,))
                    break
                connection.execute("SELECT pg_sleep(0.05)")
            connection.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))

    def kill(self) -> None:
        """kill -9 of the server and of all its processes."""
        main = self.server.server_pid
        children = self._children(main)
        for process in (main, *children):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def kill_one(self, process: int) -> None:
        """kill -9 of one process of the server, which then throws out everybody and recovers."""
        if process in self._children(self.server.server_pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _children(self, parent: int) -> list[int]:
        return [process for process, above in _processes() if above == parent]


def _processes() -> list[tuple[int, int]]:
    """Every process of this machine and its parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It has ended meanwhile.
            # The name, in parentheses, may hold anything.
            found.append((int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])))
    if not found:
        command = ["ps", "-A", "-o", "pid=,ppid="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        found = [(int(process), int(above)) for process, above in map(str.split, listed.splitlines())]
    return found
