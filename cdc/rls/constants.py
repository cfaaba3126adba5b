"""Constants of a policy: the datum of a CONST node.

Pure: no I/O. A constant is the bytes that the server has in memory; `layouts` knows those of each type, and arrays and
enums are made here of what they consist of. The manual's source: src/include/utils/array.h.
"""

from __future__ import annotations

import math
import struct

from cdc.operators import Context, Datums
from cdc.operators.arrays import Array
from cdc.operators.context import Undecided
from cdc.operators.elements import ElementType
from cdc.rls.constructs import NotSupported, Scope, construct
from cdc.rls.layouts import LAYOUTS, Layout, varlena
from cdc.rls.nodes import Node, TreeError

__all__ = ["constant_datum"]

_MOST_DIMENSIONS = 6
_ARRAY_HEAD = 16  # with the header of four bytes
_LABEL = Layout(4, 4, lambda data: int.from_bytes(data, "little"))


def constant_datum(node: Node, scope: Scope, datums: Datums) -> object:
    """The datum of a CONST node; None is NULL.

    Raises NotSupported for a type or a layout that is not known, TreeError for a malformed node.
    """
    if node.text("constisnull") == "true":
        return None
    oid, length = node.number("consttype"), node.number("constlen")
    data = node.fields.get("constvalue")
    if not isinstance(data, bytes) or len(data) < length:
        raise TreeError("CONST has no datum of its length")
    if datums.reader(oid) is None:
        raise NotSupported(construct(node, scope))
    try:
        datum = _Reader(scope, datums).datum(oid, data[:length] if length > 0 else data)
        plain = scope.rights.utf8 or _is_ascii(datum, datums, oid)
    except (ValueError, LookupError, OverflowError, struct.error, Undecided):
        raise NotSupported(f"{construct(node, scope)} that cdc cannot read") from None
    if not plain:
        raise NotSupported("a constant beyond ASCII in a database whose encoding is not UTF8")
    return datum


def _is_ascii(datum: object, datums: Datums, oid: int) -> bool:
    if isinstance(datum, str):
        return datum.isascii()
    output = datums.output(oid)
    return isinstance(datum, int | float | bytes) or (output is not None and output(Context(), datum).isascii())


class _Reader:
    """What turns memory into datums; raises LookupError for types that it does not know."""

    def __init__(self, scope: Scope, datums: Datums) -> None:
        self._types = scope.types
        self._datums = datums

    def datum(self, oid: int, data: bytes) -> object:
        base = self._types.base(oid)
        kind = self._datums.element(base)
        if kind is not None:
            return self._array(kind, self._element_oid(base), data)
        layout = self._layout(base)
        return self._read(base, layout, varlena(data) if layout.size == -1 else data)

    def _element_oid(self, oid: int) -> int:
        found = self._types.element(oid)
        assert found is not None
        return found[0]

    def _layout(self, oid: int) -> Layout:
        return _LABEL if self._types.labels(oid) else LAYOUTS[oid]

    def _read(self, oid: int, layout: Layout, data: bytes) -> object:
        value = layout.read(data)
        if layout is _LABEL:
            return self._cell(oid, self._types.label(oid, int.from_bytes(data, "little")))
        return self._cell(oid, str(value)) if layout.as_text else value

    def _cell(self, oid: int, text: str) -> object:
        read = self._datums.reader(oid)
        assert read is not None
        return read(text.encode())

    def _array(self, kind: ElementType, element_oid: int, data: bytes) -> Array:
        """Dimensions, where the elements are if some are NULL, OID of their type, sizes, bounds, which are not NULL."""
        head = len(data) - len(varlena(data))
        if head != 4:
            raise ValueError("an array with a short header")
        dimensions, offset, oid = struct.unpack_from("<iiI", data, 4)
        if oid != element_oid or not 0 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError("an array of another type")
        sizes = struct.unpack_from(f"<{dimensions}i", data, _ARRAY_HEAD)
        bounds = struct.unpack_from(f"<{dimensions}i", data, _ARRAY_HEAD + 4 * dimensions)
        count, start = math.prod(sizes) if sizes else 0, _ARRAY_HEAD + 8 * dimensions
        given = [True] * count
        if offset:
            given = [bool(data[start + place // 8] >> place % 8 & 1) for place in range(count)]
        elements = self._elements(kind.oid, data, offset or -(-start // 8) * 8, given)
        return Array(kind, tuple(elements), sizes, bounds)

    def _elements(self, oid: int, data: bytes, place: int, given: list[bool]) -> list[object]:
        layout, elements = self._layout(oid), list[object]()
        for is_given in given:
            if not is_given:
                elements.append(None)
                continue
            start, end = _bounds(layout, data, place)
            raw = data[start:end]
            elements.append(self._read(oid, layout, varlena(raw) if layout.size == -1 else raw))
            place = end
        return elements


def _bounds(layout: Layout, data: bytes, place: int) -> tuple[int, int]:
    """Where an element begins and ends. A short header is not aligned; what is before an aligned one is 0."""
    if layout.size > 0 or not data[place]:
        place = -(-place // layout.alignment) * layout.alignment
    if layout.size > 0:
        size = layout.size
    else:
        size = data[place] >> 1 if data[place] & 1 else int.from_bytes(data[place : place + 4], "little") >> 2
    if not size or place + size > len(data):
        raise ValueError("an array ends within an element")
    return place, place + size
