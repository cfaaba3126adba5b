"""Admission: whether a subscription can be had on this server, and what it sees of a relation.

May use everything below the loop. `check` asks the catalog, once, when somebody subscribes; `view` asks
nothing, so that it can run at a relation's place in the stream. Whatever cannot be decided for a subject is
denied with its reason; whatever cannot be delivered to a trusted subscriber is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from cdc.cached import bind_cache, check_again, check_rights
from cdc.caching.clearing import clearing_of
from cdc.caching.inflow import Inflow
from cdc.catalog import collations, load_types, oid_of, primary_key, relation_message, table_state
from cdc.errors import FailureKind, SubscriptionError
from cdc.facts import Facts
from cdc.family import Family, Member
from cdc.filters import NOTHING_KNOWN, Collations
from cdc.judge import Judge
from cdc.loader import is_visible
from cdc.pgoutput import RelationMessage, describe
from cdc.predicate import UNKNOWN, constant
from cdc.publication import Publication, read_publications, sent_of
from cdc.published import attached_since, check_all, check_kept, check_operations
from cdc.refusals import check_binary, deny, no_table, refuse_cached, unpublished
from cdc.relation import Relation
from cdc.rls import Decision, Subject
from cdc.snapshot import check_readable
from cdc.storing.feed import Feed
from cdc.subscription import Subscription
from cdc.values import TypeInfo, Types
from cdc.view import View

__all__ = ["Admission"]

_SOON = 1.0
"""Seconds within which a commit that was streamed is visible, as a rule."""


class Admission:
    """Knows the publications, types and rights of one server.

    Args:
        connection: an ordinary connection to the slot's own server.
        publications: names of the publications that are streamed.
        caches: the caches, by the subscription that clears them.
        types: the types of the server, with the user's own decoders.
        binary: whether cells come in binary form, so that they cannot be compared.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        publications: Sequence[str],
        caches: Mapping[Subscription, Inflow],
        types: Types | None = None,
        binary: bool = False,
    ) -> None:
        self._connection = connection
        self._names = tuple(publications)
        self._types = types or Types()
        self._binary = binary
        self._checked: dict[Subscription, Relation] = {}
        self._collations: dict[int, Collations] = {}
        self.judge = Judge(connection, self._types, self._collations, self._names)
        self._caches = caches
        self._facts = Facts()
        self._tables: dict[tuple[str, str], int] = {}
        self._late: set[Subscription] = set()
        """Those who subscribed while it streamed, and have no view yet."""
        self._silent: set[Subscription] = set()
        """Those of them who cannot have one on the table as it was when the stream was there."""
        self._streams = False
        self._publications()

    def check(self, subscription: Subscription, cache: Inflow | None = None) -> None:
        """Raise SubscriptionError, with the remedy, when this subscription cannot be had."""
        shared = self._facts.shared
        try:
            self._check(subscription, cache)
        except SubscriptionError:
            if shared == self._facts.shared:
                raise
        else:
            if subscription.denied is None or shared == self._facts.shared:
                return
        # What would keep it out may have been mended a moment ago.
        self._facts.forget()
        self._check(subscription, cache)

    def _check(self, subscription: Subscription, cache: Inflow | None) -> None:
        if isinstance(subscription, Family):
            self._gather(subscription)
        if subscription.parts != (subscription,):
            return
        if self._binary:
            check_binary(subscription, cache)
        keeps = cache is not None or isinstance(subscription, Feed) or clearing_of(subscription.handler) is not None
        relation = self._published(subscription, keeps)
        if keeps:
            refuse_cached(self._connection, relation, subscription)
        if cache is not None:
            bind_cache(cache, relation, self._types, self._collations)
            check_rights(self.judge, subscription, relation, cache)
        decision = self._judged(subscription, relation)
        if isinstance(subscription, Feed):
            subscription.store.bind(self.judge.lens(subscription, relation))
        if isinstance(subscription, Feed) or subscription._in_parts:
            check_readable(self._connection, self._names, subscription, self._binary)
        if decision is not None:
            subscription.denied = decision.denied
            self._checked[subscription] = relation
        elif self._streams:
            self._late.add(subscription)

    def _judged(self, subscription: Subscription, relation: Relation) -> Decision | None:
        subject = subscription.subject
        if subject is not None:
            self._facts.get((relation.oid, subject.role), lambda: self.judge.load(relation.oid, [subject.role]))
        return self.judge.check(subscription, relation)

    def _gather(self, family: Family) -> None:
        """Find the tables that a family means, and check each of them."""
        published = {table for each in self._publications() for table in each.tables}
        named = {pattern.named for pattern in family.patterns if pattern.named is not None}
        meant = {(schema, table) for schema, table in published if family.wants(schema, table)} | named
        for pattern in family.patterns:
            if not pattern.is_everything and not any(pattern.matches(*table) for table in meant):
                raise no_table(pattern, self._names, published)
        family.drop(family.members.keys() - meant)
        for schema, table in sorted(meant):
            self.check(family.member(schema, table))

    def check_renewed(self, subscription: Subscription, subject: Subject) -> dict[Subscription, str]:
        """Raise SubscriptionError when the subscription could not be had as this subject.

        Returns why it could not of tables that a pattern found later, and that were refused before, too.
        """
        refused: dict[Subscription, str] = {}
        for part in subscription.parts:
            operations = part.operations if part.asked else None
            probe = Subscription(
                part.schema, part.table, part.handler, operations, part.filter, subject, part.accept_undecided
            )
            relation = self._checked.get(part)
            if relation is None:
                relation = self._describe(relation_message(self._connection, self._names, part.schema, part.table))
                self._checked[part] = relation
            try:
                self._judged(probe, relation)
            except SubscriptionError as error:
                if part.refused is None:
                    raise
                refused[part] = str(error)
        return refused

    def checked(self, subscription: Subscription) -> Relation | None:
        """The table of a subscription with a subject as the catalog described it last; None when that is not known."""
        return self._checked.get(subscription)

    def join(self, member: Member, relation: Relation) -> None:
        """A table that a family means was announced: check what a subscription to it would be checked for.

        The stream may be behind: the table may be gone, and what it sent before is delivered. Raises
        SubscriptionError for a trusted subscriber; a subject is denied the table.
        """
        member.refused, member._oid = None, relation.oid
        sent = sent_of(read_publications(self._connection, self._names), (member.schema, member.table))
        if oid_of(self._connection, member.schema, member.table) == relation.oid:
            self._tables[member.schema, member.table] = relation.oid
        try:
            if self._binary:
                check_binary(member, None)
            if sent is not None:
                check_operations(member, sent, self._names, for_cache=False)
            if member.subject is not None:
                self.judge.load(relation.oid, [member.subject.role])
            self.judge.check(member, relation)
        except SubscriptionError as error:
            if member.subject is None:
                raise
            member.refused = str(error)
        member._sent = sent
        member._attached = attached_since(self._connection, self._names, relation.oid)

    def relation(self, message: RelationMessage, roles: Collection[str], xid: int | None = None) -> Relation:
        """The relation of a Relation message, with types, key and rights from the catalog.

        Rights of now are read once the transaction `xid` is visible: it may have changed them.
        """
        self._streams = True
        oid = oid_of(self._connection, message.schema, message.table)
        if xid is not None and (oid != message.oid or message.replica_identity == "f"):
            # The stream sends a commit before the catalog shows it: that another table has the name, and its key.
            is_visible(self._connection, xid, _SOON)
            oid = oid_of(self._connection, message.schema, message.table)
        if oid is not None:
            self._tables[message.schema, message.table] = oid
        self.judge.load(message.oid, roles, xid)
        return self._describe(message)

    def asked(self, relation: Relation) -> tuple[int | None, tuple[TypeInfo, ...], Collations]:
        """What the catalog was asked for a relation: who has its name, its types, and its columns' collations."""
        oid = self._tables.get((relation.schema, relation.table))
        types = self._types.known(column.type_oid for column in relation.columns)
        return oid, types, self._collations.get(relation.oid, NOTHING_KNOWN)

    def view(self, subscription: Subscription, relation: Relation) -> View:
        """What the subscription sees of the relation, by what is known already.

        A subject whose rights or filter cannot be applied any more is denied; for a trusted subscriber that raises
        SubscriptionError, unless he accepts undecided changes. To one who subscribed while the stream was behind,
        older shapes of the table show nothing: their rows were there before. A cache is cleared by them.
        """
        if subscription.refused is not None:
            return deny(subscription, relation, subscription.refused)
        name = (relation.schema, relation.table)
        if subscription in self._late and relation.oid != subscription._oid == self._tables.get(name):
            return View(subscription, relation, past=True)
        try:
            view = self._view(subscription, relation)
        except SubscriptionError as error:
            if subscription in self._late:
                self._silent.add(subscription)
                return View(subscription, relation, past=subscription not in self._caches)
            if subscription.subject is not None:
                return deny(subscription, relation, str(error))
            if subscription.filter is None or isinstance(subscription, Feed):
                raise
            if subscription.accept_undecided:
                return View(subscription, relation, constant(UNKNOWN))
            raise SubscriptionError(
                f"changes of {relation} cannot be judged as it is described from here: {error}. Take another filter, "
                "or pass accept_undecided=True to go without the changes that cannot be judged"
            ) from None
        self._late.discard(subscription)
        self._silent.discard(subscription)
        return view

    def _view(self, subscription: Subscription, relation: Relation) -> View:
        cache = self._caches.get(subscription)
        if cache is not None:
            bind_cache(cache, relation, self._types, self._collations)
        replaced = subscription._oid != relation.oid and self._tables.get((relation.schema, relation.table))
        predicate, decision = self.judge.judge(subscription, relation)
        if isinstance(subscription, Feed):
            subscription.store.bind(self.judge.lens(subscription, relation))
            predicate = None  # It judges by itself.
        if decision is None:
            is_other = replaced == relation.oid
            return View(subscription, relation, predicate, replaced=is_other, moment=self.judge.moment)
        subscription.denied = decision.denied
        if subscription in self._checked:
            self._checked[subscription] = relation
        own = isinstance(subscription, Feed)
        return View(
            subscription,
            relation,
            predicate,
            frozenset() if own else decision.hidden,
            denied=not (own or decision.granted),
            replaced=replaced == relation.oid,
            moment=self.judge.moment,
        )

    def begin(self, rights: int | None, former: Admission | None) -> None:
        """Go to where the stream begins: the rights of that place, and what they mean; see `Book.begin`."""
        if self._binary:
            return
        self.judge.begin(rights, None if former is None else former.judge)
        self.review(self.judge.take_changed())

    def review(self, changed: Container[int]) -> None:
        """After rights on tables of these OIDs changed: what they mean to subscriptions that have no view yet."""
        for subscription, relation in list(self._checked.items()):
            if relation.oid in changed and subscription._view is None:
                self.view(subscription, relation)

    def concerned(self, oids: Container[int]) -> list[Subscription]:
        """The subscriptions with a subject to tables of these OIDs, also those that have not begun."""
        return [subscription for subscription, relation in list(self._checked.items()) if relation.oid in oids]

    def forget(self, subscription: Subscription) -> None:
        """The subscription was closed."""
        if isinstance(subscription, Family):
            for member in list(subscription.members.values()):
                self.forget(member)
        self._late.discard(subscription)
        self._silent.discard(subscription)
        self._checked.pop(subscription, None)

    def check_published(self, subscriptions: Iterable[Subscription]) -> None:
        """Raise SubscriptionError when less is sent of the table of one of these than when it was checked.

        That is: not its table, not an operation that it wants, or not every row that was sent before. A cache whose
        table was replaced by another one is cleared.
        """
        try:
            check_all(self._connection, self._names, subscriptions)
        except SubscriptionError as error:
            error.failure = FailureKind.PUBLICATION
            raise
        for feed in (each for each in subscriptions if isinstance(each, Feed)):
            check_kept(self._connection, self._names, feed, self._describe)
        check_again(self._connection, self._caches, self.judge)
        for each in list(self._silent):
            self.check(each, self._caches.get(each))

    def _publications(self) -> list[Publication]:
        """What is published. Raises ConfigurationError for a publication that does not exist."""
        return read_publications(self._connection, self._names)

    def _published(self, subscription: Subscription, for_cache: bool) -> Relation:
        """The relation as it would be sent now. Raises SubscriptionError when it is not published."""
        schema, table = subscription.schema, subscription.table
        self._facts.look((schema, table), table_state(self._connection, schema, table))
        publications = self._facts.get(None, self._publications)
        sent = self._facts.get((schema, table, "sent"), lambda: sent_of(publications, (schema, table)))
        message, relation = self._facts.get((schema, table), lambda: self._described(schema, table))
        if schema == "cdc":
            raise SubscriptionError(f"{schema}.{table} is cdc's own: what lies in schema cdc is never delivered")
        if sent is None:
            raise unpublished(self._connection, self._names, schema, table)
        check_operations(subscription, sent, self._names, for_cache)
        if subscription._sent is None:
            subscription._sent, subscription._oid = sent, message.oid
            subscription._attached = self._facts.get(
                message.oid, lambda: attached_since(self._connection, self._names, message.oid)
            )
        self._tables[schema, table] = message.oid
        return relation

    def _described(self, schema: str, table: str) -> tuple[RelationMessage, Relation]:
        message = relation_message(self._connection, self._names, schema, table)
        return message, self._describe(message)

    def _describe(self, message: RelationMessage) -> Relation:
        missing = self._types.missing(column.type_oid for column in message.columns)
        if missing:
            self._types.add(load_types(self._connection, missing))
        self._collations[message.oid] = collations(self._connection, message.oid)
        keys = primary_key(self._connection, message.oid) if message.replica_identity == "f" else []
        return describe(message, self._types, keys)
