"""What a condition is about: a column, its type, and the functions that compare it with a value.

Pure: no I/O. Equality comes from `cdc.values`, everything else from `cdc.operators`, found by the functions' signatures
in PostgreSQL's catalog. A type without a function here cannot be compared that way, and the message says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from cdc.errors import SubscriptionError
from cdc.filters.grammar import Condition
from cdc.operators import Builtin, Collation, Context, Datums, Failed, Moment, Undecided, builtin
from cdc.relation import Relation
from cdc.values import Equality, Types
from cdc.values.equality import quoted

__all__ = ["NOTHING_KNOWN", "Collations", "Target", "check_readable"]

Collations: TypeAlias = Mapping[str, Collation]
"""Collations of columns, by the columns' names."""

NOTHING_KNOWN: Collations = MappingProxyType({})

_NAME, _TEXT, _CHARACTER, _VARCHAR = 19, 25, 1042, 1043
_COLLATED = frozenset({_NAME, _TEXT, _CHARACTER, _VARCHAR})
_TIMES = frozenset({1082, 1083, 1114, 1184, 1266})
_MOVING = ("now", "today", "tomorrow", "yesterday")
_SUFFIXES = {"eq": "eq", "lt": "lt", "lte": "le", "gt": "gt", "gte": "ge"}
_MIDNIGHT, _STAMP = "without time zone", "with time zone"

