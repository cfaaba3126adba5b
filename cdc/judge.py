"""The judge: which rows of a relation a subscription sees, by the rights that are known at this moment.

May use everything below the loop. It keeps the rights of each role on each table as they were read last; `decide` and
the filters make predicates of them. Judging asks nothing, so that it can be done at a relation's place in the stream.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import psycopg

from cdc.catalog import load_types
from cdc.events import Insert
from cdc.filters import NOTHING_KNOWN, Collations, compile_filter
from cdc.log import log
from cdc.lsn import Lsn
from cdc.operators import Moment
from cdc.predicate import FALSE, Predicate, constant, every
from cdc.refusals import check_collation, check_identity, refuse
from cdc.relation import Relation
from cdc.rights import no_role
from cdc.rights_book import Book
from cdc.rls import Decision, Subject, TableRights, decide
from cdc.session_functions import SessionFunctions
from cdc.storing.feed import Feed
from cdc.storing.lens import Lens
from cdc.subscription import Subscription
from cdc.values import Types

__all__ = ["Judge"]

_NOWHERE = Lsn(0)
_UNASKED = "they were not asked for"


class Judge:
    """Knows the rights, and what they mean to a subscription.

    Args:
        connection: an ordinary connection to the slot's own server.
        types: the types of the server.
        collations: what is known of the columns' collations, by the table's OID.
        publications: names of the publications that are streamed.

    Attributes:
        book: the facts and the roles that rights are made of.
        changed: OIDs of the tables on which the rights of a role have changed, and nobody was told yet.
        moment: when a change is judged, for all predicates that depend on it.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        types: Types,
        collations: Mapping[int, Collations],
        publications: Iterable[str] = (),
    ) -> None:
        self._connection = connection
        self._types = types
        self._collations = collations
        self.book = Book(connection, publications)
        self._rights: dict[tuple[int, str], TableRights | str | None] = {}
        """What is known, or why nothing is; None for a role that does not exist."""
        self.changed: set[int] = set()
        self._said: set[tuple[int, str]] = set()
        self.moment = Moment()
        self.session_functions: SessionFunctions | None = None

    def check(self, subscription: Subscription, relation: Relation) -> Decision | None:
        """Raise SubscriptionError when changes of this relation could not be judged for it, by the rights as loaded."""
        if subscription.subject is not None:
            self._ask(relation.oid, subscription.subject)
        predicate, decision = self.judge(subscription, relation)
        if decision is not None and decision.unsupported:
            refuse(relation, decision)
        if predicate is not None and not subscription.accept_undecided:
            check_identity(subscription, relation, predicate)
        return decision

    def _ask(self, oid: int, subject: Subject) -> None:
        """Let the server run the functions that the user has listed, for this subject."""
        rights = self._rights.get((oid, subject.role))
        if self.session_functions is not None and isinstance(rights, TableRights):
            self.session_functions.ask(subject, rights.functions.values())

    def judge(self, subscription: Subscription, relation: Relation) -> tuple[Predicate | None, Decision | None]:
        """Filter and policies as one predicate (None sees everything), and the decision of the policies."""
        subscription._sight = None
        predicate, decision = self._judge(subscription, relation)
        if decision is not None and decision.denied is None:
            key = object() if predicate is not None and predicate.key is None else predicate and predicate.key
            subscription._sight = (key, decision.hidden)
        return predicate, decision

    def lens(self, feed: Feed, relation: Relation) -> Lens:
        """How a store looks at a relation. Raises SubscriptionError when it cannot."""
        predicate, decision = self.judge(feed, relation)
        hidden = frozenset[str]() if decision is None else decision.hidden
        lens = Lens(relation, self._types.equality, predicate, hidden, self.moment)
        check_collation(relation, lens.keys.names, self._collations.get(relation.oid, NOTHING_KNOWN))
        return lens

    def _judge(self, subscription: Subscription, relation: Relation) -> tuple[Predicate | None, Decision | None]:
        if subscription.subject is None:
            return (None if subscription.filter is None else self._filter(subscription.filter, relation)), None
        decision = self._decide(relation, subscription.subject)
        predicates = []
        # To one who may not know of the table, a mistake in the filter would tell its columns and their types.
        if subscription.filter is not None and decision.granted:
            predicates.append(self._filter(subscription.filter, relation, decision.hidden))
        if not decision.exempt or decision.denied is not None:
            predicates.append(decision.predicate)
        return (every(predicates) if predicates else None), decision

    def _filter(self, text: str, relation: Relation, hidden: frozenset[str] = frozenset()) -> Predicate:
        collations = self._collations.get(relation.oid, NOTHING_KNOWN)
        return compile_filter(text, relation, self._types, collations, self.moment, hidden)

    def load(self, oid: int, roles: Collection[str], xid: int | None = None) -> None:
        """Know the rights of these roles on a table, those of now only once the transaction `xid` is visible.

        What cannot be known, as of a role that is gone, is remembered with the reason, and denies. When the server
        cannot say, as while the table is locked, what was known before stays.
        """
        if roles:
            self.book.load(oid, roles, xid)
        for role in roles:
            self._keep(oid, role)
        self.know_types([oid])

    def knows(self, oid: int, role: str) -> bool:
        """Whether the rights of a role on a table were asked for."""
        return (oid, role) in self._rights

    def know_types(self, oids: Collection[int]) -> None:
        """Know the types that the policies of these tables mention, also those of no column. Asks the catalog."""
        known = [rights for (oid, _), rights in self._rights.items() if oid in oids and isinstance(rights, TableRights)]
        missing = self._types.missing(frozenset().union(*(rights.type_oids for rights in known)))
        if missing:
            self._types.add(load_types(self._connection, missing))

    def begin(self, last: int | None, former: Judge | None) -> None:
        """Go to where the stream begins; see `Book.begin`."""
        self.book.begin(last, None if former is None else former.book)
        self._keep_all()
        self.know_types({oid for oid, _ in self._rights})

    def put(self, row: Insert) -> bool:
        """A row of cdc.rights has arrived. Whether it is news, and `settle` is to be called before the next change."""
        new = row.new
        assert new is not None
        number, oid = int(new.text("id") or 0), int(new.text("table") or 0)
        table, commit_lsn = row._relation.oid, row._place[0].commit_lsn
        return self.book.put(table, oid, number, new.text("facts"), commit_lsn)

    def settle(self) -> None:
        """Judge by the rows that have arrived from here on, and know what they mention. Asks the catalog."""
        self.book.settle()
        self._keep_all()
        self.know_types(self.changed)

    def refresh(self, reached: Lsn = _NOWHERE) -> bool:
        """Ask again for all that does not come in the stream, up to `reached`; True when any rights changed."""
        self.book.poll(reached)
        self._keep_all()
        self._refresh_enums()
        return bool(self.changed)

    def _refresh_enums(self) -> None:
        """A label that was renamed or added may change what every policy means: they are compiled anew."""
        known = {info.oid: info for info in self._types.enums}
        read = load_types(self._connection, known) if known and self._rights else ()
        changed = [info for info in read if known.get(info.oid) not in (None, info)]
        if changed:
            self._types.add(changed)
            for key, rights in list(self._rights.items()):
                if isinstance(rights, TableRights):
                    self._rights[key] = replace(rights)
                    self.changed.add(key[0])

    def take_changed(self) -> set[int]:
        """OIDs of the tables on which the rights of a role have changed since the last call."""
        changed, self.changed = self.changed, set()
        return changed

    def _keep_all(self) -> None:
        for oid, role in list(self._rights):
            self._keep(oid, role)

    def _keep(self, oid: int, role: str) -> None:
        """Views that exist already are bound to what was known before.

        Nobody sees a state in between: another thread may judge with these rights at this moment. Rights that are
        equal stay the same object, with what was compiled for them.
        """
        rights = self.book.rights(oid, role)
        known = self._rights.get((oid, role), _UNASKED)
        if known != rights:
            self._rights[oid, role] = rights
            self._said.discard((oid, role))
            if known != _UNASKED:
                self.changed.add(oid)

    def _decide(self, relation: Relation, subject: Subject) -> Decision:
        rights = self._rights.get((relation.oid, subject.role), _UNASKED)
        if rights is None:
            raise no_role(subject.role)
        if isinstance(rights, str):
            reason = f"the rights of role {subject.role} on {relation} are not known: {rights}"
            return Decision(constant(FALSE), frozenset(), reason, False, (), granted=False)
        decision = decide(rights, relation, self._types, subject, self.moment)
        if decision.unsupported and (relation.oid, subject.role) not in self._said:
            self._said.add((relation.oid, subject.role))
            for each in decision.unsupported:
                log.warning("policy.unsupported", table=str(relation), role=subject.role, reason=str(each))
        return decision
