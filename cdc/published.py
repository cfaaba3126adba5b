"""Whether the publications send what a subscription needs, at first and later on.

May import psycopg. What is not sent leaves no trace in the stream, so the catalog is asked: once when somebody
subscribes, and then every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.catalog import attached, has_children, name_of, partition_root, relation_message
from cdc.errors import SubscriptionError
from cdc.family import Member
from cdc.log import log
from cdc.pgoutput import RelationMessage
from cdc.publication import read_publications, sent_of
from cdc.relation import Relation
from cdc.sent import Sent
from cdc.storing.feed import Feed
from cdc.subscription import OPERATIONS, Subscription

__all__ = ["attached_since", "check_all", "check_kept", "check_operations", "refuse_children"]


def check_operations(subscription: Subscription, sent: Sent, publications: Sequence[str], for_cache: bool) -> None:
    """Raise SubscriptionError for what the publications do not send; a cache needs every operation and every row."""
    name = f"{subscription.schema}.{subscription.table}"
    listed = ", ".join(publications)
    missing = sent.missing(OPERATIONS if for_cache else subscription.operations)
    if missing and (for_cache or subscription.asked):
        raise SubscriptionError(
            f"publication {listed} does not publish {', '.join(missing)} of {name}: "
            f"`ALTER PUBLICATION … SET (publish = 'insert, update, delete, truncate')`"
        )
    if for_cache and sent.filtered(OPERATIONS):
        raise SubscriptionError(
            f"publication {listed} filters the rows of {name}, so a cache would miss changes: "
            f"publish the table without WHERE"
        )


def check_all(
    connection: psycopg.Connection[Any], publications: Sequence[str], subscriptions: Iterable[Subscription]
) -> None:
    """Raise SubscriptionError when less is sent of the table of one of these than when it was checked."""
    read = read_publications(connection, publications)
    sent: dict[tuple[str, str], Sent | None] = {}
    partitions: dict[int | None, frozenset[int]] = {}
    checked: set[tuple[Any, ...]] = set()
    for each in subscriptions:
        table = (each.schema, each.table)
        if type(each) is Subscription and each.named:
            # Many may have been checked together, and were told the same.
            same = (*table, each.operations, each._oid, each._attached, id(each._sent))
            if same in checked:
                continue
            checked.add(same)
        if table not in sent:
            # One that is made anew at this moment may be in none of the views: they are not of one snapshot.
            sent[table] = sent_of(read, table) or sent_of(read_publications(connection, publications), table)
        if isinstance(each, Member) and not each.named:
            gone = sent[table] is None
            if each.leave(gone):
                log.info("family.left" if gone else "family.joined", table=".".join(table))
            if gone:
                continue
            each._sent = each._sent or sent[table]
        _check_sent(connection, publications, each, sent[table])
        if each._oid not in partitions:
            partitions[each._oid] = attached_since(connection, publications, each._oid)
        _check_attached(connection, publications, each, partitions[each._oid])


def check_kept(
    connection: psycopg.Connection[Any],
    publications: Sequence[str],
    feed: Feed,
    describe: Callable[[RelationMessage], Relation],
) -> None:
    """Have a store filled anew when its table is another one, or looks different, and no change has told of that yet.

    Raises SubscriptionError when it has partitions or child tables now.
    """
    relation = describe(relation_message(connection, publications, feed.schema, feed.table))
    refuse_children(connection, relation.oid, str(relation))
    feed._oid = relation.oid
    feed.store.found(relation)


def refuse_children(connection: psycopg.Connection[Any], oid: int, name: str) -> None:
    """A cache or a store cannot be had on a table with partitions or child tables."""
    if has_children(connection, oid):
        raise SubscriptionError(
            f"{name} has partitions or child tables, and not every change of those is sent as a change of "
            "it: a cache or a store could be stale"
        )


def _check_sent(
    connection: psycopg.Connection[Any], publications: Sequence[str], subscription: Subscription, now: Sent | None
) -> None:
    name, listed = f"{subscription.schema}.{subscription.table}", ", ".join(publications)
    if now is None:
        raise SubscriptionError(
            f"table {name} is not published any more: changes of it are missing from now on. "
            f"{_instead(connection, subscription)}, bring your data up to date, and start anew"
        )
    before = subscription._sent or now
    wanted = subscription.operations & before.conditions.keys()
    missing = now.missing(wanted)
    if missing:
        raise SubscriptionError(
            f"publication {listed} does not publish {', '.join(missing)} of {name} any more: such changes are missing "
            f"from now on. Run `ALTER PUBLICATION {_quoted(connection, publications)} SET (publish = …)` with them, or "
            "go without; bring your data up to date, and start anew"
        )
    if now.narrowed(before, wanted):
        raise SubscriptionError(
            f"publication {listed} filters the rows of {name} by another condition than before: changes are missing "
            "from now on. Publish it as it was, or go without; bring your data up to date, and start anew"
        )


def attached_since(connection: psycopg.Connection[Any], publications: Sequence[str], oid: int | None) -> frozenset[int]:
    """OIDs of the partitions that PostgreSQL 14 may not have noticed; none on later servers.

    That server goes on as before with a table that it has met, until a publication is altered.
    """
    if oid is None or connection.info.server_version >= 150000:
        return frozenset()
    return attached(connection, oid, publications)


def _check_attached(
    connection: psycopg.Connection[Any], publications: Sequence[str], subscription: Subscription, now: frozenset[int]
) -> None:
    new = now - subscription._attached
    if new:
        names = ", ".join(sorted(".".join(name) for name in (name_of(connection, oid) for oid in new) if name))
        raise SubscriptionError(
            f"{names} was attached to {subscription.schema}.{subscription.table}, and PostgreSQL 14 may go on without "
            f"its changes. Run `ALTER PUBLICATION {_quoted(connection, publications)} SET (publish_via_partition_root "
            "= true)`, next time in the transaction that attaches; bring your data up to date, and start anew"
        )


def _quoted(connection: psycopg.Connection[Any], publications: Sequence[str]) -> str:
    return sql.Identifier(publications[0]).as_string(connection)


def _instead(connection: psycopg.Connection[Any], subscription: Subscription) -> str:
    """What to do, by what became of the table."""
    schema, table = subscription.schema, subscription.table
    root = partition_root(connection, schema, table)
    if root is not None:
        return f"It is a partition of {root}: publish it by itself, or subscribe to {root}"
    name = None if subscription._oid is None else name_of(connection, subscription._oid)
    if name is None:
        return "It was dropped: make and publish it again"
    if name != (schema, table):
        return f"It is called {'.'.join(name)} now: subscribe to that"
    return "Publish it again"
