"""The types of one server: how a type's cells become Python objects, and how its `=` is decided.

Pure: no I/O, no clock. Built-in types are known by OID. Users' types (enums, domains, arrays of those, types of
extensions) differ from server to server; whoever reads the catalog asks `missing` and gives `add` what it found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cdc.relation import Decode
from cdc.values.arrays import ArrayReader
from cdc.values.builtin import ARRAYS, SCALARS
from cdc.values.equality import Equality
from cdc.values.texts import LABEL, text_of

__all__ = ["TypeInfo", "Types"]

_DOMAIN, _ENUM = "d", "e"
_PLAIN_SCHEMAS = frozenset({"pg_catalog", "public"})
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What the catalog says of a type. The manual: "System Catalogs", pg_type.

    Attributes:
        oid: its OID.
        schema: name of its schema.
        name: typname.
        kind: typtype: `b` base, `d` domain, `c` composite, `e` enum, `r` range, `m` multirange, `p` pseudo.
        element: typelem when it is a true array (typcategory `A`), else 0.
        base: typbasetype of a domain, else 0.
        delimiter: typdelim.
    """

    oid: int
    schema: str
    name: str
    kind: str
    element: int = 0
    base: int = 0
    delimiter: str = ","


class Types:
    """The types of one server; mutable, to be shared by what reads from that server.

    A decoder that was given out stays as it is: after `add`, ask again.
    """

    def __init__(self, registered: Mapping[str, Callable[[str], object]] | None = None) -> None:
        self._added: dict[int, TypeInfo] = {}
        self._decoders: dict[int, Decode] = {}

    def add(self, infos: Iterable[TypeInfo]) -> None:
        """Learn types from the catalog; newer information replaces older. Built-in types stay as they are."""
        self._added = self._added | {info.oid: info for info in infos}
        self._decoders = {}  # a new dict: a thread that is in `decoder` now writes to the old one

    def missing(self, oids: Iterable[int]) -> frozenset[int]:
        """The OIDs to look up in the catalog: unknown ones among `oids` and what their domains and arrays rest on."""
        seen: set[int] = set()
        unknown: set[int] = set()
        waiting = list(oids)
        while waiting:
            oid = waiting.pop()
            if oid in seen or oid in SCALARS or oid in ARRAYS:
                continue
            seen.add(oid)
            info = self._added.get(oid)
            if info is None:
                unknown.add(oid)
            elif _underlying(info):
                waiting.append(_underlying(info))
        return frozenset(unknown)

    def decoder(self, oid: int) -> Decode:
        """What turns the cells of a type into Python objects; it raises ValueError for malformed text only.

        boolean → bool; smallint, integer, bigint, oid → int; real, double precision → float; numeric → Decimal;
        text, character, character varying, name, enums → str; uuid → UUID; date → date; time → time; timestamp → naive
        datetime; timestamp with time zone → aware datetime in UTC; json, jsonb → what the document holds;
        bytea → bytes; arrays → list, nested for several dimensions, with None for NULL; a domain as its base.

        Every other type, and one that is not known, comes as the server's text. So does a value that Python's
        type cannot hold: infinite dates and timestamps, years BC or above 9999, the time 24:00:00.
        """
        decoders = self._decoders
        decode = decoders.get(oid)
        if decode is None:
            decode = decoders[oid] = self._new_decoder(oid)
        return decode

    def binary_decoder(self, oid: int) -> Decode:
        """What turns the cells of a type in binary form into Python objects."""
        return bytes

    def equality(self, oid: int) -> Equality | None:
        """How the type's `=` is decided, None when that is not offered (json, arrays, bytea, unknown types, …)."""
        scalar = SCALARS.get(oid)
        if scalar is not None:
            return scalar.equality
        info = self._added.get(oid)
        if info is None or oid in ARRAYS:
            return None
        if info.kind == _DOMAIN:
            return self.equality(info.base)
        return LABEL if info.kind == _ENUM else None

    def name(self, oid: int) -> str:
        """The type's name as a person writes it, such as `bigint`, `text[]` or `shop.mood`; `type 12345` if unknown."""
        if oid in SCALARS:
            return SCALARS[oid].name
        if oid in ARRAYS:
            return f"{SCALARS[ARRAYS[oid]].name}[]"
        info = self._added.get(oid)
        if info is None:
            return f"type {oid}"
        if info.kind != _DOMAIN and info.element:
            return f"{self.name(info.element)}[]"
        name = _identifier(info.name)
        return name if info.schema in _PLAIN_SCHEMAS else f"{_identifier(info.schema)}.{name}"

    def _new_decoder(self, oid: int) -> Decode:
        if oid in SCALARS:
            return SCALARS[oid].decode
        if oid in ARRAYS:
            element = SCALARS[ARRAYS[oid]]
            return ArrayReader(element.decode, element.delimiter)
        info = self._added.get(oid)
        if info is None:
            return text_of
        if info.kind == _DOMAIN:
            return self.decoder(info.base)
        return ArrayReader(self.decoder(info.element), info.delimiter.encode()) if info.element else text_of


def _underlying(info: TypeInfo) -> int:
    """The type that a domain or an array rests on, 0 for others."""
    return info.base if info.kind == _DOMAIN else info.element


def _identifier(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
