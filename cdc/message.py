"""The event for a logical message: what somebody has written into the WAL for those who read it.

Touches nothing. The manual: "Replication Management Functions", pg_logical_emit_message. A message takes no ordinal of
its own: it stands behind the row change before it, and its LSN tells it from others that stand there.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any

from cdc.jsonable import jsonable
from cdc.lsn import Lsn, Position
from cdc.transaction import Place, commit_time

__all__ = ["Message"]


class Message:
    """A message of `pg_logical_emit_message`.

    A transactional one is delivered when its transaction commits, among the changes of its rows; any other one at once,
    whatever becomes of the transaction in which it was written.

    Attributes:
        prefix: for whom or what it is, as its writer says.
        content: its bytes.
        transactional: whether it belongs to a transaction.
        lsn: end of its record, as pg_logical_emit_message returned it; one message has one, however often it comes.
    """

    __slots__ = ("_place", "_previous", "content", "lsn", "prefix", "transactional")

    def __init__(
        self, place: Place | None, prefix: str, content: bytes, lsn: Lsn, previous: Place | None = None
    ) -> None:
        self._place = place
        self._previous = previous
        self.prefix = prefix
        self.content = content
        self.lsn = lsn
        self.transactional = place is not None

    def seen(self, previous: Place | None) -> Message:
        """The same message for one subscriber, who had the event at `previous` before."""
        return Message(self._place, self.prefix, self.content, self.lsn, previous)

    def text(self, encoding: str = "utf-8") -> str:
        """The content as text. `encoding` is that of the database, whose bytes they are."""
        return self.content.decode(encoding)

    def json(self) -> Any:
        """The content read as JSON."""
        return json.loads(self.content)

    @property
    def position(self) -> Position | None:
        """Where it stands: at its transaction's row change before it, ordinal 0 when there is none.

        None when it is not transactional. Messages at one position differ by `lsn`, and come in its order.
        """
        return _position(self._place)

    @property
    def previous(self) -> Position | None:
        """The position delivered to this subscription before; None at its start."""
        return _position(self._previous)

    @property
    def xid(self) -> int | None:
        """The 32-bit id of its transaction; None when it is not transactional."""
        return None if self._place is None else self._place[0].xid

    @property
    def commit_time(self) -> datetime | None:
        """When its transaction committed, by the server's clock; aware, in UTC. None when it is not transactional."""
        return None if self._place is None else commit_time(self._place[0].commit_microseconds)

    def to_dict(self) -> dict[str, Any]:
        """The message, ready for JSON: `content` in hex digits, and as `text` when it is UTF-8, else None."""
        try:
            text = self.text()
        except UnicodeDecodeError:
            text = None
        return {
            "prefix": self.prefix,
            "content": jsonable(self.content),
            "text": text,
            "transactional": self.transactional,
            "lsn": str(self.lsn),
            "position": None if self._place is None else str(self.position),
            "xid": self.xid,
            "commit_timestamp": jsonable(self.commit_time),
        }

    def to_json(self) -> str:
        """One line of JSON: `{"message": {…}}`."""
        return json.dumps({"message": self.to_dict()}, ensure_ascii=False)

    def apply(self, rows: MutableMapping[Any, Any]) -> None:
        """Rows that were kept stay as they are: a message changes no row."""

    def __repr__(self) -> str:
        return f"<Message {self.prefix} of {len(self.content)} bytes at {self.position or self.lsn}>"


def _position(place: Place | None) -> Position | None:
    if place is None:
        return None
    transaction, ordinal = place
    return transaction.position(ordinal)
