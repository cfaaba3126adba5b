"""Names of types, and the users' decoders that are registered by them.

Pure: no I/O, no clock. The manual: "Functions and Operators", format_type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cdc.values.builtin import ARRAYS, SCALARS
from cdc.values.infos import TypeInfo

__all__ = ["names_of", "type_name"]

_PLAIN_SCHEMAS = frozenset({"pg_catalog", "public"})
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")


def type_name(oid: int, infos: Mapping[int, TypeInfo]) -> str:
    """The type's name as a person writes it, such as `bigint`, `text[]` or `shop.mood`; `type 12345` if unknown."""
    if oid in SCALARS:
        return SCALARS[oid].name
    if oid in ARRAYS:
        return f"{SCALARS[ARRAYS[oid]].name}[]"
    info = infos.get(oid)
    if info is None:
        return f"type {oid}"
    if info.element and not info.is_domain and info.element != oid:
        return f"{type_name(info.element, infos)}[]"
    name = _identifier(info.name)
    return name if info.schema in _PLAIN_SCHEMAS else f"{_identifier(info.schema)}.{name}"


def names_of(oid: int, infos: Mapping[int, TypeInfo]) -> Iterator[str]:
    """The names by which a decoder for the type may be registered, the most exact first."""
    yield type_name(oid, infos)
    if oid in SCALARS:
        yield SCALARS[oid].typname
    elif oid in ARRAYS:
        yield f"_{SCALARS[ARRAYS[oid]].typname}"
    elif oid in infos:
        info = infos[oid]
        yield f"{info.schema}.{info.name}"
        if info.schema in _PLAIN_SCHEMAS or info.is_single_base:
            yield info.name


def _identifier(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
