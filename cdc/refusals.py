"""What a subscription cannot have, and what to do about it.

May use everything below the loop. `admission` knows the facts; here they are held against what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.caching.clearing import clearing_of
from cdc.caching.inflow import Inflow
from cdc.catalog import partition_root
from cdc.errors import SubscriptionError
from cdc.family import Family
from cdc.filters import Collations
from cdc.log import log
from cdc.operators import Collation
from cdc.pattern import Pattern
from cdc.predicate import Predicate
from cdc.published import refuse_children
from cdc.relation import Relation
from cdc.rls import Decision
from cdc.storing.feed import Feed
from cdc.subscription import Subscription
from cdc.view import View

__all__ = [
    "check_binary",
    "check_clearing",
    "check_collation",
    "check_identity",
    "check_parts",
    "deny",
    "no_table",
    "refuse",
    "refuse_cached",
    "refuse_new_children",
    "unpublished",
]

_SHOWN = 20


def check_binary(subscription: Subscription, cache: Inflow | None) -> None:
    """Filters, policies and the keys of caches compare the server's text."""
    wants = "a subject" if subscription.subject is not None else "a filter" if subscription.filter is not None else None
    if cache is not None and cache.reads_rows:
        wants = "a cache with by="
    if isinstance(subscription, Feed):
        wants = "a store"
    if wants is not None:
        raise SubscriptionError(
            f"{subscription.schema}.{subscription.table}: {wants} compares values in text form, and this consumer "
            "reads binary cells: leave out binary=True, or give this subscription a consumer of its own"
        )


def refuse_new_children(connection: psycopg.Connection[Any], subscriptions: Iterable[Subscription]) -> None:
    """The same for a table that has got them since, where changes clear a cache that is not ours."""
    for each in subscriptions:
        if clearing_of(each.handler) is not None and each._oid is not None:
            refuse_children(connection, each._oid, f"{each.schema}.{each.table}")


def refuse_cached(connection: psycopg.Connection[Any], relation: Relation, subscription: Subscription) -> None:
    """What cannot feed a cache, ours or another one."""
    refuse_children(connection, relation.oid, str(relation))
    clearing = clearing_of(subscription.handler)
    if clearing is not None:
        clearing.check(relation)
        # So that it is told of a table that looks different when its first change arrives.
        subscription._seen = (relation, frozenset())


def refuse(relation: Relation, decision: Decision) -> None:
    """A subject cannot have a table whose policies cannot be decided."""
    found = "; ".join(f"policy {problem.policy!r}: {problem.construct}" for problem in decision.unsupported)
    raise SubscriptionError(
        f"{relation} has policies that cdc cannot decide: {found}. Rewrite them, or subscribe without a subject "
        "in code that may see every row. `cdc policies` lists all of them"
    )


def deny(subscription: Subscription, relation: Relation, reason: str) -> View:
    """The view of a subscription that sees nothing of a relation."""
    log.warning("subscription.denied", table=str(relation), reason=reason)
    subscription.denied = reason
    if isinstance(subscription, Feed):
        subscription.store.deny()
    return View(subscription, relation, denied=True)


def check_identity(subscription: Subscription, relation: Relation, predicate: Predicate) -> None:
    """Refuse updates and deletes whose old row would not show what the predicate reads."""
    if not subscription.operations & {"UPDATE", "DELETE"}:
        return
    unsent = [relation.columns[index].name for index in sorted(predicate.columns & set(relation.identity.absent))]
    if unsent:
        raise SubscriptionError(
            f"updates and deletes of {relation} cannot be judged: the old row comes without {', '.join(unsent)}. "
            f'Run `ALTER TABLE "{relation.schema}"."{relation.table}" REPLICA IDENTITY FULL`, or pass '
            "accept_undecided=True to go without the changes that cannot be judged"
        )


def check_collation(relation: Relation, columns: Iterable[str], collations: Collations) -> None:
    """Under such a collation different bytes may be equal, which only the server can decide."""
    for column in columns:
        if collations.get(column) is Collation.NONDETERMINISTIC:
            raise SubscriptionError(f"{relation}.{column} has a nondeterministic collation: it cannot be compared")


def no_table(pattern: Pattern, publications: Sequence[str], published: Iterable[tuple[str, str]]) -> SubscriptionError:
    """A pattern that means no published table is a mistake more often than not."""
    tables = sorted(f"{schema}.{table}" for schema, table in published if schema != "cdc")
    found = ", ".join([*tables[:_SHOWN], *(["…"] if len(tables) > _SHOWN else [])]) or "no table"
    listed = ", ".join(repr(name) for name in publications)
    return SubscriptionError(
        f"{pattern.text} matches no table of publication {listed}, which has {found}. A table whose name has such "
        'characters in it is written in double quotes, as public."a*b"'
    )


def check_parts(subscription: Subscription, others: Sequence[Subscription]) -> None:
    """Refuse a subscription whose snapshot could not be told from another one's."""
    check_clearing(subscription)
    if subscription._in_parts and isinstance(subscription, Family):
        raise SubscriptionError(
            f"snapshot=True and on_gap='resync' read one table: subscribe to each of {subscription.label} by its name"
        )
    if subscription._in_parts and any(each.name == subscription.name and each._in_parts for each in others):
        raise SubscriptionError(
            f"two subscriptions are called {subscription.name!r}, and what was read for each is remembered by its "
            "name: give each a name= of its own"
        )


def check_clearing(subscription: Subscription) -> None:
    """Refuse terms under which a cache that is not ours would miss something."""
    if clearing_of(subscription.handler) is None:
        return
    wrong = {
        "one table, by its name": isinstance(subscription, Family),
        "every row: leave out filter": subscription.filter is not None,
        "every row: leave out subject": subscription.subject is not None,
        "every operation: leave out operations": subscription.asked,
        "no change kept aside: leave out on_error='park'": subscription.parks,
        "no rows to begin with: leave out snapshot": subscription.terms.snapshot,
    }
    for needs, is_wrong in wrong.items():
        if is_wrong:
            raise SubscriptionError(f"{subscription.label}: a handler that keeps a cache clear needs {needs}")


def unpublished(
    connection: psycopg.Connection[Any], publications: Sequence[str], schema: str, table: str
) -> SubscriptionError:
    """A table that no publication has, or only as its partition root."""
    root = partition_root(connection, schema, table)
    if root is not None:
        return SubscriptionError(f"{schema}.{table} is a partition: subscribe to {root}, as which it is published")
    publication = sql.Identifier(publications[0]).as_string(connection)
    name = sql.Identifier(schema, table).as_string(connection)
    listed = ", ".join(repr(name) for name in publications)
    return SubscriptionError(
        f"table {schema}.{table} is not in publication {listed}: run `cdc setup --publication "
        f"{publications[0]} --table {schema}.{table}`, or as its owner `ALTER PUBLICATION {publication} "
        f"ADD TABLE {name}`"
    )
