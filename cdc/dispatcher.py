"""The dispatcher: which subscriptions a change concerns.

Pure: no I/O. Each relation has a route to its views, so that a change of a table that nobody watches costs one
dictionary look-up. New subscriptions wait until the next transaction begins, and so do closed ones, which see nothing
meanwhile; to begin and to close costs the same with few others and with many.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

from cdc.events import Delete, Insert, RowChange, Truncate, Update
from cdc.family import Family, Member
from cdc.group import Problems
from cdc.listener import Listener
from cdc.relation import Relation
from cdc.route import Route, Ways
from cdc.subscription import Subscription
from cdc.view import View

__all__ = ["Bind", "Dispatcher", "Watcher"]

Bind = Callable[[Subscription, Relation], View]
"""Makes the view of a subscription on a relation."""


class Watcher(Protocol):
    """Stands where a view would, for a table of our own."""

    def see(self, event: RowChange | Truncate) -> None:
        """A change of the table arrives. Nobody is handed anything."""


_FIRST = -(1 << 40)
"""Where the order of those begins who are called first."""


class Dispatcher:
    """Routes changes to subscriptions. `add` and `remove` may be called from any thread, all else from the loop.

    Attributes:
        problems: why rows could not be judged.
    """

    def __init__(self) -> None:
        self.problems = Problems()
        self._mutex = threading.Lock()
        self._numbers = itertools.count()
        self._active: dict[Subscription, None] = {}
        self._waiting: dict[Subscription, None] = {}
        self._leaving: list[Subscription] = []
        self._named: dict[tuple[str, str], dict[Subscription, None]] = {}
        self._families: dict[Family, None] = {}
        self._listeners: dict[Listener, None] = {}
        self._ways: dict[int, Ways] = {}
        self._routes: dict[int, Route] = {}
        self._oids: dict[tuple[str, str], int] = {}
        self._names: dict[int, set[tuple[str, str]]] = {}

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
        return [each for each in self._listeners if each.hears(prefix)]

    def add(self, subscription: Subscription) -> None:
        """Let the subscription begin with the next transaction."""
        with self._mutex:
            subscription._order = next(self._numbers) + (_FIRST if subscription.first else 0)
            self._waiting[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Forget the subscription; its views go at the next transaction."""
        with self._mutex:
            self._waiting.pop(subscription, None)
            if subscription in self._active:
                del self._active[subscription]
                self._leaving.append(subscription)

    @property
    def has_waiting(self) -> bool:
        """Whether a subscription waits for a transaction to begin, or to be gone."""
        return bool(self._waiting or self._leaving)

    def activate(self, bind: Bind) -> list[Subscription]:
        """Between two transactions: let waiting subscriptions begin, and closed ones go. Returns those that begin."""
        with self._mutex:
            begun, self._waiting = self._waiting, {}
            leaving, self._leaving = self._leaving, []
            self._active |= begun
        for subscription in leaving:
            self._forget(subscription)
        for subscription in begun:
            self._begin(subscription)
            for part in subscription.parts:
                route = self._route(part.schema, part.table)
                if route is not None:
                    self._bind(part, route, bind)
        return list(begun)

    def newcomers(self, schema: str, table: str) -> list[Member]:
        """New members of the families that mean this table and do not have it, or could not have it so far."""
        families = [each for each in self._families if not each.closed and each.wants(schema, table)]
        known = {id(family): family.members.get((schema, table)) for family in families}
        members = [family.member(schema, table) for family in families]
        return [each for each in members if known[id(each.reader)] is None or each.refused is not None]

    @property
    def relations(self) -> list[Relation]:
        """The relations that were announced on this connection."""
        return [route.relation for route in list(self._routes.values())]

    def define(self, relation: Relation, bind: Bind) -> None:
        """Make the views on a relation anew, as when its message arrived or rights changed."""
        self._forget_namesake(relation)
        views = [bind(subscription, relation) for subscription in self.named(relation.schema, relation.table)]
        views.sort(key=lambda view: view.order)
        self._drop(relation.oid)
        route = self._routes[relation.oid] = Route(relation, self.problems)
        self._ways[relation.oid] = route.ways
        for view in views:
            self._join(view, route)

    def attend(self, oid: int, watcher: Watcher) -> None:
        """Let changes of a table that is not delivered be seen by somebody who hands nothing on."""
        self._ways[oid] = {each: [cast("View", watcher)] for each in (Insert, Update, Delete, Truncate)}

    def roles(self, schema: str, table: str) -> set[str]:
        """The roles as which subscribers look at this table."""
        with self._mutex:
            waiting = list(self._waiting)
        waiting = [each for each in _by_table(waiting) if (each.schema, each.table) == (schema, table)]
        on_table = [*self.named(schema, table), *waiting]
        return {each.subject.role for each in on_table if each.subject is not None}

    def forget_relations(self) -> None:
        """Drop what was learned on a connection that is gone, and members whose tables have gone meanwhile."""
        for oid in list(self._routes):
            self._drop(oid)
        for family in self.readers:
            if isinstance(family, Family):
                family.drop([name for name, each in list(family.members.items()) if each.has_left])
        self._ways.clear()
        self._oids.clear()

    def rebind(self, bind: Bind, subscriptions: Iterable[Subscription] | None = None) -> None:
        """Make views anew: those of some subscriptions, else every one."""
        if subscriptions is None:
            for relation in self.relations:
                self.define(relation, bind)
            return
        for part in _by_table(list(subscriptions)):
            route = self._route(part.schema, part.table)
            if route is not None and part.reader in self._active:
                self._bind(part, route, bind)

    def views(self, event: RowChange | Truncate) -> Sequence[View]:
        """The views that are to be handed a change, those first that are called first, in the order of subscribing."""
        ways = self._ways.get(event._relation.oid)
        if ways is None:
            return ()
        way = ways[type(event)]
        return way if type(way) is list else self._routes[event._relation.oid].views(event)

    def views_of(self, oid: int) -> list[View]:
        """Every view on a relation, whatever operations it asks for."""
        route = self._routes.get(oid)
        return [] if route is None else route.all_views

    def named(self, schema: str, table: str) -> list[Subscription]:
        """The subscriptions to a table that have begun, a family's member among them."""
        name = (schema, table)
        members = (family.members.get(name) for family in self._families)
        found = (*self._named.get(name, ()), *members)
        return [each for each in found if each is not None and not each.reader.closed]

    def renamed(self, relation: Relation) -> list[Subscription]:
        """The subscriptions to the names that the table had before."""
        names = self._names.get(relation.oid, set()) - {(relation.schema, relation.table)}
        return [each for name in sorted(names) for each in self.named(*name)]

    def restore(self, relations: Mapping[int, Relation], bind: Bind) -> None:
        """Go back to these relations, as when a transaction with relations of its own is over."""
        for oid, route in list(self._routes.items()):
            valid = relations.get(oid, route.relation)
            if valid is not route.relation:
                if _is_same(valid, route.relation):
                    route.look_at(valid)
                else:
                    self.define(valid, bind)

    def _begin(self, subscription: Subscription) -> None:
        if isinstance(subscription, Listener):
            self._listeners[subscription] = None
        elif isinstance(subscription, Family):
            self._families[subscription] = None
        else:
            self._named.setdefault((subscription.schema, subscription.table), {})[subscription] = None

    def _forget(self, subscription: Subscription) -> None:
        for part in subscription.parts:
            self._part(part)
        if isinstance(subscription, Listener):
            self._listeners.pop(subscription, None)
        elif isinstance(subscription, Family):
            self._families.pop(subscription, None)
        else:
            name = (subscription.schema, subscription.table)
            named = self._named.get(name, {})
            named.pop(subscription, None)
            if not named:
                self._named.pop(name, None)

    def _bind(self, part: Subscription, route: Route, bind: Bind) -> None:
        view = bind(part, route.relation)
        self._part(part)
        self._join(view, route)

    def _join(self, view: View, route: Route) -> None:
        self._part(view.subscription)
        view.order = view.reader._order
        view.subscription._view = view
        route.join(view)
        view.remember()

    def _part(self, part: Subscription) -> None:
        """Let the view of a subscription to one table go."""
        view, part._view = part._view, None
        if isinstance(view, View):
            route = self._routes.get(view.relation.oid)
            if route is None:
                view.leave()
            else:
                route.leave(view)

    def _route(self, schema: str, table: str) -> Route | None:
        """The route of the relation that was announced under this name last."""
        route = self._routes.get(self._oids.get((schema, table), -1))
        if route is None or (route.relation.schema, route.relation.table) != (schema, table):
            return None
        return route

    def _drop(self, oid: int) -> None:
        route = self._routes.pop(oid, None)
        self._ways.pop(oid, None)
        if route is not None:
            route.close()

    def _forget_namesake(self, relation: Relation) -> None:
        """Another table had this name before: it is gone, or is announced under its new name before it changes."""
        name = (relation.schema, relation.table)
        former = self._oids.get(name, relation.oid)
        self._oids[name] = relation.oid
        self._names.setdefault(relation.oid, set()).add(name)
        known = self._routes.get(former)
        if former != relation.oid and known is not None and (known.relation.schema, known.relation.table) == name:
            self._drop(former)


def _by_table(readers: Sequence[Subscription]) -> list[Subscription]:
    """The subscriptions to one table each that these consist of."""
    return [part for reader in readers for part in reader.parts]


def _is_same(one: Relation, other: Relation) -> bool:
    """Whether two descriptions of a table say the same, and their values are read alike."""
    pairs = zip(one.columns, other.columns, strict=False)
    return one == other and all(a.decode is b.decode and a.decode_binary is b.decode_binary for a, b in pairs)
