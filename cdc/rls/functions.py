"""Session functions: functions of the users' own that take no arguments, such as `auth.uid()`.

Pure: no I/O. A function is evaluated here by its parsed body, a SELECT without FROM of what policies may be made of. It
may call others. Where no parsed body could be had, it has to be one that cdc knows (see `bodies`).
"""

from __future__ import annotations

import re

from cdc.operators import Collation, Context, Failed
from cdc.rls.bodies import Part, known_parts
from cdc.rls.calls import forbidden
from cdc.rls.claims import parse
from cdc.rls.compiler import Compiler
from cdc.rls.constructs import NotSupported
from cdc.rls.expression import Expression, Session, SessionError, Term, folded
from cdc.rls.nodes import Node, TreeError, read
from cdc.rls.policy import Function
from cdc.rls.subject import Subject

__all__ = ["session_function"]


def session_function(function: Function, node: Node, compiler: Compiler) -> Expression:
    """The expression of a function without arguments. Raises NotSupported when it is not known."""
    if function.asked:
        return _answered(function, compiler)
    problem = " (its body is not one that cdc knows)"
    if function.tree == "":
        raise NotSupported(f"function {function} (what its names mean depends on search_path: give it one by SET)")
    if function.tree is not None:
        try:
            made = _of_body(function, function.tree, node, compiler)
            return made if function.executable else forbidden(function, function.result, compiler)
        except NotSupported as refused:
            problem = f": {refused}"
    parts = known_parts(function)
    read = compiler.input(function.result)
    if parts is None or read is None:
        written = problem if function.language == "sql" else f" (written in {function.language})"
        raise NotSupported(f"function {function}{written}")
    if not function.executable:
        return forbidden(function, function.result, compiler)
    words, key, context = str(function), compiler.exact(function.result), Context()

    def bind(session: Session) -> Term:
        def value(cells: object) -> object:
            text = _first(parts, session.subject)
            return None if text is None else read(context, text)

        return folded(session, words, Term(value), key)

    return Expression(function.result, words, frozenset(), bind, session=True)


def _answered(function: Function, compiler: Compiler) -> Expression:
    """The expression of a function that the server runs for each subject, before it is bound. Raises NotSupported."""
    read_text = compiler.input(function.result)
    if read_text is None or function.returns_set:
        raise NotSupported(f"function {function}, which gives {compiler.type_name(function.result)}")
    if not function.executable:
        return forbidden(function, function.result, compiler)
    words, key, context = str(function), compiler.exact(function.result), compiler.context(Collation.CODE_POINT)

    def bind(session: Session) -> Term:
        answer = session.subject.answer(function)
        if answer is None:
            raise SessionError(f"{words}: it was not run for this subject, or was replaced since: renew the subject")
        if answer.problem is not None:
            raise SessionError(f"{words}: {answer.problem}")
        text = answer.text
        value = Term(lambda cells: None if text is None else read_text(context(session), text))
        return folded(session, words, value, key)

    return Expression(function.result, words, frozenset(), bind, session=True)


def _of_body(function: Function, tree: str, node: Node, compiler: Compiler) -> Expression:
    """The expression of a parsed body. Raises NotSupported."""
    is_plain = function.kind == "f" and not function.returns_set and not function.argument_count
    if not is_plain or not all(setting.startswith("search_path=") for setting in function.settings):
        raise NotSupported("it is under settings of its own" if is_plain else "it is no plain function")
    if function.security_definer and _asks_who(tree, compiler):
        raise NotSupported("it is SECURITY DEFINER and asks for current_user, which is its owner")
    inner = compiler.calling(node.number("funcid"))
    made = inner.expression(Node("SUBLINK", {"subLinkType": "4", "subselect": _query(tree)}))
    if made.columns:
        raise NotSupported("it reads a column")
    if made.type_oid != function.result and {made.type_oid, function.result} != _CHARACTERS:
        given, wanted = compiler.type_name(made.type_oid), compiler.type_name(function.result)
        raise NotSupported(f"its body gives {given} where {wanted} is returned")
    return Expression(function.result, str(function), frozenset(), made.bind, session=True, timed=made.timed)


def _query(tree: str) -> Node:
    """The one query of a body: of RETURN, or a list of lists for BEGIN ATOMIC."""
    text = tree.removeprefix("((").removesuffix("))") if tree.startswith("((") else tree
    try:
        query = read(text)
    except TreeError:
        raise NotSupported("its body has several statements") from None
    return Node(query.tag, {name: value for name, value in query.fields.items() if name != "isReturn"})


def _asks_who(tree: str, compiler: Compiler, depth: int = 0) -> bool:
    """Whether a body, or that of a function that it calls, depends on current_user."""
    if depth > _DEPTH or _WHO.search(tree) is not None:
        return True
    for oid in set(_MENTIONED.findall(tree)):
        called = compiler.scope.rights.functions.get(int(oid))
        if called is None or called.signature in ("current_user()", "user()"):
            return True
        if called.tree and _asks_who(called.tree, compiler, depth + 1):
            return True
    return False


_CHARACTERS = {25, 1043}
_DEPTH = 8
_WHO = re.compile(r"\{SQLVALUEFUNCTION :op (?:9|10|11) ")
"""CURRENT_ROLE, CURRENT_USER and USER, in every version from 14 to 18."""
_MENTIONED = re.compile(r":funcid ([0-9]{1,10})\b")


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