# Functions of comparison by type: what stands before lt, le, gt, ge and eq, and the type of both arguments.
_COMPARISONS = {
    16: ("bool", "boolean"),
    17: ("bytea", "bytea"),
    _NAME: ("name", "name"),
    20: ("int8", "bigint"),
    21: ("int2", "smallint"),
    23: ("int4", "integer"),
    _TEXT: ("text_", "text"),
    26: ("oid", "oid"),
    650: ("network_", "inet"),
    700: ("float4", "real"),
    701: ("float8", "double precision"),
    774: ("macaddr8_", "macaddr8"),
    790: ("cash_", "money"),
    829: ("macaddr_", "macaddr"),
    869: ("network_", "inet"),
    _CHARACTER: ("bpchar", "character"),
    _VARCHAR: ("text_", "text"),
    1082: ("date_", "date"),
    1083: ("time_", f"time {_MIDNIGHT}"),
    1114: ("timestamp_", f"timestamp {_MIDNIGHT}"),
    1184: ("timestamptz_", f"timestamp {_STAMP}"),
    1186: ("interval_", "interval"),
    1266: ("timetz_", f"time {_STAMP}"),
    1560: ("bit", "bit"),
    1562: ("varbit", "bit varying"),
    1700: ("numeric_", "numeric"),
    2950: ("uuid_", "uuid"),
    3220: ("pg_lsn_", "pg_lsn"),
}
_EQUAL_ONLY = {3802: ("jsonb_", "jsonb")}
_ENUM, _ARRAY = ("enum_", "anyenum"), ("array_", "anyarray")
_PATTERNS = {
    "like": "like(",
    "ilike": "iclike(",
    "match": "regexeq(",
    "imatch": "icregexeq(",
}
_TEXTS = {
    _NAME: ("name", "name, text)"),
    _TEXT: ("text", "text, text)"),
    _CHARACTER: ("bpchar", "character, text)"),
    _VARCHAR: ("text", "text, text)"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """The column of a condition.

    Attributes:
        condition: the condition.
        index: of the column in the relation.
        name: the column in words, with its table.
        type_name: its type in words.
        base: OID of its type, or of the one that its domain rests on.
        is_enum: whether that is an enum.
        collation: how its texts are compared.
        equality: its `=`, None when that is a function only.
        datums: makes values of its type.
        context: what its functions depend on.
    """

    condition: Condition
    index: int
    name: str
    type_name: str
    base: int
    is_enum: bool
    collation: Collation
    equality: Equality | None
    datums: Datums
    context: Context

    @classmethod
    def of(
        cls, condition: Condition, relation: Relation, types: Types, collations: Collations, moment: Moment
    ) -> Target:
        """Raises SubscriptionError for a column that only the server can compare."""
        index = relation.whole.columns[condition.column]
        column = relation.columns[index]
        collation = collations.get(column.name, Collation.LINGUISTIC)
        plain = collation is Collation.PLAIN_CASE
        collation = Collation.LINGUISTIC if plain else collation
        if collation is Collation.NONDETERMINISTIC and condition.operator != "is":
            raise SubscriptionError(f"{relation}.{column.name} has a nondeterministic collation: it cannot be compared")
        return cls(
            condition,
            index,
            f"{column.name!r} of {relation}",
            types.name(column.type_oid),
            types.base(column.type_oid),
            types.is_enum(column.type_oid),
            collation,
            types.equality(column.type_oid),
            Datums(types),
            Context(collation, None, moment, plain_case=plain),
        )

    def hashable(self, value: str) -> Hashable:
        """The value as its type's equality compares it. Raises SubscriptionError when it is no value of the type."""
        assert self.equality is not None
        try:
            return self.equality.from_text(value)
        except ValueError as error:
            raise self._misfit(str(error)) from None

    def check_order(self) -> None:
        """Raises SubscriptionError for a text whose order only the server knows."""
        if self.base in _COLLATED and self.collation is not Collation.CODE_POINT:
            raise SubscriptionError(
                f"filter {quoted(self.condition.text)} asks for the order of texts, and that of column {self.name} is "
                f'its collation\'s, which only the server knows: give the column COLLATE "C", or compare in the handler'
            )

    def comparison(self, operator: str, value: str) -> Callable[[bytes], bool]:
        """What compares a cell with the value. Raises SubscriptionError when the type has no such comparison here."""
        named = _COMPARISONS.get(self.base)
        if operator == "eq":
            named = named or _EQUAL_ONLY.get(self.base) or self._array
        elif self.is_enum:
            named = _ENUM
        function = None if named is None else builtin(_signature(*named, _SUFFIXES[operator]))
        if function is None:
            raise self._incomparable(operator)
        return self._applied(function, self._datum(value))

    def pattern(self, operator: str, value: str) -> Callable[[bytes], bool]:
        """What holds a cell against a pattern. Raises SubscriptionError for one that Python cannot follow."""
        named = _TEXTS.get(self.base)
        if named is None:
            raise SubscriptionError(
                f"filter {quoted(self.condition.text)}: {operator} compares texts, and column {self.name} is of type "
                f"{self.type_name}; write eq, neq, in or is, or compare in the handler"
            )
        kind, arguments = named
        function = builtin(f"{kind}{_PATTERNS[operator]}{arguments}")
        if function is None:
            raise self._incomparable(operator)
        wanted = value.replace("*", "%") if operator in ("like", "ilike") else value
        if operator in ("like", "ilike") and _ends_in_escape(wanted):
            raise self._unread("its pattern ends with a backslash, which keeps the character behind it")
        holds = self._applied(function, wanted)
        try:
            for probe in (b"", b"a"):
                holds(probe)
        except (Failed, Undecided, ValueError) as problem:
            raise self._unread(str(problem)) from None
        return holds

    def _applied(self, function: Builtin, wanted: object) -> Callable[[bytes], bool]:
        """The function with the value as its second argument, on cells."""
        read, call, context = self.datums.reader(self.base), function.call, self.context
        if read is None:
            raise self._incomparable(self.condition.operator)
        if function.contextual:
            return lambda cell: call(context, read(cell), wanted) is True
        return lambda cell: call(read(cell), wanted) is True

    def _datum(self, value: str) -> object:
        """The value as functions take it."""
        if self.equality is not None:
            self.hashable(value)
        convert = self.datums.input(self.base)
        if convert is None:
            raise self._incomparable(self.condition.operator)
        if self.base in _TIMES and any(word in value.lower() for word in _MOVING):
            raise self._misfit(f"{quoted(value)} is another time whenever it is read: write the time itself")
        try:
            return convert(self.context, value)
        except Undecided as reason:
            problem = f"{quoted(value)} is {reason}, which only the server can read: write it in another way"
            raise self._misfit(problem) from None
        except (Failed, ValueError) as error:
            raise self._misfit(str(error)) from None

    @property
    def _array(self) -> tuple[str, str] | None:
        """The functions of arrays, if it is one whose elements can be compared."""
        element = self.datums.element(self.base)
        if element is None or not (element.is_enum or element.oid in _COMPARISONS | _EQUAL_ONLY):
            return None
        return _ARRAY

    def _incomparable(self, operator: str) -> SubscriptionError:
        if self.equality is not None:
            return SubscriptionError(
                f"column {self.name} is of type {self.type_name}, for which a filter has no {operator}: "
                "write eq, neq, in or is, or compare in the handler"
            )
        return SubscriptionError(
            f"column {self.name} is of type {self.type_name}, which a filter cannot compare: "
            "filter by another column, or in the handler"
        )

    def _misfit(self, problem: str) -> SubscriptionError:
        return SubscriptionError(
            f"the filter's value does not fit column {self.name}, of type {self.type_name}: {problem}"
        )

    def _unread(self, problem: str) -> SubscriptionError:
        return SubscriptionError(
            f"filter {quoted(self.condition.text)} has a pattern that cannot be decided as the server would: {problem}"
        )


def _signature(stem: str, type_name: str, suffix: str) -> str:
    stem = "text" if (stem, suffix) == ("text_", "eq") else stem
    return f"{stem}{suffix}({type_name}, {type_name})"


def _ends_in_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def check_readable(name: str, relation: Relation, hidden: Collection[str]) -> None:
    """Raises SubscriptionError for a column that is not there, or may not be read: a filter tells its values.

    A column that may not be read is named only to those who have named it.
    """
    if name in relation.whole.columns:
        if name in hidden:
            raise SubscriptionError(
                f"the filter reads {name} of {relation}, which the role may not read: filter by another column, or "
                "grant it SELECT on this one"
            )
        return
    names = ", ".join(column for column in relation.whole.columns if column not in hidden)
    path = "; a filter compares whole columns, not parts of a document" if "->" in name else ""
    raise SubscriptionError(
        f"the filter names the column {name!r}, but the published columns of {relation} are: {names}{path}"
    )
