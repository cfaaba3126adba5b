"""Messages of a real server, held in memory, and the library's inner path without a server.

pg_logical_slot_peek_binary_changes gives what a walsender would send. The frames are what a connection would
hand out: memoryviews of XLogData. This file alone knows how the inner path is put together.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import psycopg

from cdc.dispatcher import Dispatcher
from cdc.loop import Loop
from cdc.lsn import Lsn
from cdc.options import Options
from cdc.pgoutput import RelationMessage, describe
from cdc.reconnect import Backoff
from cdc.relation import Relation
from cdc.session import Session, Target
from cdc.spool import MemoryOrFile
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.values import Types
from cdc.view import View
from cdc.waiting import Call

_HEADER = struct.Struct(">cQQq").pack


def messages(db: psycopg.Connection, slot: str = "origin", **asked: str) -> list[tuple[int, bytes]]:
    """LSN and bytes of each message behind the slot, which does not move."""
    pairs = {"proto_version": "1", "publication_names": "wells", "messages": "true"} | asked
    listed = [text for pair in pairs.items() for text in pair]
    rows = db.execute(
        "SELECT lsn - '0/0', data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, VARIADIC %s)",
        [slot, listed],
        binary=True,
    ).fetchall()
    return [(int(lsn), bytes(data)) for lsn, data in rows]


def frames(captured: Sequence[tuple[int, bytes]]) -> list[memoryview]:
    """The same messages as the frames of a connection."""
    return [memoryview(_HEADER(b"w", lsn, lsn, 0) + data) for lsn, data in captured]


class Path:
    """A stream and a dispatcher with one subscription, as the loop holds them; or with none yet."""

    def __init__(self, handler: Callable[[object], object], subscribes: bool = True) -> None:
        self.stream = Stream("bench", Lsn(0), None, 10.0, MemoryOrFile(1 << 20))
        self.dispatcher = Dispatcher()
        if subscribes:
            self.dispatcher.add(Subscription("public", "wells", handler))
            self.dispatcher.activate(View)

    def define(self, message: RelationMessage) -> Relation:
        """What the loop does with a Relation message."""
        relation = describe(message, Types(), ["id"])
        self.stream.define(relation)
        self.dispatcher.define(relation, View)
        return relation


class _Admission:
    """What the loop asks a session for when a Relation message comes."""

    view = View
    judge = SimpleNamespace(changed=set())

    def relation(self, message: RelationMessage, *asked: object) -> Relation:
        return describe(message, Types(), ["id"])


class _Session:
    admission = _Admission()
    relation = admission.relation
    busy = staticmethod(nullcontext)


class RealPath(Path):
    """The loop's own path, from a frame to the handler, without its duties, which run by the clock."""

    session: Any = _Session

    def __init__(self, handler: Callable[[object], object], subscribes: bool = True) -> None:
        super().__init__(handler, subscribes)
        self._loop = Loop(Target("", ("wells",), None, None, "stop", Options(), {}), self.dispatcher, Backoff(), 5.0)
        self._loop._house.late_at = math.inf

    def take(self, frames: Sequence[memoryview]) -> None:
        """Let the handler have what the frames hold."""
        steps = self._loop._take(cast("Session", self.session), self.stream, frames)
        outcome: Any = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = step.function(*step.arguments) if isinstance(step, Call) else None
        except StopIteration:
            return
