"""Binary cells of the geometric types, as the text that the server prints for them.

Pure: no I/O, no clock. The manual: "Data Types", Geometric Types.
"""

from __future__ import annotations

from cdc.values.binary import Reader
from cdc.values.floats import double_text

__all__ = ["box_of_binary", "circle_of_binary", "line_of_binary", "lseg_of_binary", "path_of_binary"]
__all__ += ["point_of_binary", "polygon_of_binary"]


def point_of_binary(cell: bytes) -> str:
    """`(x,y)`, from two Float64. Raises ValueError."""
    return _points(Reader(cell), 1)


def lseg_of_binary(cell: bytes) -> str:
    """`[(x,y),(x,y)]`, from two points. Raises ValueError."""
    return f"[{_points(Reader(cell), 2)}]"


def box_of_binary(cell: bytes) -> str:
    """`(x,y),(x,y)`, from two points. Raises ValueError."""
    return _points(Reader(cell), 2)


def path_of_binary(cell: bytes) -> str:
    """`((x,y),…)`, or `[(x,y),…]` when it is open: Int8 whether closed, Int32 count, points. Raises ValueError."""
    reader = Reader(cell)
    closed = reader.unsigned(1)
    points = _points(reader, reader.signed(4))
    return f"({points})" if closed else f"[{points}]"


def polygon_of_binary(cell: bytes) -> str:
    """`((x,y),…)`, from Int32 count and points. Raises ValueError."""
    reader = Reader(cell)
    return f"({_points(reader, reader.signed(4))})"


def line_of_binary(cell: bytes) -> str:
    """`{A,B,C}`, from three Float64. Raises ValueError."""
    return f"{{{','.join(_numbers(Reader(cell), 3))}}}"


def circle_of_binary(cell: bytes) -> str:
    """`<(x,y),r>`, from three Float64. Raises ValueError."""
    x, y, radius = _numbers(Reader(cell), 3)
    return f"<({x},{y}),{radius}>"


def _points(reader: Reader, count: int) -> str:
    """The last `count` points of a cell."""
    numbers = _numbers(reader, 2 * count)
    return ",".join(f"({x},{y})" for x, y in zip(numbers[::2], numbers[1::2], strict=True))


def _numbers(reader: Reader, count: int) -> list[str]:
    if count < 0 or reader.left != 8 * count:
        raise ValueError(f"a geometric value of {count} numbers does not have {reader.left} bytes")
    return [double_text(reader.double()) for _ in range(count)]
