"""The types of one server: how a type's cells become Python objects, and how its `=` is decided.

Pure: no I/O, no clock. Built-in types are known by OID. Users' types (enums, domains, composites, ranges, arrays of
those, types of extensions) differ from server to server; whoever reads the catalog asks `missing` and gives `add`
what it found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from cdc.relation import Decode
from cdc.values.builder import Builder
from cdc.values.builtin import ARRAYS, SCALARS
from cdc.values.equality import Equality
from cdc.values.forms import BINARY, TEXT, Form
from cdc.values.infos import TypeInfo
from cdc.values.names import type_name
from cdc.values.registered import FromText
from cdc.values.texts import LABEL

__all__ = ["TypeInfo", "Types"]

_NONE: Mapping[str, FromText] = MappingProxyType({})


class Types:
    """The types of one server; mutable, to be shared by what reads from that server.

    A decoder that was given out stays as it is: after `add`, ask again.
    """

    def __init__(self, registered: Mapping[str, FromText] = _NONE) -> None:
        """Types with users' decoders, which win over those of this library, also inside arrays and composites.

        Args:
            registered: what turns the text of a type into an object, by the type's name: typname (`int4`), or what
                format_type prints (`integer`), with its schema (`shop.mood`) unless that is pg_catalog or public. A
                base type, as extensions make them, needs no schema wherever it is.
        """
        self._registered = dict(registered)
        self._added: dict[int, TypeInfo] = {}
        self._decoders: dict[tuple[int, str], Decode] = {}

    def add(self, infos: Iterable[TypeInfo]) -> None:
        """Learn types from the catalog; newer information replaces older. Built-in types stay as they are."""
        self._added = self._added | {info.oid: info for info in infos}
        self._decoders = {}  # a new dict: a thread that is in `decoder` now writes to the old one

    def missing(self, oids: Iterable[int]) -> frozenset[int]:
        """The OIDs to look up in the catalog: unknown ones among `oids` and all that those types are made of."""
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
            else:
                waiting += info.parts
        return frozenset(unknown)

    def known(self, oids: Iterable[int]) -> tuple[TypeInfo, ...]:
        """What was added of these types and of all that they are made of."""
        seen: dict[int, TypeInfo] = {}
        waiting = list(oids)
        while waiting:
            oid = waiting.pop()
            info = self._added.get(oid)
            if info is not None and oid not in seen:
                seen[oid] = info
                waiting += info.parts
        return tuple(seen.values())

    @property
    def enums(self) -> tuple[TypeInfo, ...]:
        """The enums that were added."""
        return tuple(info for info in self._added.values() if info.is_enum)

    def decoder(self, oid: int) -> Decode:
        """What turns the cells of a type into Python objects; it raises ValueError for malformed text only.

        boolean → bool; smallint, integer, bigint, oid → int; real, double precision → float; numeric → Decimal;
        text, character, character varying, name, enums → str; uuid → UUID; date → date; time → time; timestamp → naive
        datetime; timestamp with time zone → aware datetime in UTC; time with time zone → time with its offset;
        interval → Interval; json, jsonb → what the document holds; bytea → bytes; inet → address or interface, cidr →
        network; ranges → Range, multiranges → Multirange; composites → dict; arrays → list, nested for several
        dimensions, with None for NULL, a BoundedArray when subscripts do not begin at 1; a domain as its base.

        Every other type comes as the server's text; one of which nothing is known as `Undecoded`, which says so. As
        text, too, comes a value that Python's type cannot hold: infinite dates, timestamps and intervals, years BC or
        above 9999, the time 24:00:00.

        Two kinds of values that a server sends raise: those of a type that is nested more than 32 levels deep, or a
        document of more than 200, and composites whose type was altered since.
        """
        return self._decoder(oid, TEXT)

    def binary_decoder(self, oid: int) -> Decode:
        """What turns the cells of a type in binary form into the same objects as `decoder`; it raises ValueError only.

        There are three exceptions. money is the int that the server stores. The types that name an object (regclass,
        regtype, …) are its OID. A type whose binary form is not known (those of most extensions) is the cell's bytes.
        """
        return self._decoder(oid, BINARY)

    def equality(self, oid: int) -> Equality | None:
        """How the type's `=` is decided, None when that is not offered (json, arrays, bytea, unknown types, …)."""
        oid = self.base(oid)
        if oid in SCALARS:
            return SCALARS[oid].equality
        info = self._added.get(oid)
        return LABEL if info is not None and oid not in ARRAYS and info.is_enum else None

    def labels(self, oid: int) -> tuple[str, ...]:
        """The labels of an enum in their order; empty for other types, and when they are not known."""
        info = self._added.get(oid)
        return () if info is None or oid in SCALARS or oid in ARRAYS else info.labels

    def label(self, oid: int, label_oid: int) -> str:
        """The label of an enum that has an OID of its own. Raises LookupError when it is not known."""
        info = self._added[oid]
        return info.labels[dict(zip(info.label_oids, range(len(info.labels)), strict=True))[label_oid]]

    def element(self, oid: int) -> tuple[int, str] | None:
        """OID of the type of an array's elements, and what stands between two of them; None for no array."""
        if oid in ARRAYS:
            return ARRAYS[oid], SCALARS[ARRAYS[oid]].delimiter.decode()
        info = self._added.get(oid)
        return None if info is None or oid in SCALARS or not info.element else (info.element, info.delimiter)

    def base(self, oid: int) -> int:
        """The type that a domain rests on; any other type is its own."""
        seen: set[int] = set()
        while oid not in SCALARS and oid in self._added and self._added[oid].is_domain and oid not in seen:
            seen.add(oid)
            oid = self._added[oid].base
        return oid

    def is_enum(self, oid: int) -> bool:
        """Whether it is an enum, or a domain over one."""
        info = self._added.get(self.base(oid))
        return info is not None and info.is_enum

    def name(self, oid: int) -> str:
        """The type's name as a person writes it, such as `bigint`, `text[]` or `shop.mood`; `type 12345` if unknown."""
        return type_name(oid, self._added)

    def _decoder(self, oid: int, form: Form) -> Decode:
        decoders = self._decoders
        decode = decoders.get((oid, form.name))
        if decode is None:
            decode = decoders[oid, form.name] = Builder(self._added, self._registered, form).decoder(oid)
        return decode
