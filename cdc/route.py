"""The route of a relation: the views on it, and which of them a change is to be handed to.

Pure: no I/O. Views that see every change stand in lists, which cost a change nothing to find. All others are in
groups, and the groups in an index. A view joins and leaves without a look at the others; what has to be put in order
is put in order when the next change comes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from operator import attrgetter

from cdc.events import Delete, Insert, RowChange, Truncate, Update
from cdc.group import Group, Problems, Sight
from cdc.index import Index
from cdc.relation import Relation
from cdc.view import View

__all__ = ["Route", "Ways"]

_TYPES: dict[type, str] = {Insert: "INSERT", Update: "UPDATE", Delete: "DELETE", Truncate: "TRUNCATE"}

_in_order = attrgetter("order")


class Route:
    """The views on one relation.

    Args:
        relation: the relation.
        problems: where to note what went wrong.

    Attributes:
        relation: the relation.
        ways: by the type of a change, the views that get every such change; else `views` has to be asked.
    """

    __slots__ = (
        "_alone",
        "_denied",
        "_indexes",
        "_judged",
        "_others",
        "_plain",
        "_problems",
        "_sights",
        "relation",
        "ways",
    )

    def __init__(self, relation: Relation, problems: Problems | None = None) -> None:
        self.relation = relation
        self.ways: Ways = dict.fromkeys(_TYPES, self)
        self._problems = problems
        self._sights: dict[frozenset[str], Sight] = {}
        self._plain: dict[frozenset[str], Group] = {}
        self._indexes: dict[frozenset[str], Index] = {}
        self._others: dict[type, tuple[list[View], tuple[Index, ...]]] = {}
        """For changes that not only plain views want: the plain ones, and the indexes of all others."""
        self._denied: dict[View, None] = {}
        self._alone: View | None = None
        self._judged: list[Group] = []

    def join(self, view: View) -> None:
        """Let a view see the changes from the next one on."""
        operations = view.subscription.operations
        sight = self._sight(view)
        if view.denied:
            view.sight = sight
            self._denied[view] = None
        elif view.is_plain:
            group = self._plain.get(operations)
            if group is None:
                group = self._plain[operations] = Group(None, sight)
            view.join(group)
            self._disarrange()
        else:
            index = self._indexes.get(operations)
            if index is None:
                index = self._indexes[operations] = Index()
                self._disarrange()
            key = _key_of(view, sight)
            group = None if key is None else index.groups.get(key)
            if group is None:
                group = Group(view.predicate, sight)
                index.add(group if key is None else key, group)
            view.join(group)

    def leave(self, view: View) -> None:
        """Let a view see nothing more."""
        group, operations = view.group, view.subscription.operations
        self._denied.pop(view, None)
        if group is None:
            return
        key = _key_of(view, group.sight)
        view.leave()
        if self._plain.get(operations) is group:
            self._disarrange()
            if not group.views:
                del self._plain[operations]
        elif not group.views:
            index = self._indexes[operations]
            index.discard(group if key is None else key, group)
            if not index.groups:
                del self._indexes[operations]
                self._disarrange()

    def close(self) -> None:
        """The relation is described anew: every view leaves."""
        for view in self.all_views:
            view.leave()
        self.ways = {}

    def look_at(self, relation: Relation) -> None:
        """The relation was announced again, and is the same."""
        self.relation = relation
        for sight in self._sights.values():
            sight.look_at(relation)

    @property
    def all_views(self) -> list[View]:
        """Every view, whatever it asks for, also those that see nothing."""
        groups = chain(self._plain.values(), *(index.groups.values() for index in self._indexes.values()))
        return sorted([*chain.from_iterable(group.views for group in groups), *self._denied], key=_in_order)

    def views(self, event: RowChange | Truncate) -> Sequence[View]:
        """The views that are to be handed a change: caches first, then in the order of subscribing."""
        kind = type(event)
        if isinstance(event, Truncate):
            return [view for view in self.all_views if "TRUNCATE" in view.subscription.operations]
        way = self.ways[kind]
        if way is self:
            self._arrange(kind)
            way = self.ways[kind]
        if isinstance(way, list):
            return way
        for group in self._judged:
            group.forget()
        plain, indexes = self._others[kind]
        judged = self._judged = indexes[0].judged(event, not plain and len(indexes) == 1)
        for index in indexes[1:]:
            judged += index.judged(event)
        if not judged:
            return plain
        if len(judged) == 1 and not plain:
            return judged[0].ordered()
        return sorted([*plain, *chain.from_iterable(group.views for group in judged)], key=_in_order)

    def _arrange(self, kind: type) -> None:
        """Put in order who wants changes of a kind."""
        operation = _TYPES[kind]
        plain = [group for operations, group in self._plain.items() if operation in operations]
        lists = [group.ordered() for group in plain]
        views = lists[0] if len(lists) == 1 else sorted(chain.from_iterable(lists), key=_in_order)
        indexes = tuple(index for operations, index in self._indexes.items() if operation in operations)
        self._see_who_is_alone()
        if indexes:
            self._others[kind] = views, indexes
            self.ways[kind] = None
        else:
            self.ways[kind] = views

    def _see_who_is_alone(self) -> None:
        if self._alone is not None:
            self._alone.alone = False
        plain = [group.views for group in self._plain.values()]
        self._alone = plain[0][0] if len(plain) == 1 and len(plain[0]) == 1 else None
        if self._alone is not None:
            self._alone.alone = True

    def _disarrange(self) -> None:
        self.ways.update(dict.fromkeys(_TYPES, self))

    def _sight(self, view: View) -> Sight:
        """What the view may know; the same for all that may know the same."""
        hidden = view.sight.hidden
        sight = self._sights.get(hidden)
        if sight is None:
            sight = self._sights[hidden] = Sight(self.relation, hidden, view.sight.moment, self._problems)
        elif sight.moment is None:
            sight.moment = view.sight.moment
        return sight


Ways = dict[type, list[View] | Route | None]
"""Where changes of each kind go; see `Route.ways`."""


def _key_of(view: View, sight: Sight) -> Hashable:
    """Views with the same key see the same; None is like no other."""
    predicate = view.predicate
    if predicate is None:
        return (None, sight.hidden)
    return None if predicate.key is None else (predicate.key, sight.hidden)
