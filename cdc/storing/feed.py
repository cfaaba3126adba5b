"""The subscription of a store: it gets every change of the table, before handlers do, and the store judges them.

Touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cdc.rls import Subject
from cdc.subscription import Subscription

if TYPE_CHECKING:
    from cdc.storing.store import Store

__all__ = ["Feed"]


class Feed(Subscription):
    """What a store hears of its table. An update without an old row can be judged: the store holds the row."""

    __slots__ = ("ground", "store")

    def __init__(
        self,
        store: Store,
        schema: str,
        table: str,
        filter: str | None,
        subject: Subject | None,
        name: str | None,
        on_close: Callable[[Subscription], None],
    ) -> None:
        super().__init__(
            schema,
            table,
            store.receive,
            filter=filter,
            subject=subject,
            accept_undecided=True,
            first=True,
            on_close=on_close,
            name=name or f"store of {schema}.{table}",
        )
        self.store = store
        self.ground: str | None = None
        """What its table rested on when it was checked; see `store_ground`."""
