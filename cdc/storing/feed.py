"""The subscription of a store: it gets every change of the table, before handlers do, and the store judges them.

Touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cdc.rls import Subject
from cdc.subscription import Subscription

if TYPE_CHECKING:
    from cdc.storing.store import Store

__all__ = ["Feed"]


class _Receiver:
    """The handler of a feed, as messages name it: what may raise are the handlers of the store's changes."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, event: Any) -> Any:
        return self._store.receive(event)

    def __repr__(self) -> str:
        return f"on_change of the store of {self._store.table}"


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
            _Receiver(store),
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
