"""Whether the publications send what a subscription needs, at first and later on.

May import psycopg. What is not sent leaves no trace in the stream, so the catalog is asked: once when somebody
subscribes, and then every few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.catalog import attached, name_of, partition_root
from cdc.errors import SubscriptionError
from cdc.publication import Publication, sent_of
from cdc.sent import Sent
from cdc.subscription import OPERATIONS, Subscription

__all__ = ["check_attached", "check_operations", "check_sent"]


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


def check_sent(
    connection: psycopg.Connection[Any], publications: Sequence[Publication], subscription: Subscription
) -> None:
    """Raise SubscriptionError when the publications send less of the table than when the subscription was checked."""
    schema, table = subscription.schema, subscription.table
    name, listed = f"{schema}.{table}", ", ".join(publication.name for publication in publications)
    before, now = subscription._sent, sent_of(publications, (schema, table))
    if now is None:
        raise SubscriptionError(
            f"table {name} is not published any more: changes of it are missing from now on. "
            f"{_instead(connection, subscription)}, bring your data up to date, and start anew"
        )
    wanted = subscription.operations & (before or now).conditions.keys()
    missing = now.missing(wanted)
    if missing:
        quoted = sql.Identifier(publications[0].name).as_string(connection)
        raise SubscriptionError(
            f"publication {listed} does not publish {', '.join(missing)} of {name} any more: such changes are missing "
            f"from now on. Run `ALTER PUBLICATION {quoted} SET (publish = …)` with them, or go without; bring your "
            "data up to date, and start anew"
        )
    if before is not None and now.narrowed(before, wanted):
        raise SubscriptionError(
            f"publication {listed} filters the rows of {name} by another condition than before: changes are missing "
            "from now on. Publish it as it was, or go without; bring your data up to date, and start anew"
        )


def check_attached(
    connection: psycopg.Connection[Any], publications: Sequence[str], subscription: Subscription
) -> None:
    """On PostgreSQL 14: raise SubscriptionError when a partition was attached since the last look.

    That server goes on as before with a table that it has met, until a publication is altered.
    """
    if connection.info.server_version >= 150000 or subscription._oid is None:
        return
    before, now = subscription._attached, attached(connection, subscription._oid, publications)
    subscription._attached = now
    if before is not None and not now <= before:
        names = [name_of(connection, oid) for oid in now - before]
        listed = ", ".join(sorted(".".join(name) for name in names if name is not None))
        quoted = sql.Identifier(publications[0]).as_string(connection)
        raise SubscriptionError(
            f"{listed} was attached to {subscription.schema}.{subscription.table}, and PostgreSQL 14 may go on without "
            f"its changes. Run `ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)`, next time in the "
            "transaction that attaches; bring your data up to date, and start anew"
        )


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
