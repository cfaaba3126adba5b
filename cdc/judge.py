"""The judge: which rows of a relation a subscription sees, by the rights that are known at this moment.

May use everything below the loop. It keeps the rights of each role on each table as they were read last; `decide` and
the filters make predicates of them. Judging asks nothing, so that it can be done at a relation's place in the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg

from cdc.errors import SubscriptionError
from cdc.filters import NOTHING_KNOWN, Collations, compile_filter
from cdc.operators import Moment
from cdc.predicate import Predicate, every
from cdc.refusals import check_hidden, check_identity, refuse
from cdc.relation import Relation
from cdc.rights import load_rights
from cdc.rls import Decision, Subject, TableRights, decide
from cdc.subscription import Subscription
from cdc.values import Types

__all__ = ["Judge"]


class Judge:
    """Knows the rights, and what they mean to a subscription.

    Args:
        connection: an ordinary connection to the slot's own server.
        types: the types of the server.
        collations: what is known of the columns' collations, by the table's OID.

    Attributes:
        moment: when a change is judged, for all predicates that depend on it.
    """

    def __init__(self, connection: psycopg.Connection[Any], types: Types, collations: Mapping[int, Collations]) -> None:
        self._connection = connection
        self._types = types
        self._collations = collations
        self._rights: dict[tuple[int, str], TableRights | None] = {}
        self._changed = False
        self.moment = Moment()

    def check(self, subscription: Subscription, relation: Relation) -> Decision | None:
        """Raise SubscriptionError when changes of this relation could not be judged for it."""
        if subscription.subject is not None:
            self.load(relation.oid, subscription.subject.role)
        predicate, decision = self.judge(subscription, relation)
        if decision is not None and decision.unsupported:
            refuse(relation, decision)
        if predicate is not None and not subscription.accept_undecided:
            check_identity(subscription, relation, predicate)
        return decision

    def judge(self, subscription: Subscription, relation: Relation) -> tuple[Predicate | None, Decision | None]:
        """Filter and policies as one predicate (None sees everything), and the decision of the policies."""
        predicates = []
        if subscription.filter is not None:
            collations = self._collations.get(relation.oid, NOTHING_KNOWN)
            predicates.append(compile_filter(subscription.filter, relation, self._types, collations, self.moment))
        if subscription.subject is None:
            return (predicates[0] if predicates else None), None
        decision = self._decide(relation, subscription.subject)
        if decision.granted:
            check_hidden(relation, predicates, decision)
        if not decision.exempt or decision.denied is not None:
            predicates.append(decision.predicate)
        return (every(predicates) if predicates else None), decision

    def load(self, oid: int, role: str) -> None:
        """Remember the rights of a role on a table.

        Raises SubscriptionError when role or table are gone; None is remembered then, which denies. When the server
        cannot say, as while the table is locked, what was known before stays.
        """
        try:
            self._keep(oid, role, load_rights(self._connection, oid, role))
        except SubscriptionError:
            self._keep(oid, role, None)
            raise

    def refresh(self) -> bool:
        """Read all rights again; True when any of them changed."""
        for oid, role in list(self._rights):
            with suppress(SubscriptionError):
                self.load(oid, role)
        changed, self._changed = self._changed, False
        return changed

    def _keep(self, oid: int, role: str, rights: TableRights | None) -> None:
        """Views that exist already are bound to what was known before.

        Nobody sees a state in between: another thread may judge with these rights at this moment.
        """
        self._changed = self._changed or self._rights.get((oid, role)) != rights
        self._rights[oid, role] = rights

    def _decide(self, relation: Relation, subject: Subject) -> Decision:
        rights = self._rights.get((relation.oid, subject.role))
        if rights is None:
            raise SubscriptionError(f"the rights of role {subject.role!r} on {relation} are not known: does it exist?")
        return decide(rights, relation, self._types, subject, self.moment)
