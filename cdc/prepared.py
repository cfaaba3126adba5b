"""The event for a transaction that was prepared for a two-phase commit.

Touches nothing. The manual: "PREPARE TRANSACTION". Its changes are not delivered before it commits.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cdc.lsn import Lsn

__all__ = ["Prepared"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction that changed the subscribed table was prepared, or a prepared one was rolled back.

    When it commits, its changes follow as those of any other transaction. After a restart of the consumer it may
    be told again.

    Attributes:
        gid: the name that PREPARE TRANSACTION gave it.
        xid: its 32-bit id.
        lsn: LSN of the prepare, or the end of the rollback.
        time: when it was prepared or rolled back, by the server's clock; aware, in UTC.
        rolled_back: False when it was prepared, True when it was rolled back.
    """

    gid: str
    xid: int
    lsn: Lsn
    time: datetime
    rolled_back: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The attributes, ready for JSON."""
        told = {"gid": self.gid, "xid": self.xid, "lsn": str(self.lsn), "time": self.time.isoformat()}
        return told | {"rolled_back": self.rolled_back}

    def to_json(self) -> str:
        """One line of JSON: `{"prepared": {…}}`."""
        return json.dumps({"prepared": self.to_dict()}, ensure_ascii=False)

    def apply(self, rows: MutableMapping[Any, Any]) -> None:
        """Rows that were kept stay as they are: the changes come when the transaction commits."""
