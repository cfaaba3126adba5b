"""What a Type message tells of a type: its name, and for a domain the type that it rests on.

Pure: no I/O. The manual: "Logical Replication Message Formats", Type. The server sends the OID of a type that is not
built in, with its name; for a domain it sends the name of its base type. So a name in pg_catalog says how the
cells of a domain read, without a look into the catalog.
"""

from __future__ import annotations

from cdc.pgoutput.messages import TypeMessage
from cdc.values import TypeInfo
from cdc.values.builtin import ARRAYS, SCALARS

__all__ = ["type_info"]

_INTERNAL = {
    "boolean": "bool",
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "character": "bpchar",
    "character varying": "varchar",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "bit varying": "varbit",
    '"char"': "char",
}
"""typname of the built-in types that are printed under another name."""

_SCALARS = {_INTERNAL.get(scalar.name, scalar.name): oid for oid, scalar in SCALARS.items()}
_ARRAYS = {f"_{_INTERNAL.get(SCALARS[element].name, SCALARS[element].name)}": oid for oid, element in ARRAYS.items()}
_BUILT_IN = _SCALARS | _ARRAYS


def type_info(message: TypeMessage) -> TypeInfo:
    """What is known of the type of a Type message."""
    base = _BUILT_IN.get(message.name, 0) if message.schema == "pg_catalog" else 0
    return TypeInfo(message.oid, message.schema, message.name, "d" if base else "b", base=base)
