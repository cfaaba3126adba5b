"""The datum of an array, and its text.

Pure: no I/O. An array is its elements in a row with the size and the first subscript of each dimension; an empty one
has no dimension at all. The manual: "Arrays", Array Input and Output Syntax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from cdc.operators.codec import Codec
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.elements import ElementType
from cdc.values.arrays import ArrayReader

__all__ = ["Array", "array_codec", "array_input", "array_of", "array_of_arrays", "array_reader", "written"]

_BLANKS = r"[ \t\n\v\f\r]*"
_BOUNDS = re.compile(rb"(?:\[[+-]?[0-9]{1,10}:[+-]?[0-9]{1,10}\])+=")
_LOWER = re.compile(rb"\[([+-]?[0-9]+):")
_MOST_DIMENSIONS = 6


@dataclass(frozen=True, slots=True)
class Array:
    """An array.

    Attributes:
        type: of its elements.
        elements: all of them, the last subscript running fastest; None is NULL.
        sizes: of each dimension.
        lower_bounds: the first subscript of each dimension.
    """

    type: ElementType
    elements: tuple[object, ...]
    sizes: tuple[int, ...]
    lower_bounds: tuple[int, ...]

    def at(self, subscripts: Sequence[int | None]) -> object:
        """`array[i][j]`: NULL when there is no such element, or a subscript is NULL."""
        if len(subscripts) != len(self.sizes):
            return None
        place = 0
        for subscript, size, lower in zip(subscripts, self.sizes, self.lower_bounds, strict=True):
            if subscript is None or not lower <= subscript < lower + size:
                return None
            place = place * size + subscript - lower
        return self.elements[place]

    def mapped(self, kind: ElementType, change: Callable[[object], object]) -> Array:
        """The array of what a cast makes of each element; NULL stays NULL."""
        elements = tuple(None if element is None else change(element) for element in self.elements)
        return replace(self, type=kind, elements=elements)


def array_of(kind: ElementType, elements: Iterable[object]) -> Array:
    """The array of one dimension that `ARRAY[…]` makes of elements."""
    found = tuple(elements)
    return Array(kind, found, (len(found),), (1,)) if found else Array(kind, (), (), ())


def array_of_arrays(kind: ElementType, arrays: Iterable[Array | None]) -> Array:
    """What `ARRAY[[…], […]]` makes of arrays. Raises Failed when their dimensions differ."""
    given = list(arrays)
    full = [array for array in given if array is not None and array.sizes]
    if not full:
        return Array(kind, (), (), ())
    first = full[0]
    shapes = {(array.sizes, array.lower_bounds) for array in full}
    if len(full) < len(given) or len(shapes) > 1 or len(first.sizes) >= _MOST_DIMENSIONS:
        raise Failed("arrays of different dimensions cannot be put into one")
    elements = tuple(element for array in full for element in array.elements)
    return Array(kind, elements, (len(full), *first.sizes), (1, *first.lower_bounds))


def array_codec(kind: ElementType, codec: Codec, *, is_domain: bool = False) -> Codec:
    """The codec of an array type.

    Args:
        kind: of the elements.
        codec: of the elements.
        is_domain: whether their type is a domain, whose constraints an input would have to check.
    """
    take = None if codec.input is None or is_domain else array_input(kind, codec.input)
    return Codec(array_reader(kind, codec.read), take, None if codec.output is None else written)


def array_reader(kind: ElementType, read: Callable[[bytes], object]) -> Callable[[bytes], Array]:
    """What turns a cell into an array. It raises ValueError for a cell that is not of the type.

    Args:
        kind: of the elements.
        read: turns the text of an element into its datum.
    """
    parse = ArrayReader(read, kind.delimiter.encode())

    def array(cell: bytes) -> Array:
        nested: list[object] = parse(cell)
        sizes = _sizes(nested)
        bounds = _BOUNDS.match(cell)
        lowers = tuple(map(int, _LOWER.findall(bounds[0]))) if bounds else (1,) * len(sizes)
        elements = tuple(_flat(nested, len(sizes)))
        if len(elements) != (math.prod(sizes) if sizes else 0) or len(lowers) != len(sizes):
            raise ValueError("the dimensions of an array do not fit its elements")
        return Array(kind, elements, sizes, lowers)

    return array


def _sizes(nested: list[object]) -> tuple[int, ...]:
    sizes: list[int] = []
    level: object = nested
    while isinstance(level, list) and level:
        sizes.append(len(level))
        level = level[0]
    return tuple(sizes)


def _flat(nested: list[object], depth: int) -> list[object]:
    for _ in range(depth - 1):
        nested = [element for part in nested for element in (part if isinstance(part, list) else [part])]
    return nested


def array_input(kind: ElementType, take: Callable[[Context, str], object]) -> Callable[[Context, str], Array]:
    """The input function, of which only what every version reads alike is read.

    It raises Failed for what is no array or holds what is no element, Undecided for what is not read here.

    Args:
        kind: of the elements.
        take: the elements' input function.
    """
    word = rf'"((?:[^"\\]|\\.)*)"|([^"\\{{}}\s{re.escape(kind.delimiter)}]+)'
    item = re.compile(rf"{_BLANKS}(?:{word}){_BLANKS}", re.DOTALL)

    def array(context: Context, text: str) -> Array:
        stripped = text.strip(" \t\n\v\f\r")
        if not stripped.startswith(("{", "[")):
            raise Failed("a text is not an array")
        if not stripped.endswith("}"):
            raise Failed("a text is not an array")
        inside = stripped[1:-1]
        if stripped.startswith("[") or "{" in re.sub(r'"(?:[^"\\]|\\.)*"', "", inside):
            raise Undecided("an array of several dimensions or with bounds, from a text")
        return array_of(kind, [_element(match, take, context) for match in _items(inside, item, kind.delimiter)])

    return array


def _items(inside: str, item: re.Pattern[str], delimiter: str) -> list[re.Match[str]]:
    """The elements between the braces. Raises Undecided for blanks and escapes within one outside of quotes."""
    matches: list[re.Match[str]] = []
    place = 0
    while inside:
        match = item.match(inside, place)
        if match is None:
            raise Undecided("an array with blanks or escapes in its elements, from a text")
        matches.append(match)
        place = match.end()
        if place == len(inside):
            break
        if inside[place] != delimiter:
            raise Undecided("an array with blanks or escapes in its elements, from a text")
        place += 1
    return matches


def _element(match: re.Match[str], take: Callable[[Context, str], object], context: Context) -> object:
    quoted, plain = match[1], match[2]
    if quoted is not None:
        return take(context, re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    return None if plain.upper() == "NULL" else take(context, plain)


def written(context: Context, array: Array) -> str:
    """The output function. Raises Undecided when the elements' one is not known."""
    if not array.sizes:
        return "{}"
    parts = [_part(context, array.type, element) for element in array.elements]
    for size in reversed(array.sizes):
        groups = [parts[start : start + size] for start in range(0, len(parts), size)]
        parts = ["{" + array.type.delimiter.join(group) + "}" for group in groups]
    if all(lower == 1 for lower in array.lower_bounds):
        return parts[0]
    return "".join(f"[{low}:{low + size - 1}]" for low, size in _bounds(array)) + "=" + parts[0]


def _bounds(array: Array) -> list[tuple[int, int]]:
    return list(zip(array.lower_bounds, array.sizes, strict=True))


def _part(context: Context, kind: ElementType, element: object) -> str:
    if element is None:
        return "NULL"
    text = kind.text(context, element)
    if text and text.upper() != "NULL" and kind.delimiter not in text and not _needs_quotes(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _needs_quotes(text: str) -> bool:
    return re.search(r'["\\{} \t\n\v\f\r]', text) is not None
