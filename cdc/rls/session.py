"""Session expressions: what a policy says of the session and not of the row, as a value for one subject.

Pure: no I/O. `auth.uid()`, `(auth.jwt() ->> 'sub')::uuid` and `current_setting('app.tenant', true)` have one value
for a subject, so they are compiled once and evaluated when a subject subscribes. The value is a text that the
expression's type reads, or a JSON document; None is NULL.

Postgres may raise where such an expression is evaluated (an invalid uuid, a setting that is not there). Here that
is a `SessionError`, and the subject sees nothing. Its message names the expression and never the value, which may
be secret. An expression is evaluated even where Postgres would not reach it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cdc.rls.bodies import Part, known_parts
from cdc.rls.claims import Document, parse
from cdc.rls.constants import constant_text
from cdc.rls.constructs import NotSupported, Scope, construct
from cdc.rls.nodes import Node
from cdc.rls.policy import Function
from cdc.rls.subject import Subject
from cdc.values import Equality

__all__ = ["CHARACTERS", "RELABELS", "Session", "SessionError", "compile_session", "sole_target"]

_BOOLEAN, _NAME, _INTEGER, _OID, _JSON, _UUID, _JSONB = 16, 19, 23, 26, 114, 2950, 3802
CHARACTERS = frozenset({25, 1043})
"""text and character varying."""

RELABELS = frozenset({(25, 1043), (1043, 25), (25, 1042), (1043, 1042)})
"""Casts between types that share a text form, and of which nothing but the label changes."""

EXPR_SUBLINK = 4
"""SubLinkType of a sub-query in the place of a value, in every version from 14 to 18."""

_CANONICAL = frozenset({20, 21, 23, 26, _UUID})
_READABLE = frozenset({_BOOLEAN, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1114, 1184, 1700, _UUID})
_ARROWS = {3211: (_JSONB, False), 3477: (_JSONB, True), 3962: (_JSON, False), 3963: (_JSON, True)}
_CURRENT_SETTING = {2077: 1, 3294: 2}

# Functions behind casts from one type to another that reads the first one's text to the same value.
_CASTS = {
    235: (21, 701), 316: (23, 701), 482: (20, 701), 1746: (1700, 701),
    236: (21, 700), 318: (23, 700), 652: (20, 700), 1745: (1700, 700),
    313: (21, 23), 314: (23, 21), 480: (20, 23), 481: (23, 20), 714: (20, 21), 754: (21, 20),
    1740: (23, 1700), 1781: (20, 1700), 1782: (21, 1700),
    406: (_NAME, 25), 407: (25, _NAME),
}  # fmt: skip

SessionValue: TypeAlias = "str | Document | None"


class SessionError(Exception):
    """A session expression has no value for this subject. Never leaves `cdc.rls`."""


@dataclass(frozen=True, slots=True)
class Session:
    """A compiled session expression.

    Attributes:
        type_oid: OID of its type.
        words: the expression as a person would write it, without values.
        value: its value for a subject; raises SessionError.
    """

    type_oid: int
    words: str
    value: Callable[[Subject], SessionValue]

    def text(self, subject: Subject) -> str | None:
        """The value of an expression that is no JSON."""
        value = self.value(subject)
        if isinstance(value, Document):
            raise SessionError(f"{self.words} is JSON")
        return value


def compile_session(node: Node, scope: Scope) -> Session:
    """The session expression of a node. Raises NotSupported, and TreeError for a malformed node."""
    handler = _HANDLERS.get(node.tag)
    if handler is None:
        raise NotSupported(construct(node, scope))
    return handler(node, scope)


def sole_target(node: Node, scope: Scope) -> Node:
    """What `(SELECT expression)` selects: a SUBLINK without FROM or any other clause, with one target.

    A field of the query that is not known must be empty, whatever it is called: that holds for versions to come.
    Raises NotSupported for every other sub-query.
    """
    query = node.fields.get("subselect")
    if node.number("subLinkType") != EXPR_SUBLINK or not isinstance(query, Node) or not _is_bare(query):
        raise NotSupported(construct(node, scope))
    targets = query.nodes("targetList")
    if len(targets) != 1 or targets[0].fields.get("resjunk") != "false":
        raise NotSupported(construct(node, scope))
    return targets[0].node("expr")


_EMPTY = (None, "false", "0", ())
_ALLOWED = {"targetList", "jointree", "canSetTag", "hasSubLinks", "stmt_location", "stmt_len"}


def _is_bare(query: Node) -> bool:
    join = query.fields.get("jointree")
    if query.tag != "QUERY" or query.fields.get("commandType") != "1" or not isinstance(join, Node):
        return False
    if any(value not in _EMPTY for value in join.fields.values()):
        return False
    others = {name: value for name, value in query.fields.items() if name not in _ALLOWED | {"commandType"}}
    return all(value in _EMPTY for value in others.values())


def _sublink(node: Node, scope: Scope) -> Session:
    return compile_session(sole_target(node, scope), scope)


def _constant(node: Node, scope: Scope) -> Session:
    text = constant_text(node, scope)
    type_oid = node.number("consttype")
    return Session(type_oid, f"a constant of type {scope.types.name(type_oid)}", lambda subject: text)


def _arrow(node: Node, scope: Scope) -> Session:
    """`->` and `->>` with the name of a field."""
    known = _ARROWS.get(node.number("opno"))
    args = node.nodes("args")
    if known is None or len(args) != 2 or args[1].tag != "CONST":
        raise NotSupported(construct(node, scope))
    type_oid, as_text = known
    document, name = compile_session(args[0], scope), constant_text(args[1], scope)
    if name is None or document.type_oid != type_oid:
        raise NotSupported(construct(node, scope))
    words = f"({document.words} {'->>' if as_text else '->'} '{name}')"

    def value(subject: Subject) -> SessionValue:
        found = document.value(subject)
        part = found.field(name) if isinstance(found, Document) else None
        return part if part is None or not as_text else _json_text(part, words)

    return Session(25 if as_text else type_oid, words, value)


def _json_text(document: Document, words: str) -> str | None:
    try:
        return document.text()
    except ValueError as error:
        raise SessionError(f"{words} has no text that can be compared: {error}") from None


def _function(node: Node, scope: Scope) -> Session:
    oid, args = node.number("funcid"), node.nodes("args")
    if oid in _CURRENT_SETTING:
        return _setting(node, args, scope)
    if oid in _CASTS and len(args) == 1:
        arg = compile_session(args[0], scope)
        source, target = _CASTS[oid]
        if arg.type_oid == source:
            return _read(arg, target, f"{arg.words}::{scope.types.name(target)}", scope)
    function = scope.rights.functions.get(oid)
    if function is None or args or function.argument_count:
        raise NotSupported(construct(node, scope))
    return _known_function(function, scope)


def _known_function(function: Function, scope: Scope) -> Session:
    parts = known_parts(function)
    if parts is None:
        written = "" if function.language == "sql" else f" (written in {function.language})"
        raise NotSupported(f"function {function}{written or ' (its body is not one that cdc knows)'}")
    words = str(function)
    text = Session(25, words, lambda subject: _first(parts, words, subject))
    if not function.executable:
        return Session(function.result, words, lambda subject: _forbidden(words, subject))
    if function.result == _JSONB:
        return _document(text, _JSONB, words)
    return _read(text, function.result, words, scope)


def _forbidden(words: str, subject: Subject) -> SessionValue:
    raise SessionError(f"role {subject.role} has no EXECUTE right on {words}")


def _first(parts: tuple[Part, ...], words: str, subject: Subject) -> str | None:
    """The first part that is not NULL, as coalesce finds it: later parts are not looked at."""
    for part in parts:
        text = part.source(subject)
        if text is not None and part.claim is not None:
            found = _parsed(text, words, binary=True).field(part.claim)
            text = None if found is None else _json_text(found, words)
        if text is not None:
            return text
    return None


def _setting(node: Node, args: list[Node], scope: Scope) -> Session:
    """current_setting(name [, missing_ok])."""
    if len(args) != _CURRENT_SETTING[node.number("funcid")] or any(arg.tag != "CONST" for arg in args):
        raise NotSupported("current_setting of a name that is not a constant")
    name, *flag = (constant_text(arg, scope) for arg in args)
    if name is None or flag == [None]:
        raise NotSupported("current_setting of NULL")
    if "." not in name:
        raise NotSupported(f"current_setting('{name}'), a setting of the server")
    missing_ok = flag == ["true"]
    words = f"current_setting('{name}'{', true' if missing_ok else ''})"

    def value(subject: Subject) -> str | None:
        declared = subject.setting(name)
        if declared is None and not missing_ok:
            raise SessionError(f"{words}: the subject does not declare this setting")
        return declared

    return Session(25, words, value)


def _io_cast(node: Node, scope: Scope) -> Session:
    """COERCEVIAIO: a cast through the text form."""
    arg, target = compile_session(node.node("arg"), scope), node.number("resulttype")
    words = f"{arg.words}::{scope.types.name(target)}"
    if arg.type_oid in CHARACTERS and target in (_JSON, _JSONB):
        return _document(arg, target, words)
    if arg.type_oid in CHARACTERS and target in _READABLE:
        return _read(arg, target, words, scope)
    if arg.type_oid in _CANONICAL and target in CHARACTERS:
        return Session(target, words, arg.value)
    raise NotSupported(f"cast of {scope.types.name(arg.type_oid)} to {scope.types.name(target)}")


def _read(arg: Session, target: int, words: str, scope: Scope) -> Session:
    """The argument's text as a value of another type, in its canonical form where the type has one."""
    equality = scope.types.equality(target)
    if equality is None:
        raise NotSupported(f"cast to {scope.types.name(target)}")
    return Session(target, words, lambda subject: _canonical(arg.text(subject), equality, words))


