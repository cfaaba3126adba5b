"""What arrays know of the type of their elements: how these compare, and how they are printed.

Pure: no I/O. Arrays compare their elements by the functions of the element type's default operators, under the
collation of the call, so those are looked up among the functions that are evaluated here.
The manual: "Array Functions and Operators".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from cdc.operators.builtins import Builtin
from cdc.operators.collating import certain
from cdc.operators.context import Collation, Context, Undecided

__all__ = ["ElementType"]

Output = Callable[[Context, object], str]

_ENUM = ("enum_", "anyenum")

# OID of the type: what its functions' names begin with, and the type of their arguments
_FUNCTIONS: dict[int, tuple[str, str]] = {
    16: ("bool", "boolean"),
    17: ("bytea", "bytea"),
    18: ("char", '"char"'),
    19: ("name", "name"),
    20: ("int8", "bigint"),
    21: ("int2", "smallint"),
    23: ("int4", "integer"),
    25: ("text", "text"),
    26: ("oid", "oid"),
    650: ("network_", "inet"),
    700: ("float4", "real"),
    701: ("float8", "double precision"),
    790: ("cash_", "money"),
    829: ("macaddr_", "macaddr"),
    774: ("macaddr8_", "macaddr8"),
    869: ("network_", "inet"),
    1042: ("bpchar", "character"),
    1043: ("text", "text"),
    1082: ("date_", "date"),
    1083: ("time_", "time without time zone"),
    1114: ("timestamp_", "timestamp without time zone"),
    1184: ("timestamptz_", "timestamp with time zone"),
    1186: ("interval_", "interval"),
    1266: ("timetz_", "time with time zone"),
    1560: ("bit", "bit"),
    1562: ("varbit", "bit varying"),
    1700: ("numeric_", "numeric"),
    2950: ("uuid_", "uuid"),
    3802: ("jsonb_", "jsonb"),
}
_TEXTS = frozenset({25, 1043})
_HASHED = frozenset({19, 20, 21, 23, 26, 1082, 1114, 1184, 2950}) | _TEXTS
"""Types of which equal datums are those that are equal in Python."""


@dataclass(frozen=True)
class ElementType:
    """The type of an array's elements.

    Attributes:
        oid: its OID; that of the base type for a domain.
        write: prints an element; None when that is not known here.
        delimiter: what stands between two elements.
        is_enum: whether it is an enum.
    """

    oid: int
    write: Output | None = None
    delimiter: str = ","
    is_enum: bool = False

    def equal(self, context: Context, left: object, right: object) -> bool:
        """`=` of two elements that are not NULL. Raises Failed, and Undecided."""
        return bool(_call(self._equality, context, left, right))

    def compare(self, context: Context, left: object, right: object) -> int:
        """Less than, equal to or greater than 0. Raises Failed, and Undecided."""
        if self.equal(context, left, right):
            return 0
        return -1 if _call(self._order, context, left, right) else 1

    def hashed(self, context: Context, elements: Iterable[object]) -> bool:
        """Whether these elements are equal exactly when they are so in Python. Raises Undecided."""
        if self.oid not in _HASHED:
            return False
        if self.oid in _TEXTS and (not context.utf8 or context.collation is Collation.NONDETERMINISTIC):
            certain(context, *(element for element in elements if isinstance(element, str)))
        return True

    def text(self, context: Context, element: object) -> str:
        """The element as its output function prints it. Raises Undecided."""
        if self.write is None:
            raise Undecided("an array's elements are of a type that is not printed here")
        return self.write(context, element)

    @cached_property
    def _equality(self) -> Builtin | None:
        return self._function("eq")

    @cached_property
    def _order(self) -> Builtin | None:
        return self._function("lt")

    def _function(self, word: str) -> Builtin | None:
        known = _ENUM if self.is_enum else _FUNCTIONS.get(self.oid)
        if known is None:
            return None
        from cdc.operators.tables import builtin  # which lists the functions of arrays, too

        prefix, name = known
        joint = "_" if word == "lt" and prefix == "text" else ""
        return builtin(f"{prefix}{joint}{word}({name}, {name})")


def _call(function: Builtin | None, context: Context, left: object, right: object) -> object:
    if function is None:
        raise Undecided("an array's elements are of a type that is not compared here")
    return function.call(context, left, right) if function.contextual else function.call(left, right)
