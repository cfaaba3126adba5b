"""Source: who runs loads for a cache, and what is known of the server and of the stream. Touches nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cdc.caching.fence import Snapshot
from cdc.lsn import Lsn

__all__ = ["Load", "Source"]

Load = Callable[[Any, Any], Any]
"""Called as `load(connection, key)` on a miss; `connection` is a read-only psycopg connection."""


class Source(Protocol):
    """Runs a load against the slot's own server, read-only."""

    def bare(self, load: Load, key: Any) -> Any:
        """The value of `load(connection, key)`."""

    def fenced(self, load: Load, key: Any) -> tuple[Any, Snapshot]:
        """The same, together with a snapshot that is not newer than the value."""

    def written(self, lsn: Lsn) -> tuple[Snapshot, int] | None:
        """A snapshot that was taken when WAL up to `lsn` had been written; None when it has not been yet.

        With it the 64-bit id that the next transaction will get; all that may have been written then have smaller ones.
        On a standby what was replayed is visible: there it is 0.
        """

    def received(self) -> Lsn:
        """Up to where changes have been received, and caches have moved."""

    def hurry(self, lsn: Lsn) -> Callable[[], object]:
        """Let the stream say soon that it has reached `lsn`; what is returned ends that."""