def _canonical(text: str | None, equality: Equality, words: str) -> str | None:
    if text is None:
        return None
    try:
        read = equality.from_text(text)
    except ValueError:
        raise SessionError(f"{words}: the text is not a value of its type") from None
    return read.decode() if isinstance(read, bytes) else text


def _document(arg: Session, target: int, words: str) -> Session:
    binary = target == _JSONB

    def value(subject: Subject) -> Document | None:
        text = arg.text(subject)
        return None if text is None else _parsed(text, words, binary=binary)

    return Session(target, words, value)


def _parsed(text: str, words: str, *, binary: bool) -> Document:
    try:
        return parse(text, binary=binary)
    except ValueError as error:
        raise SessionError(f"{words}: the text is not JSON: {error}") from None


def _relabel(node: Node, scope: Scope) -> Session:
    arg, target = compile_session(node.node("arg"), scope), node.number("resulttype")
    if (arg.type_oid, target) in RELABELS:
        return Session(target, arg.words, arg.value)
    if (arg.type_oid, target) == (_INTEGER, _OID):
        return Session(target, arg.words, lambda subject: _as_oid(arg.text(subject)))
    raise NotSupported(f"cast of {scope.types.name(arg.type_oid)} to {scope.types.name(target)}")


def _as_oid(text: str | None) -> str | None:
    return None if text is None else str(int(text) % 2**32)


_HANDLERS: dict[str, Callable[[Node, Scope], Session]] = {
    "COERCEVIAIO": _io_cast,
    "CONST": _constant,
    "FUNCEXPR": _function,
    "OPEXPR": _arrow,
    "RELABELTYPE": _relabel,
    "SUBLINK": _sublink,
}
