"""Makes the recordings: runs `script.sql` on each version of PostgreSQL and keeps what its walsender sends.

`make record` runs it; `python -m tests.wire.record 16 17` records two versions only. CDC_PG_BIN names the programs of
one version, which is then the only one. All variants listen while the script runs, and read the same write-ahead log:
they have to say the same.
"""

from __future__ import annotations

import os
import re
import selectors
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from struct import pack
from typing import Any

import psycopg

from cdc.connection import ReplicationConnection
from cdc.lsn import Lsn
from cdc.testing import Sandbox
from tests.wire.recording import FOLDER, Recording

VERSIONS = (14, 15, 16, 17, 18)
_SETTINGS: dict[str, Any] = {
    "logical_decoding_work_mem": "64kB",
    "max_prepared_transactions": "4",
    "autovacuum": False,
    "wal_sender_timeout": "0",
}
_PUBLICATIONS = 'publication_names \'"recorded","rooted","filtered"\', messages \'true\''
_PATIENCE = 60.0
_PING = b"r" + pack(">QQQqB", 0, 0, 0, 0, 1)
"""A standby status update that confirms nothing and asks for a keepalive."""


@dataclass(frozen=True)
class Variant:
    """A way to ask for the stream, from one version of the server on."""

    name: str
    since: int
    options: str
    two_phase: bool = False


VARIANTS = (
    Variant("proto1-text", 14, "proto_version '1'"),
    Variant("proto1-binary", 14, "proto_version '1', binary 'true'"),
    Variant("proto2-streaming", 14, "proto_version '2', streaming 'on'"),
    Variant("proto3-two-phase", 15, "proto_version '3', streaming 'on', two_phase 'on'", two_phase=True),
    Variant(
        "proto4-parallel",
        16,
        "proto_version '4', streaming 'parallel', two_phase 'on', binary 'true'",
        two_phase=True,
    ),
)


def variants(version: int) -> list[Variant]:
    return [variant for variant in VARIANTS if version >= variant.since]


@dataclass(frozen=True)
class Part:
    """Statements for one session; `session` is `record` where the recording begins."""

    session: str
    statements: list[str]


def parts(version: int) -> Iterator[Part]:
    """The parts of the script that are for this version."""
    text = (FOLDER / "script.sql").read_text()
    for name, since, until, body in re.findall(r"^-- @(\w+) ?(\d*) ?(\d*)\n(.*?)(?=^-- @|\Z)", text, re.M | re.S):
        if int(since or 0) <= version <= int(until or 99):
            body = re.sub(r"^--.*\n", "", body, flags=re.M)
            yield Part(name, [each for each in re.split(r";\s*$", body, flags=re.M) if each.strip()])


class Tap:
    """One walsender's frames.

    Keepalives that come by the clock are left out, so that two recordings differ in LSNs, xids and times only; those
    that answer `catch_up` are kept.
    """

    def __init__(self, dsn: str, variant: Variant) -> None:
        self.frames: list[bytes] = []
        self._connection = ReplicationConnection(dsn)
        self._connection.start(
            f"START_REPLICATION SLOT {_slot(variant)} LOGICAL 0/0 ({variant.options}, {_PUBLICATIONS})"
        )

    def catch_up(self, lsn: Lsn) -> None:
        """Take frames until the server says that it is as far as `lsn`."""
        self._connection.send(_PING)
        deadline = time.monotonic() + _PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection.fileno(), selectors.EVENT_READ)
            while time.monotonic() < deadline:
                for frame in map(bytes, self._connection.frames(1000)):
                    if frame[:1] == b"w" or Lsn.from_bytes(frame[1:9], "big") >= lsn:
                        self.frames.append(frame)
                    if frame[:1] == b"k" and Lsn.from_bytes(frame[1:9], "big") >= lsn:
                        return
                    if frame[:1] == b"k":
                        self._connection.send(_PING)
                selector.select(0.01)
                self._connection.read()
        raise SystemExit("the server does not send what was written")

    def close(self) -> None:
        self._connection.close()


class Session:
    """The script's sessions in one database, and the taps that listen."""

    def __init__(self, dsn: str, version: int) -> None:
        self.taps: dict[str, Tap] = {}
        self._dsn = dsn
        self._version = version
        self._sessions: dict[str, psycopg.Connection[Any]] = {}

    def run(self) -> None:
        """Run the script; the taps are opened where the recording begins."""
        for part in parts(self._version):
            if part.session == "record":
                self._listen()
                continue
            for statement in part.statements:
                self._session(part.session).execute(statement.encode())
            self._catch_up()

    def close(self) -> None:
        for each in [*self.taps.values(), *self._sessions.values()]:
            each.close()

    def _session(self, name: str) -> psycopg.Connection[Any]:
        if name not in self._sessions:
            self._sessions[name] = psycopg.connect(self._dsn, autocommit=True)
        return self._sessions[name]

    def _listen(self) -> None:
        for variant in variants(self._version):
            self._session("slots").execute(
                "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, %s)",
                (_slot(variant), variant.two_phase),
            )
            self.taps[variant.name] = Tap(self._dsn, variant)

    def _catch_up(self) -> None:
        """Another session's commit brings to disk what was written, and only from there the server sends."""
        other = self._session("others")
        other.execute("INSERT INTO ballast VALUES (0)")
        row = other.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        for tap in self.taps.values():
            tap.catch_up(Lsn.parse(row[0] if row else ""))


def _slot(variant: Variant) -> str:
    return variant.name.replace("-", "_")


def record(server: Sandbox) -> None:
    """Record every variant on one server."""
    version = server.version // 10000
    session = Session(server.create_database("recorded"), version)
    try:
        session.run()
    finally:
        session.close()
    for name, tap in session.taps.items():
        recording = Recording(version, name)
        recording.save(tap.frames)
        print(recording, f"{len(tap.frames)} frames")


def servers(wanted: list[int]) -> Iterator[Sandbox]:
    """A server of each version that is wanted, not started."""
    if os.environ.get("CDC_PG_BIN"):
        yield Sandbox(_SETTINGS)
        return
    for version in wanted or VERSIONS:
        yield Sandbox(_SETTINGS, version=version)


if __name__ == "__main__":
    for each in servers([int(word) for word in sys.argv[1:]]):
        with each:
            record(each)
