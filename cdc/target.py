"""The target: what a session connects to, and what a consumer wants of it.

May import psycopg. It goes through everything that a connection needs, and stays the same from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from cdc.connection import ReplicationConnection
from cdc.fallback import Fallback
from cdc.lsn import Position
from cdc.options import Options
from cdc.server import identify
from cdc.session_functions import SessionFunctions
from cdc.slot import SAVED, Former, Opening, SlotWait
from cdc.slot_maker import SlotMaker
from cdc.state import State

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a session connects to.

    Attributes:
        dsn: the server.
        publications: names of the publications.
        slot: name of the slot; None for a temporary one.
        state: where the position is kept; None keeps nothing.
        on_gap: `"stop"`, `"deliver"` or `"resync"`.
        options: how the server is asked to stream.
        decoders: the user's own decoders, by the name of a type.
        start_after: the user's own position, None when he has nothing yet, or `SAVED`.
        wait: how long to wait while somebody else holds the slot.
        park_file: what stands in for the parking lot's table; None for the default path.
        session_functions: the functions that the server runs for each subject.
        fallback: what is done while there is no stream.
    """

    dsn: str
    publications: Sequence[str]
    slot: str | None
    state: State | None
    on_gap: str
    options: Options
    decoders: Mapping[str, Callable[[str], object]]
    start_after: Position | str | None = SAVED
    wait: SlotWait = field(default_factory=SlotWait)
    park_file: Path | None = None
    session_functions: SessionFunctions = field(default_factory=lambda: SessionFunctions((), None))
    fallback: Fallback = field(default_factory=Fallback)

    def opening(
        self, replication: ReplicationConnection, connection: psycopg.Connection[Any], former: Former | None
    ) -> Opening:
        """What opens the slot over these connections."""
        return Opening(
            SlotMaker(replication, connection, self.options.two_phase, self.options.failover),
            identify(replication),
            self.slot,
            self.state,
            self.on_gap,
            self.publications,
            self.wait,
            self.start_after,
            former,
        )
