"""The compiler of one policy: from node trees to expressions, and what its handlers ask it for.

Pure: no I/O. A handler makes the expression of a node of one tag; the table of them is in `tags`. The compiler hands
nodes to handlers, finds functions by the signatures of `cdc.operators`, and numbers the conditions that are tested by
their value, so that equal ones of equal policies have equal keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from functools import cached_property
from typing import TypeAlias

from cdc.operators import Builtin, Collation, Context, Datums, Failed, Undecided, builtin
from cdc.predicate import Predicate
from cdc.rls.constructs import NotSupported, Scope, construct
from cdc.rls.expression import Expression, Session, SessionError, Term, tested, testing
from cdc.rls.nodes import Node
from cdc.rls.policy import Function
from cdc.rls.subject import Subject

__all__ = ["Called", "Compiler", "Condition", "Handler", "conditional"]

BOOLEAN = 16

_QUIET = re.compile(
    r"(int(\d+|2)*|float\d*|numeric_|text_?|bpchar|name|nametext|textname|date_|timestamp_|timestamptz_|time_|"
    r"interval_|uuid_|oid|bool|bytea|enum_|array_?|jsonb_|char)(eq|ne|lt|le|gt|ge)\(|"
    r"(int8\((integer|smallint)|int4\(smallint|numeric\((integer|bigint|smallint)|float8\((real|integer|bigint|smallint))\)|"
    r"(texteqname|textnename|nameeqtext|namenetext|date_(eq|ne|lt|le|gt|ge)_timestamp|length|lower|upper|strpos|btrim|"
    r"ltrim|rtrim|text|starts_with|octet_length|char_length|character_length|jsonb_object_field(_text)?|"
    r"jsonb_array_element(_text)?|jsonb_extract_path(_text)?|jsonb_exists(_any|_all)?|jsonb_contain(s|ed)|"
    r"arraycontain(s|ed)|arrayoverlap|cardinality|array_length)\("
)
"""Functions that raise for no value of their types: those that the server has as leakproof, and their like."""

_PRINTED = frozenset({20, 21, 23, 25, 26, 1043, 2950})
"""Types of which the bytes of a cell are the datum as Python prints it."""

_DEEPEST_CASE = 4

_KEPT = 1024
_LONGEST = 200
_DEEPEST = 8
_NOBODY = Session(Subject("nobody"))
_UTC = Context(zone=UTC)


class Identity:
    """What makes two compiled policies the same; hashed once."""

    __slots__ = ("_content", "_hash")

    def __init__(self, content: Hashable) -> None:
        self._content = content
        self._hash = hash(content)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Identity) and self._hash == other._hash and self._content == other._content
        )


Condition: TypeAlias = Callable[[Session], Predicate]
"""A compiled condition: the predicate for a session. Raises SessionError."""


@dataclass(frozen=True, slots=True)
class Called:
    """A function that is evaluated here.

    Attributes:
        builtin: what it computes.
        function: what the catalog says of it.
        words: its name, for messages.
    """

    builtin: Builtin
    function: Function
    words: str

    @property
    def is_quiet(self) -> bool:
        """Whether it raises for no value."""
        return _QUIET.match(self.function.signature) is not None


class Compiler:
    """Compiles one policy.

    Args:
        scope: what the numbers in its node tree refer to.
        handlers: what makes the expression of a node, by tag.
        policy: what messages call it, such as `policy "mine"`.
        identity: what tells it from other policies; equal policies have equal ones.
        case: what CASETESTEXPR stands for.
    """

    def __init__(
        self,
        scope: Scope,
        handlers: Mapping[str, Handler],
        policy: str = "",
        identity: Hashable = None,
        case: Expression | None = None,
    ) -> None:
        self.scope = scope
        self.moment = scope.moment
        self.policy = policy
        self.case = case
        self._handlers = handlers
        self._identity = Identity(identity)
        self._numbers: list[int] = [0]
        self._refusals: list[str] = []
        self._operands: list[int] = [0]
        self._calls: tuple[int, ...] = ()

    @cached_property
    def datums(self) -> Datums:
        """The datums of the server's types."""
        return Datums(self.scope.types)

    def within(self, case: Expression) -> Compiler:
        """The same compiler where CASETESTEXPR stands for `case`."""
        return self._alike(case)

    def case_operand(self, node: Node) -> Expression:
        """The operand of a CASE, which each of its arms evaluates; so one inside the other may not go deep."""
        self._operands[0] += 1
        if self._operands[0] > _DEEPEST_CASE:
            raise NotSupported(f"CASE as the operand of CASE, more than {_DEEPEST_CASE} deep")
        expression = self.expression(node)
        self._operands[0] -= 1
        return expression

    def _alike(self, case: Expression | None) -> Compiler:
        inner = Compiler(self.scope, self._handlers, self.policy, None, case)
        inner._identity, inner._numbers, inner._calls = self._identity, self._numbers, self._calls
        inner._refusals, inner._operands = self._refusals, self._operands
        return inner

    def calling(self, oid: int) -> Compiler:
        """The same compiler for the body of a function. Raises NotSupported for one that calls itself."""
        if oid in self._calls or len(self._calls) >= _DEEPEST:
            raise NotSupported(f"{self.scope.function(oid)}, which calls itself or is nested too deep")
        inner = self._alike(None)
        inner._calls = (*self._calls, oid)
        return inner

    def operand(self, node: Node) -> Expression:
        """The expression of a node, which may be a column that can only be compared as text or asked for NULL.

        Raises NotSupported, and TreeError for a malformed node.
        """
        handler = self._handlers.get(node.tag)
        if handler is None:
            raise NotSupported(construct(node, self.scope))
        expression = handler(node, self)
        self._note_refusal(expression)
        return expression

    def _note_refusal(self, expression: Expression) -> None:
        """Note what PostgreSQL raises before it reads a row, as of a constant, wherever in the policy it stands."""
        if expression.refusal is not None:
            self._refusals.append(expression.refusal)
        elif expression.is_session and not expression.session:
            try:
                expression.bind(_NOBODY)
            except SessionError as problem:
                self._refusals.append(str(problem))

    @property
    def refusal(self) -> str | None:
        """Why nobody of this role can have the policy evaluated; None when there is no such reason."""
        return self._refusals[0] if self._refusals else None

    def expression(self, node: Node) -> Expression:
        """The expression of a node. Raises NotSupported, and TreeError for a malformed node."""
        return self.valued(self.operand(node))

    def expressions(self, nodes: list[Node]) -> list[Expression]:
        """The expressions of several nodes."""
        return [self.expression(node) for node in nodes]

    def valued(self, expression: Expression) -> Expression:
        """The expression, when its value can be read. Raises NotSupported."""
        if expression.opaque is not None:
            raise NotSupported(expression.opaque)
        return expression

    def constant(self, node: Node) -> Term:
        """The term of a CONST node. Raises NotSupported and TreeError."""
        return self.expression(node).bind(_NOBODY)

    def boolean(self, node: Node) -> Expression:
        """The expression of a boolean node. Raises NotSupported and TreeError."""
        expression = self.expression(node)
        if self.base(expression.type_oid) != BOOLEAN:
            raise NotSupported(construct(node, self.scope))
        return expression

    def tested(self, expression: Expression) -> Condition:
        """The condition that a boolean expression is."""
        condition = expression.condition or self.by_value(expression)
        return condition if expression.session else _once(condition)

    def by_value(self, expression: Expression) -> Condition:
        """The condition that tests an expression's value. Sessions that have the same values share predicates."""
        mark, where, moment = self.mark(), self.where(expression.words), self.moment
        kept: dict[Hashable, Predicate] = {}

        def bind(session: Session) -> Predicate:
            term = expression.bind(session)
            if term.known or term.key is None:
                return tested(term, where, moment, None)
            found = kept.get(term.key)
            if found is None:
                if len(kept) >= _KEPT:
                    kept.clear()
                found = kept[term.key] = tested(term, where, moment, (mark, term.key))
            return found

        return bind

    def where(self, words: str) -> str:
        """What a message calls a condition."""
        return f"{self.policy}: {words}" if self.policy else words

    def mark(self) -> Hashable:
        """What tells this condition from others, of this policy and of others; equal policies give equal ones."""
        self._numbers[0] += 1
        return (self._identity, self._numbers[0])

    def function(self, oid: int, node: Node) -> Called:
        """The function with this OID. Raises NotSupported when it is not evaluated here."""
        function = self.scope.rights.functions.get(oid)
        signature = "" if function is None else function.signature
        found = builtin(signature)
        if function is None or found is None:
            raise NotSupported(construct(node, self.scope))
        return Called(found, function, function.name)

    def operator(self, node: Node) -> Called:
        """The function of the operator in `opno`. Raises NotSupported when it is not evaluated here."""
        number = node.number("opno")
        called = self.function(self.scope.rights.operator_functions.get(number, 0), node)
        return replace(called, words=self.scope.rights.operators.get(number, called.words))

    def input(self, type_oid: int) -> Callable[[Context, str], object] | None:
        """The input function of a type; None when that is not evaluated here."""
        return self.datums.input(type_oid)

    def collation(self, node: Node, called: Called) -> Collation:
        """What can be done under the collation of a call. Raises NotSupported when that is not enough."""
        oid, rights = node.number("inputcollid"), self.scope.rights
        if oid in rights.nondeterministic:
            raise NotSupported("a comparison of texts under a nondeterministic collation")
        if oid in rights.code_point or not oid:
            return Collation.CODE_POINT
        if getattr(called.builtin, "ordered", False):
            raise NotSupported(f"{called.words} of texts under a collation whose order only the server knows")
        return Collation.LINGUISTIC

    def context(self, collation: Collation, node: Node | None = None) -> Callable[[Session], Context]:
        """The contexts of a call, one for each time zone; its node tells of its language."""
        made: dict[object, Context] = {}
        moment, utf8 = self.moment, self.scope.rights.utf8
        plain = node is not None and node.number("inputcollid") in self.scope.rights.plain_case

        def context(session: Session) -> Context:
            found = made.get(session.zone)
            if found is None:
                found = made[session.zone] = Context(collation, session.zone, moment, utf8, plain)
            return found

        return context

    def base(self, type_oid: int) -> int:
        """The type that a domain rests on; any other type is its own."""
        return self.scope.types.base(type_oid)

    def type_name(self, type_oid: int) -> str:
        """The name of a type."""
        return self.scope.types.name(type_oid)

    def exact(self, type_oid: int) -> Callable[[object], Hashable]:
        """What tells datums of a type apart, also those that are equal: 1.0 from 1.00. None for one without text."""
        plain = (int, str, bool, bytes, type(None))
        output = self.datums.output(type_oid)

        def key(datum: object) -> Hashable:
            if type(datum) in plain:
                return (datum,)
            try:
                return None if output is None else (output(_UTC, datum),)
            except (Failed, Undecided, ValueError):
                return None

        return key

    def hashable(self, type_oid: int) -> Callable[[object], Hashable] | None:
        """From a datum to the hashable that `Equality` compares it by; None for a type without such.

        It raises ValueError for a datum that has none.
        """
        equality, output = self.scope.types.equality(type_oid), self.datums.output(type_oid)
        if equality is None or output is None:
            return None
        if equality.from_cell is None and self.base(type_oid) in _PRINTED:
            return lambda datum: str(datum).encode()
        from_text = equality.from_text

        def hashed(datum: object) -> Hashable:
            try:
                return from_text(output(_UTC, datum))
            except (Failed, Undecided) as problem:
                raise ValueError(str(problem)) from None

        return hashed


Handler: TypeAlias = Callable[[Node, Compiler], Expression]


def _once(condition: Condition) -> Condition:
    """The condition of which all sessions share the predicate."""
    made: list[Predicate] = []

    def bind(session: Session) -> Predicate:
        if not made:
            made.append(condition(session))
        return made[0]

    return bind


def conditional(condition: Condition, words: str, parts: list[Expression], compiler: Compiler) -> Expression:
    """The boolean expression of a condition over other expressions."""
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
    moment = compiler.moment
    return Expression(
        BOOLEAN,
        words,
        frozenset().union(*(part.columns for part in parts)),
        lambda session: testing(condition(session), moment),
        session=any(part.session for part in parts),
        timed=any(part.timed for part in parts),
        condition=condition,
    )
