"""The way composites and ranges write a value inside their text: bare, or in double quotes.

Pure: no I/O, no clock. Inside quotes a quote or a backslash is doubled. The manual: "Data Types", Composite Type
Input and Output Syntax; Range Types, Input/Output.
"""

from __future__ import annotations

import re

__all__ = ["inside", "item_pattern"]

_DOUBLED = re.compile(rb'["\\](.)', re.DOTALL)


def item_pattern(marks: bytes) -> bytes:
    """A pattern with two groups: what stands between quotes, or what stands bare and has none of `marks`."""
    return rb'(?:"((?:[^"\\]+|""|\\.)*+)"|([^"\\' + re.escape(marks) + rb"]*))"


def inside(quoted: bytes | None, bare: bytes) -> bytes | None:
    """The value of a match's two groups; None when nothing is written, which a value in quotes never is."""
    if quoted is None:
        return bare or None
    return _DOUBLED.sub(rb"\1", quoted) if b'"' in quoted or b"\\" in quoted else quoted
