"""Transactions that have begun to arrive and must not be delivered yet: streamed ones and prepared ones.

Pure: no I/O, no clock; where the frames lie is the spool's matter. The manual: "Logical Streaming Replication
Parameters" (streaming, two_phase) and "Logical Replication Message Formats". A frame is kept as it came. When the
commit arrives, the frames go the ordinary way of a change, without those of sub-transactions that were aborted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cdc.pgoutput import TruncateMessage
from cdc.pgoutput.formats import read
from cdc.relation import Relation
from cdc.tuples import HEADER

__all__ = ["Frames", "Held", "Spool"]

_ROWS = b"IUD"
_TRUNCATE, _MESSAGE = b"TM"


class Frames(Protocol):
    """The kept frames of one transaction, in their order."""

    def append(self, frame: bytes) -> None:
        """Keep one more."""

    def __iter__(self) -> Iterator[list[bytes]]:
        """All of them, in lists of a moderate length."""

    def drop(self) -> None:
        """Give back the room. Idempotent."""


class Spool(Protocol):
    """Makes room for frames."""

    def open(self) -> Frames:
        """Room for one more transaction."""


@dataclass(slots=True)
class Held:
    """One transaction whose commit has not arrived.

    Attributes:
        xid: its 32-bit id.
        frames: its XLogData frames.
        relations: the relations that hold at its begin; what it announces itself is in its frames.
        streamed: whether its messages carry the xid of their (sub-)transaction.
        announced: for the relations announced in it, when that was, as a number that grows.
        names: schema and table of the relations announced before its rows, by OID.
        changed: OIDs of the relations that it changes.
        unsure: whether a sub-transaction was aborted that may have sent messages: they carry the xid of the whole.
    """

    xid: int
    frames: Frames
    relations: dict[int, Relation]
    streamed: bool
    announced: dict[int, int] = field(default_factory=dict)
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    unsure: bool = False
    _aborted: set[int] = field(default_factory=set)
    _has_messages: bool = False

    @property
    def body(self) -> int:
        """Where the body of a message stands in its frame: behind the type byte and, if streamed, the xid."""
        return HEADER + 5 if self.streamed else HEADER + 1

    def keep(self, frame: bytes) -> None:
        """Keep a frame of a message that belongs to the transaction."""
        kind, at = frame[HEADER], self.body
        if kind in _ROWS:
            self.changed.add(int.from_bytes(frame[at : at + 4], "big"))
        elif kind == _TRUNCATE:
            message, _ = read(frame, kind, at)
            assert isinstance(message, TruncateMessage)
            self.changed.update(message.relation_oids)
        elif kind == _MESSAGE:
            self._has_messages = True
        self.frames.append(frame)

    @property
    def tables(self) -> set[tuple[str, str]]:
        """Schema and table of each relation that it changes, aborted changes included."""
        return {self.names[oid] for oid in self.changed if oid in self.names}

    def abort(self, subxid: int) -> None:
        """A sub-transaction was aborted: its changes never happened.

        The server forgets then what it has announced in the whole transaction, and announces it anew when needed.
        """
        self._aborted.add(subxid)
        self.unsure = self._has_messages
        self.announced.clear()

    def committed(self) -> Iterator[list[bytes]]:
        """The frames without those of aborted sub-transactions."""
        if not self._aborted:
            yield from self.frames
            return
        aborted = {xid.to_bytes(4, "big") for xid in self._aborted}
        for frames in self.frames:
            yield [frame for frame in frames if frame[HEADER + 1 : HEADER + 5] not in aborted]
