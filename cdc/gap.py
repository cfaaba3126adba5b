"""A gap: changes may be missing, and what is known of it.

Touches nothing. `kind` is for programs, `reason` for people.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cdc.lsn import Position

__all__ = ["Gap", "GapKind"]


class GapKind(StrEnum):
    """What happened, for programs. Its value is text, such as `"slot lost"`."""

    SLOT_DROPPED = "slot dropped"
    """There is no slot any more, but a position of it."""
    SLOT_LOST = "slot lost"
    """The server has removed WAL that the slot still needed."""
    SLOT_INVALIDATED = "slot invalidated"
    """The server has given the slot up for another reason."""
    SLOT_ADVANCED = "slot advanced"
    """Somebody else read the slot, moved it, or made it again."""
    UNKNOWN_PAST = "unknown past"
    """There is a slot, but nothing is remembered of it."""
    OTHER_SERVER = "other server"
    """The position belongs to another database cluster, or the server was set back."""
    OTHER_TIMELINE = "other timeline"
    """A standby took over, or the server was restored to a moment of its past."""
    PUBLICATION_REPLACED = "publication replaced"
    """A publication was dropped and made again."""
    POSITION_PASSED = "position passed"
    """`start_after` is older than what the server was allowed to forget."""
    OTHER_EPOCH = "other epoch"
    """`start_after` belongs to another life of the slot."""
    TEMPORARY_SLOT = "temporary slot"
    """A temporary slot ended with its connection."""
    TABLE_REPLACED = "table replaced"
    """Another table has the name of a subscribed one, or a subscribed one has another name."""
    PREPARED_LOST = "prepared transaction lost"
    """The changes of a prepared transaction were confirmed before it committed."""
    RIGHTS = "rights"
    """What a subscriber may see is not what it was; told to that subscription alone."""
    SUBJECT_EXPIRED = "subject expired"
    """The subject's claims are not valid any more. The subscription is closed: nothing follows."""
    TABLE_REWRITTEN = "table rewritten"
    """The rows of a table are others, without a change of each. Told only to those who keep a cache clear."""
    BEGINNING = "beginning"
    """What was cached before may be older. Told only to those who keep a cache clear, when they begin."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes may be missing here: what follows does not continue what came before.

    Attributes:
        reason: why, in words.
        last: position of the last change that is known to have been delivered; None when nothing is known.
        previous: the position delivered before to this subscription; None at its start.
        kind: why, for programs.
        tables: names of the tables whose changes may be missing, as `"schema.table"`; empty when that is not known.
        position: where the stream goes on, which is before each change that follows; None when nothing follows.
        resync: whether the rows of the table follow, read anew, each as a `Read`.
    """

    reason: str
    last: Position | None = None
    previous: Position | None = None
    kind: GapKind = GapKind.OTHER
    tables: tuple[str, ...] = ()
    position: Position | None = None
    resync: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The gap with all its attributes, ready for JSON."""
        last, previous, at = (place and str(place) for place in (self.last, self.previous, self.position))
        return {
            "reason": self.reason,
            "last": last,
            "previous": previous,
            "kind": self.kind.value,
            "tables": list(self.tables),
            "position": at,
            "resync": self.resync,
        }

    def to_json(self) -> str:
        """One line of JSON: `{"gap": {…}}`."""
        return json.dumps({"gap": self.to_dict()}, ensure_ascii=False)

    def apply(self, rows: MutableMapping[Any, Any]) -> None:
        """Rows that were kept go when the table's rows follow; else they stay, and may be out of date."""
        if self.resync:
            rows.clear()
