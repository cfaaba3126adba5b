"""Operators and functions of arrays.

Pure: no I/O. `@>`, `<@` and `&&` look at elements only, and a NULL matches none; `=` and the order look at dimensions
too, and take NULLs for equal. The manual: "Array Functions and Operators".
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace

from cdc.operators.arrays import Array, array_of
from cdc.operators.builtins import Builtin, Table
from cdc.operators.collating import certain
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.elements import ElementType

__all__ = ["INTEGERS", "TABLE", "TEXTS"]

TEXTS = ElementType(25, lambda context, text: str(text))
INTEGERS = ElementType(23, lambda context, number: str(number))


def _equal(context: Context, left: Array, right: Array) -> bool:
    if (left.sizes, left.lower_bounds) != (right.sizes, right.lower_bounds):
        return False
    return all(_alike(context, left.type, one, two) for one, two in zip(left.elements, right.elements, strict=True))


def _alike(context: Context, kind: ElementType, left: object, right: object) -> bool:
    """IS NOT DISTINCT FROM."""
    if left is None or right is None:
        return left is right
    return kind.equal(context, left, right)


def _compare(context: Context, left: Array, right: Array) -> int:
    """Element by element, NULL last; then the number of elements, of dimensions, their sizes and bounds."""
    for one, two in zip(left.elements, right.elements, strict=False):
        if one is None or two is None:
            if one is not two:
                return 1 if one is None else -1
        elif order := left.type.compare(context, one, two):
            return order
    ours = (len(left.elements), len(left.sizes), left.sizes, left.lower_bounds)
    theirs = (len(right.elements), len(right.sizes), right.sizes, right.lower_bounds)
    return (ours > theirs) - (ours < theirs)


def _contains(context: Context, outer: Array, inner: Array) -> bool:
    if any(element is None for element in inner.elements):
        return _all_before_null(context, outer, inner)
    if inner.type.hashed(context, (*inner.elements, *outer.elements)):
        return set(inner.elements) <= set(outer.elements)
    return all(_among(context, outer, element) for element in inner.elements)


def _all_before_null(context: Context, outer: Array, inner: Array) -> bool:
    """Never true; but what stands before the NULL is compared, and might raise."""
    for element in inner.elements:
        if element is None or not _among(context, outer, element):
            break
    return False


def _overlaps(context: Context, left: Array, right: Array) -> bool:
    if left.type.hashed(context, (*left.elements, *right.elements)):
        return not (set(left.elements) & set(right.elements)) <= {None}
    return any(_among(context, right, element) for element in left.elements if element is not None)


def _among(context: Context, array: Array, wanted: object) -> bool:
    return any(element is not None and array.type.equal(context, wanted, element) for element in array.elements)


def _contained(context: Context, inner: Array, outer: Array) -> bool:
    return _contains(context, outer, inner)


def _appended(array: Array | None, element: object) -> Array:
    return _grown(array, lambda elements: (*elements, element))


def _prepended(element: object, array: Array | None) -> Array:
    return _grown(array, lambda elements: (element, *elements))


def _grown(array: Array | None, grow: Callable[[tuple[object, ...]], tuple[object, ...]]) -> Array:
    if array is None:
        raise Undecided("an element is put into an array that is NULL")
    if len(array.sizes) > 1:
        raise Failed("an element is put into an array of several dimensions")
    elements = grow(array.elements)
    return Array(array.type, elements, (len(elements),), array.lower_bounds or (1,))


def _joined(left: Array | None, right: Array | None) -> Array | None:
    if left is None or right is None:
        return right if left is None else left
    if not left.sizes or not right.sizes:
        return left if left.sizes else right
    one, two = _shape(left), _shape(right)
    elements = left.elements + right.elements
    if one[1:] == two[1:]:
        size = left.sizes[0] + right.sizes[0]
        return replace(left, elements=elements, sizes=(size, *left.sizes[1:]))
    if one == two[1:]:
        return replace(right, elements=elements, sizes=(right.sizes[0] + 1, *right.sizes[1:]))
    if one[1:] == two:
        return replace(left, elements=elements, sizes=(left.sizes[0] + 1, *left.sizes[1:]))
    raise Failed("arrays of dimensions that do not fit are put together")


def _shape(array: Array) -> list[tuple[int, int]]:
    return list(zip(array.sizes, array.lower_bounds, strict=True))


def _removed(context: Context, array: Array | None, wanted: object) -> Array | None:
    if array is None or not array.sizes:
        return array
    if len(array.sizes) > 1:
        raise Failed("an element is removed from an array of several dimensions")
    left = tuple(each for each in array.elements if not _alike(context, array.type, each, wanted))
    if not left:
        return Array(array.type, (), (), ())
    return replace(array, elements=left, sizes=(len(left),))


def _replaced(context: Context, array: Array | None, wanted: object, new: object) -> Array | None:
    if array is None:
        return None
    elements = tuple(new if _alike(context, array.type, each, wanted) else each for each in array.elements)
    return replace(array, elements=elements)


def _position(context: Context, array: Array | None, wanted: object) -> int | None:
    if array is None:
        return None
    return next(iter(_places(context, array, wanted)), None)


def _position_from(context: Context, array: Array | None, wanted: object, start: int | None) -> int | None:
    if array is None:
        return None
    _line(array)
    if not array.sizes or (wanted is None and None not in array.elements):
        return None
    if start is None:
        raise Failed("array_position starts at NULL")
    return next((place for place in _places(context, array, wanted) if place >= start), None)


def _positions(context: Context, array: Array | None, wanted: object) -> Array | None:
    return None if array is None else array_of(INTEGERS, _places(context, array, wanted))


def _places(context: Context, array: Array, wanted: object) -> list[int]:
    """The subscripts of the elements that are not distinct from one."""
    lower = _line(array)
    return [lower + place for place, each in enumerate(array.elements) if _alike(context, array.type, each, wanted)]


def _line(array: Array) -> int:
    """The first subscript. Raises Failed when there are several dimensions."""
    if len(array.sizes) > 1:
        raise Failed("an element is searched in an array of several dimensions")
    return array.lower_bounds[0] if array.lower_bounds else 1


def _length(array: Array, dimension: int) -> int | None:
    return array.sizes[dimension - 1] if 0 < dimension <= len(array.sizes) else None


def _lower(array: Array, dimension: int) -> int | None:
    return array.lower_bounds[dimension - 1] if 0 < dimension <= len(array.sizes) else None


def _upper(array: Array, dimension: int) -> int | None:
    if not 0 < dimension <= len(array.sizes):
        return None
    return array.lower_bounds[dimension - 1] + array.sizes[dimension - 1] - 1


def _dims(array: Array) -> str | None:
    return "".join(f"[{low}:{low + size - 1}]" for size, low in _shape(array)) or None


def _to_string(context: Context, array: Array, separator: str) -> str:
    return separator.join(array.type.text(context, each) for each in array.elements if each is not None)


def _to_string_nulls(context: Context, array: Array | None, separator: str | None, null: str | None) -> str | None:
    if array is None or separator is None:
        return None
    kept = [each for each in array.elements if each is not None or null is not None]
    return separator.join(str(null) if each is None else array.type.text(context, each) for each in kept)


def _split(context: Context, text: str | None, separator: str | None, null: str | None = None) -> Array | None:
    """string_to_array: characters without a separator, the text itself with an empty one."""
    if text is None:
        return None
    certain(context, text, separator or "", null or "")
    if not text:
        return array_of(TEXTS, ())
    parts = list(text) if separator is None else text.split(separator) if separator else [text]
    return array_of(TEXTS, (None if part == null else part for part in parts))


_PAIR = "(anyarray, anyarray)"


def _ordering(holds: Callable[[int, int], bool]) -> Builtin:
    return Builtin(lambda context, left, right: holds(_compare(context, left, right), 0), contextual=True, ordered=True)


TABLE: Table = {
    f"array_eq{_PAIR}": Builtin(_equal, contextual=True),
    f"array_ne{_PAIR}": Builtin(lambda context, left, right: not _equal(context, left, right), contextual=True),
    f"array_lt{_PAIR}": _ordering(operator.lt),
    f"array_le{_PAIR}": _ordering(operator.le),
    f"array_gt{_PAIR}": _ordering(operator.gt),
    f"array_ge{_PAIR}": _ordering(operator.ge),
    f"btarraycmp{_PAIR}": Builtin(_compare, contextual=True, ordered=True),
    f"arraycontains{_PAIR}": Builtin(_contains, contextual=True),
    f"arraycontained{_PAIR}": Builtin(_contained, contextual=True),
    f"arrayoverlap{_PAIR}": Builtin(_overlaps, contextual=True),
    "array_append(anycompatiblearray, anycompatible)": Builtin(_appended, strict=False),
    "array_prepend(anycompatible, anycompatiblearray)": Builtin(_prepended, strict=False),
    "array_cat(anycompatiblearray, anycompatiblearray)": Builtin(_joined, strict=False),
    "array_remove(anycompatiblearray, anycompatible)": Builtin(_removed, strict=False, contextual=True),
    "array_replace(anycompatiblearray, anycompatible, anycompatible)": Builtin(
        _replaced, strict=False, contextual=True
    ),
    "array_position(anycompatiblearray, anycompatible)": Builtin(_position, strict=False, contextual=True),
    "array_position(anycompatiblearray, anycompatible, integer)": Builtin(
        _position_from, strict=False, contextual=True
    ),
    "array_positions(anycompatiblearray, anycompatible)": Builtin(_positions, strict=False, contextual=True),
    "cardinality(anyarray)": Builtin(lambda array: len(array.elements)),
    "array_length(anyarray, integer)": Builtin(_length),
    "array_lower(anyarray, integer)": Builtin(_lower),
    "array_upper(anyarray, integer)": Builtin(_upper),
    "array_ndims(anyarray)": Builtin(lambda array: len(array.sizes) or None),
    "array_dims(anyarray)": Builtin(_dims),
    "array_to_string(anyarray, text)": Builtin(_to_string, contextual=True),
    "array_to_string(anyarray, text, text)": Builtin(_to_string_nulls, strict=False, contextual=True),
    "string_to_array(text, text)": Builtin(_split, strict=False, contextual=True),
    "string_to_array(text, text, text)": Builtin(_split, strict=False, contextual=True),
}
