"""The event for those who take a transaction as a whole.

Touches nothing. It is handed over when the transaction has committed and its last change has arrived.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cdc.events import Change, Gap, SchemaChange
from cdc.lsn import Position
from cdc.transaction import Transaction, commit_time

__all__ = ["CommittedTransaction"]


@dataclass(frozen=True, slots=True)
class CommittedTransaction:
    """What one transaction changed, as far as this subscription sees it.

    Attributes:
        events: its changes, in the order in which they were made; at least one. A `SchemaChange` stands before the
            first change of a table that looks different. A `Gap` at the end says that the rest did not arrive.
        xid: the transaction's 32-bit id.
        commit_time: when it committed, by the server's clock; aware, in UTC.
        position: the position of its last change that this subscription sees.
        previous: the position delivered to this subscription before; None at its start.
    """

    events: tuple[Change | SchemaChange | Gap, ...]
    xid: int
    commit_time: datetime
    position: Position
    previous: Position | None

    @classmethod
    def of(cls, transaction: Transaction, events: tuple[Any, ...]) -> CommittedTransaction:
        """The transaction with these events."""
        placed = [event for event in events if not isinstance(event, Gap)]
        position = placed[-1].position if placed else transaction.position(0)
        return cls(events, transaction.xid, commit_time(transaction.commit_microseconds), position, events[0].previous)

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Change | SchemaChange | Gap]:
        return iter(self.events)

    def to_dict(self) -> dict[str, Any]:
        """The attributes, ready for JSON; each event as its own `to_dict` gives it."""
        return {
            "xid": self.xid,
            "commit_timestamp": self.commit_time.isoformat(),
            "position": str(self.position),
            "previous": None if self.previous is None else str(self.previous),
            "events": [event.to_dict() for event in self.events],
        }

    def to_json(self) -> str:
        """One line of JSON: `{"transaction": {…}}`."""
        return json.dumps({"transaction": self.to_dict()}, ensure_ascii=False)
