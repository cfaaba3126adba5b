"""A place in a recorded stream: what comes next, and whether that fits to what came before.

Reads the recording and nothing else.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from cdc.errors import CdcError
from cdc.pgoutput import RelationMessage
from cdc.recording import Batch, Conversation, End, Record, Recording, Told

__all__ = ["Outline", "Reading", "outline"]


class Reading:
    """A place in a recording.

    Attributes:
        recording: the file.
        at: when the frames were taken that are replayed now, in microseconds since 2000-01-01 UTC.
        number: of the conversation, from 1.
        broken_off: numbers of the conversations that ended in the midst of their last frames: before a relation was
            described, or since a transaction had to be read again.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.at = self.number = 0
        self.broken_off: set[int] = set()
        self._records = iter(recording)
        self._ahead: deque[Record] = deque()
        self._expected = 1

    def conversation(self) -> Conversation | None:
        """Go to the next conversation; its header, or None when there is no more."""
        while (record := self._take()) is not None:
            if isinstance(record, Conversation):
                self._expected = 1
                self.number += 1
                return record
        return None

    def batch(self) -> Batch | None:
        """The next frames of this conversation; None at its end.

        Raises CdcError when frames are missing, or are there twice.
        """
        while (record := self._look()) is not None and not isinstance(record, Conversation):
            self._take()
            if isinstance(record, Batch):
                self._count(record.number, record.number + len(record.frames))
                self.at = record.at
                return record
            if isinstance(record, End):
                self._count(record.frames + 1, record.frames + 1)
        return None

    def told(self, message: RelationMessage) -> Told | None:
        """How that relation was described; None when it was not, since the conversation was over then.

        Raises CdcError when another relation was described here.
        """
        record = self._look()
        if isinstance(record, Told) and (record.message.oid, record.message.table) == (message.oid, message.table):
            self._take()
            return record
        if record is None or isinstance(record, Conversation | End):
            self.broken_off.add(self.number)
            return None
        raise self._damaged(f"relation {message.schema}.{message.table} was announced, and not described")

    def _count(self, number: int, following: int) -> None:
        if number != self._expected:
            raise self._damaged(f"frame {self._expected} is expected, and frame {number} is there")
        self._expected = following

    def _damaged(self, problem: str) -> CdcError:
        return CdcError(f"the recording {self.recording.path} is damaged: {problem}")

    def _look(self) -> Record | None:
        if not self._ahead:
            record = next(self._records, None)
            if record is None:
                return None
            self._ahead.append(record)
        return self._ahead[0]

    def _take(self) -> Record | None:
        record = self._look()
        if record is not None:
            self._ahead.popleft()
        return record


@dataclass(slots=True)
class Outline:
    """What is to be known of a recording before it is replayed.

    Attributes:
        tables: schema and name of every table that was published or described in it.
        messages: for each conversation, whether logical messages were asked for.
        stops: for each conversation its end when that may have come in the midst of a batch.
    """

    tables: set[tuple[str, str]] = field(default_factory=set)
    messages: list[bool] = field(default_factory=list)
    stops: list[End | None] = field(default_factory=list)


def outline(recording: Recording) -> Outline:
    """Read through a recording."""
    found = Outline()
    with suppress(CdcError):  # Where it is damaged, the replay says so once it is there.
        for record in recording:
            if isinstance(record, Conversation):
                found.stops.append(None)
                found.messages.append(record.messages)
                found.tables.update((schema, table) for schema, table, _ in record.tables)
            elif isinstance(record, Told):
                found.tables.add((record.message.schema, record.message.table))
            elif isinstance(record, End) and record.received is not None and found.stops:
                found.stops[-1] = record
    return found
