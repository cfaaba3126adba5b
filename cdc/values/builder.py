"""Builds the decoder of a type from those of the types that it is made of.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from cdc.relation import Decode
from cdc.values.builtin import ARRAYS, MULTIRANGES, RANGES, SCALARS
from cdc.values.forms import TEXT, Form
from cdc.values.infos import TypeInfo
from cdc.values.names import names_of, type_name
from cdc.values.records import Field
from cdc.values.registered import FromText, Printed, refusing, registered_reader
from cdc.values.texts import text_of

__all__ = ["Builder"]

_DEEPEST = 32


class Builder:
    """Builds one decoder, and then is thrown away.

    What the catalog said at different times may contradict itself, so a type may seem to contain itself.
    """

    def __init__(self, infos: Mapping[int, TypeInfo], registered: Mapping[str, FromText], form: Form) -> None:
        self._infos = infos
        self._registered = registered
        self._form = form
        self._built: dict[int, Decode] = {}
        self._path: list[int] = []

    def decoder(self, oid: int) -> Decode:
        """The decoder of a type. A type that is nested too deep, or in itself, gets one that raises ValueError."""
        if oid in self._built:
            return self._built[oid]
        if oid in self._path or len(self._path) > _DEEPEST:
            return refusing(f"{self._name(oid)} is nested more than {_DEEPEST} levels deep, or in itself")
        self._path.append(oid)
        decode = self._built[oid] = self._new(oid)
        self._path.pop()
        return decode

    def _new(self, oid: int) -> Decode:
        registered = self._registered_for(oid)
        if registered is not None:
            return self._registered_reader(registered, oid)
        form = self._form
        if oid in RANGES:
            return form.range(self.decoder(RANGES[oid]))
        if oid in MULTIRANGES:
            return form.multirange(self.decoder(MULTIRANGES[oid]))
        if oid in SCALARS:
            return form.scalar(SCALARS[oid])
        if oid in ARRAYS:
            element = ARRAYS[oid]
            return form.array(self.decoder(element), SCALARS[element].delimiter, element)
        info = self._infos.get(oid)
        return form.unknown(oid) if info is None else self._of_catalog(info)

    def _of_catalog(self, info: TypeInfo) -> Decode:
        form = self._form
        if info.is_domain:
            return self.decoder(info.base)
        if info.is_composite:
            return form.record(tuple(Field(name, oid, self.decoder(oid)) for name, oid in info.attributes))
        if info.is_range:
            return form.range(self.decoder(info.subtype))
        if info.is_multirange:
            return form.multirange(self.decoder(info.subtype))
        if info.element:
            return form.array(self.decoder(info.element), info.delimiter.encode(), info.element)
        return text_of if info.is_text_in_binary else form.other

    def _registered_for(self, oid: int) -> FromText | None:
        if not self._registered:
            return None
        names = (name for name in names_of(oid, self._infos) if name in self._registered)
        name = next(names, None)
        return None if name is None else self._registered[name]

    def _registered_reader(self, registered: FromText, oid: int) -> Decode:
        """A user's decoder, as far as a cell of that form can be made text."""
        name = self._name(oid)
        printed = text_of if self._form is TEXT else self._printed(oid)
        if printed is None:
            return refusing(f"{name}: the registered decoder reads text; stream without binary")
        return registered_reader(registered, name, printed)

    def _printed(self, oid: int) -> Printed | None:
        """What turns a cell in binary form into the text of its type, None when there is no such thing."""
        for _ in range(_DEEPEST):
            if oid in SCALARS:
                return SCALARS[oid].printed
            info = self._infos.get(oid)
            if info is None:
                return None
            if not info.is_domain:
                return text_of if info.is_text_in_binary else None
            oid = info.base
        return None

    def _name(self, oid: int) -> str:
        return type_name(oid, self._infos)
