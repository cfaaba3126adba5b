"""Session functions: functions of the users' own that take no arguments, such as `auth.uid()`.

Pure: no I/O. A function is evaluated here when its body is one that cdc knows (see `bodies`).
"""

from __future__ import annotations

from cdc.operators import Context, Failed
from cdc.rls.bodies import Part, known_parts
from cdc.rls.calls import forbidden
from cdc.rls.claims import parse
from cdc.rls.compiler import Compiler
from cdc.rls.constructs import NotSupported
from cdc.rls.expression import Expression, Session, Term, folded
from cdc.rls.nodes import Node
from cdc.rls.policy import Function
from cdc.rls.subject import Subject

__all__ = ["session_function"]


def session_function(function: Function, node: Node, compiler: Compiler) -> Expression:
    """The expression of a function without arguments. Raises NotSupported when it is not known."""
    parts = known_parts(function)
    read = compiler.input(function.result)
    if parts is None or read is None:
        written = "" if function.language == "sql" else f" (written in {function.language})"
        raise NotSupported(f"function {function}{written or ' (its body is not one that cdc knows)'}")
    if not function.executable:
        return forbidden(function, function.result)
    words, key, context = str(function), compiler.exact(function.result), Context()

    def bind(session: Session) -> Term:
        def value(cells: object) -> object:
            text = _first(parts, session.subject)
            return None if text is None else read(context, text)

        return folded(session, words, Term(value), key)

    return Expression(function.result, words, frozenset(), bind, session=True)


def _first(parts: tuple[Part, ...], subject: Subject) -> str | None:
    """The first part that is not NULL, as coalesce finds it: later parts are not looked at."""
    for part in parts:
        text = part.source(subject)
        if text is not None and part.claim is not None:
            text = _claim(text, part.claim)
        if text is not None:
            return text
    return None


def _claim(text: str, name: str) -> str | None:
    try:
        found = parse(text).field(name)
    except ValueError as error:
        raise Failed(f"the text is not JSON: {error}") from None
    try:
        return None if found is None else found.text()
    except ValueError as error:
        raise Failed(f"it has no text that can be compared: {error}") from None
