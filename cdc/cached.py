"""Cached: whether a cache can be had of a table, and what becomes of it when the table or somebody's rights change.

May use everything below the loop. `admission` asks; so does `connecting`, when rights have changed.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import psycopg

from cdc.caching.inflow import Inflow
from cdc.catalog import oid_of
from cdc.errors import SubscriptionError
from cdc.filters import NOTHING_KNOWN, Collations
from cdc.judge import Judge
from cdc.log import log
from cdc.published import refuse_children
from cdc.refusals import check_collation
from cdc.relation import Relation
from cdc.subscription import Subscription
from cdc.values import Types

__all__ = ["bind_cache", "check_again", "check_rights", "distrust"]

_INTEGERS, _TEXTS = (20, 21, 23, 26), (25, 1043)
"""OIDs of the types of which equal values have equal cells: int8, int2, int4, oid; text, varchar."""


def bind_cache(inflow: Inflow, relation: Relation, types: Types, collations: Mapping[int, Collations]) -> None:
    """Tell a cache what a table looks like. Raises SubscriptionError when its columns cannot be keys."""
    equalities, kinds = [], []
    for column in inflow.by or ():
        if column not in relation.whole.columns:
            listed = ", ".join(relation.whole.columns)
            raise SubscriptionError(f"{relation} has no published column {column!r}; it has {listed}")
        oid = relation.columns[relation.whole.columns[column]].type_oid
        equality = types.equality(oid)
        if equality is None:
            raise SubscriptionError(f"{relation}: a {types.name(oid)} column cannot be a key: {column!r}")
        equalities.append(equality)
        kinds.append(_kind(oid))
    check_collation(relation, inflow.by or (), collations.get(relation.oid, NOTHING_KNOWN))
    inflow.bind(relation, tuple(equalities), tuple(kinds))


def _kind(oid: int) -> object:
    return "integer" if oid in _INTEGERS else "text" if oid in _TEXTS else oid


def check_rights(judge: Judge, subscription: Subscription, relation: Relation, inflow: Inflow) -> None:
    """Raise SubscriptionError when it could not be told that a subject sees something else than before."""
    if inflow.subject is None:
        return
    judge.load(relation.oid, [inflow.subject.role])
    judge.check(_as_subject(subscription, inflow), relation)


def check_again(
    connection: psycopg.Connection[Any],
    caches: Mapping[Subscription, Inflow],
    judge: Judge,
) -> None:
    """A cache whose table was replaced by another one is cleared, and one whose subject's rights are not known yet."""
    for subscription, inflow in list(caches.items()):
        oid = oid_of(connection, subscription.schema, subscription.table)
        if oid is not None:
            refuse_children(connection, oid, f"{subscription.schema}.{subscription.table}")
        if oid != subscription._oid:
            subscription._oid = oid
            inflow.invalidate()
        if inflow.subject is not None and oid is not None and not judge.knows(oid, inflow.subject.role):
            judge.load(oid, [inflow.subject.role])
            inflow.invalidate()


def distrust(caches: Mapping[Subscription, Inflow], oids: Container[int], judge: Judge, unseen: Iterable[int]) -> None:
    """Rights on tables of these OIDs have changed: what subjects saw of them is not to be served any more.

    `unseen` are transactions that may have changed them and are not visible yet. While policies cannot be read nothing
    is kept, as what they ask for may change without a word.
    """
    for subscription, inflow in list(caches.items()):
        if inflow.subject is None or subscription._oid not in oids:
            continue
        inflow.distrust(unseen)
        relation = inflow.relation
        try:
            if relation is not None:
                judge.check(_as_subject(subscription, inflow), relation)
            inflow.is_decided = relation is not None
        except SubscriptionError as error:
            log.warning("cache.not_kept", table=str(relation), reason=str(error))
            inflow.is_decided = False


def _as_subject(subscription: Subscription, inflow: Inflow) -> Subscription:
    return Subscription(
        subscription.schema, subscription.table, inflow.receive, subject=inflow.subject, accept_undecided=True
    )
