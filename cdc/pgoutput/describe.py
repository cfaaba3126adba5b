"""A Relation message becomes the relation that rows are read with.

Pure: no I/O. The message has names, type OIDs and which columns belong to the replica identity; `Types` knows how
the cells of a type are read.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc.pgoutput.messages import RelationMessage
from cdc.relation import Column, Relation
from cdc.values import Types

__all__ = ["describe"]


def describe(message: RelationMessage, types: Types, primary_key: Sequence[str] = ()) -> Relation:
    """The relation of a Relation message.

    `primary_key` names the primary key's columns by the catalog; it is used under REPLICA IDENTITY FULL only,
    where every column is flagged as key, and only if the message has all of them.
    """
    columns = tuple(
        Column(
            column.name,
            column.type_oid,
            column.type_modifier,
            column.in_identity,
            types.decoder(column.type_oid),
            types.binary_decoder(column.type_oid),
        )
        for column in message.columns
    )
    key = tuple(index for index, column in enumerate(columns) if _is_key(message, column, primary_key))
    wanted = len(primary_key) if message.replica_identity == "f" else 1
    whole = key if key and len(key) >= wanted else None
    return Relation(message.oid, message.schema, message.table, message.replica_identity, columns, whole)


def _is_key(message: RelationMessage, column: Column, primary_key: Sequence[str]) -> bool:
    return column.name in primary_key if message.replica_identity == "f" else column.in_identity
