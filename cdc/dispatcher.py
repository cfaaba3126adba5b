"""The dispatcher: which subscriptions a change concerns.

Pure: no I/O. Views are kept by relation and operation, caches before handlers, so that a change of a table
that nobody watches costs one dictionary look-up. New subscriptions wait until the next transaction begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from cdc.events import Delete, Insert, RowChange, Truncate, Update
from cdc.family import Family, Member
from cdc.listener import Listener
from cdc.relation import Relation
from cdc.subscription import Subscription
from cdc.view import View

__all__ = ["Bind", "Dispatcher"]

Bind = Callable[[Subscription, Relation], View]
"""Makes the view of a subscription on a relation."""

_TYPES = {"INSERT": Insert, "UPDATE": Update, "DELETE": Delete, "TRUNCATE": Truncate}


class Dispatcher:
    """Routes changes to subscriptions. `add` and `remove` may be called from any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._active: list[Subscription] = []
        self._waiting: list[Subscription] = []
        self._routes: dict[int, dict[type, list[View]]] = {}
        self._relations: dict[int, Relation] = {}
        self._oids: dict[tuple[str, str], int] = {}

    @property
    def readers(self) -> list[Subscription]:
        """Every subscription that is open, as users hold it, also those that wait for a transaction to begin."""
        with self._mutex:
            return [*self._active, *self._waiting]

    @property
    def subscriptions(self) -> list[Subscription]:
        """The same by table: a family's members in its place."""
        return _by_table(self.readers)

    @property
    def listens(self) -> bool:
        """Whether anybody wants logical messages."""
        return any(isinstance(reader, Listener) for reader in self.readers)

    def listeners(self, prefix: str) -> list[Listener]:
        """Those who want messages of this prefix, and have begun."""
        with self._mutex:
            return [each for each in self._active if isinstance(each, Listener) and each.hears(prefix)]

    def add(self, subscription: Subscription) -> None:
        """Let the subscription begin with the next transaction."""
        with self._mutex:
            self._waiting.append(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Forget the subscription; its views go at the next transaction."""
        with self._mutex:
            for subscriptions in (self._active, self._waiting):
                if subscription in subscriptions:
                    subscriptions.remove(subscription)
        for route in list(self._routes.values()):
            for event, views in route.items():
                # A new list: the loop may be walking along the old one.
                route[event] = [view for view in views if view.reader is not subscription]

    @property
    def has_waiting(self) -> bool:
        """Whether a subscription waits for a transaction to begin."""
        return bool(self._waiting)

    def activate(self, bind: Bind) -> list[Subscription]:
        """Between two transactions: let the waiting subscriptions begin. Returns them."""
        with self._mutex:
            begun, self._waiting = self._waiting, []
            self._active += begun
        tables = {(subscription.schema, subscription.table) for subscription in _by_table(begun)}
        for relation in list(self._relations.values()):
            if (relation.schema, relation.table) in tables:
                self.define(relation, bind)
        return begun

    def newcomers(self, schema: str, table: str) -> list[Member]:
        """New members of the families that mean this table and do not have it, or could not have it so far."""
        with self._mutex:
            families = [each for each in self._active if isinstance(each, Family) and each.wants(schema, table)]
        known = {id(family): family.members.get((schema, table)) for family in families}
        members = [family.member(schema, table) for family in families]
        return [each for each in members if known[id(each.reader)] is None or each.refused is not None]

    @property
    def relations(self) -> list[Relation]:
        """The relations that were announced on this connection."""
        return list(self._relations.values())

    def define(self, relation: Relation, bind: Bind) -> None:
        """Make the views on a relation anew, as when its message arrived or rights changed."""
        self._forget_namesake(relation)
        self._relations[relation.oid] = relation
        views = [bind(subscription, relation) for subscription in self._of(relation)]
        views.sort(key=lambda view: not view.subscription.first)
        for view in views:
            view.alone = len(views) == 1
            view.remember()
        self._routes[relation.oid] = {
            event: [view for view in views if name in view.subscription.operations] for name, event in _TYPES.items()
        }

    def roles(self, schema: str, table: str) -> set[str]:
        """The roles as which subscribers look at this table."""
        on_table = (each for each in self.subscriptions if (each.schema, each.table) == (schema, table))
        return {each.subject.role for each in on_table if each.subject is not None}

    def forget_relations(self) -> None:
        """Drop what was learned on a connection that is gone, and members whose tables have gone meanwhile."""
        for family in self.readers:
            if isinstance(family, Family):
                family.drop([name for name, each in list(family.members.items()) if each.has_left])
        self._relations.clear()
        self._routes.clear()
        self._oids.clear()

    def rebind(self, bind: Bind) -> None:
        """Make every view anew."""
        for relation in list(self._relations.values()):
            self.define(relation, bind)

    def views(self, event: RowChange | Truncate) -> Sequence[View]:
        """The views on a change's relation that ask for its operation."""
        route = self._routes.get(event._relation.oid)
        return () if route is None else route[type(event)]

    def views_of(self, oid: int) -> list[View]:
        """Every view on a relation, whatever operations it asks for."""
        route = self._routes.get(oid, {})
        return list(dict.fromkeys(view for views in route.values() for view in views))

    def restore(self, relations: Mapping[int, Relation], bind: Bind) -> None:
        """Go back to these relations, as when a transaction with relations of its own is over."""
        for oid, relation in list(self._relations.items()):
            valid = relations.get(oid, relation)
            if valid is not relation:
                self.define(valid, bind)

    def _forget_namesake(self, relation: Relation) -> None:
        """Another table had this name before: it is gone, or is announced under its new name before it changes."""
        name = (relation.schema, relation.table)
        former = self._oids.get(name, relation.oid)
        self._oids[name] = relation.oid
        known = self._relations.get(former)
        if former != relation.oid and known is not None and (known.schema, known.table) == name:
            del self._relations[former]
            self._routes.pop(former, None)

    def _of(self, relation: Relation) -> list[Subscription]:
        with self._mutex:
            active = list(self._active)
        return [each for each in _by_table(active) if (each.schema, each.table) == (relation.schema, relation.table)]


def _by_table(readers: Sequence[Subscription]) -> list[Subscription]:
    """The subscriptions to one table each that these consist of."""
    return [part for reader in readers for part in reader.parts]
