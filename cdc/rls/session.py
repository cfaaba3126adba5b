"""What a policy says of the session: settings, the role, the time, functions, and `(SELECT …)` around it.

Pure: no I/O, no clock. A subject declares its settings; `current_user` is its role. The time is that of the change's
commit, so that a replay decides the same. The numbers of SQLVALUEFUNCTION are the same from 14 to 18; the tests pin
them.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc.operators import Collation, Failed, builtin
from cdc.rls.calls import call_function, forbidden
from cdc.rls.compiler import Compiler, Handler
from cdc.rls.constructs import NotSupported, Scope, construct
from cdc.rls.expression import Expression, Session, Term, folded
from cdc.rls.functions import session_function
from cdc.rls.nodes import Node

__all__ = ["SESSIONS", "sole_target"]

EXPR_SUBLINK = 4
"""SubLinkType of a sub-query in the place of a value, in every version from 14 to 18."""

_NAME, _TEXT, _TIMESTAMPTZ = 19, 25, 1184


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


def _sublink(node: Node, compiler: Compiler) -> Expression:
    return compiler.operand(sole_target(node, compiler.scope))


def _function(node: Node, compiler: Compiler) -> Expression:
    function = compiler.scope.rights.functions.get(node.number("funcid"))
    if function is not None and not function.signature and not function.argument_count and not node.nodes("args"):
        return session_function(function, node, compiler)
    special = None if function is None else _SPECIAL.get(function.signature)
    if function is None or special is None or len(node.nodes("args")) != function.argument_count:
        return call_function(node, compiler)
    made = special(node, compiler)
    if function.executable:
        return made
    return forbidden(function, made.type_oid, compiler)


def _setting(node: Node, compiler: Compiler) -> Expression:
    """current_setting(name [, missing_ok])."""
    args = node.nodes("args")
    if any(arg.tag != "CONST" for arg in args):
        raise NotSupported("current_setting of a name that is not a constant")
    name, *flag = (_fixed(arg, compiler) for arg in args)
    if name is None or flag == [None]:
        raise NotSupported("current_setting of NULL")
    if not isinstance(name, str) or "." not in name:
        raise NotSupported(f"current_setting('{name}'), a setting of the server")
    missing_ok = flag == [True]
    words = f"current_setting('{name}'{', true' if missing_ok else ''})"

    def value(session: Session) -> object:
        declared = session.subject.setting(name)
        if declared is None and not missing_ok:
            raise Failed("the subject does not declare this setting")
        return declared

    return _of_session(_TEXT, words, value)


def _fixed(node: Node, compiler: Compiler) -> object:
    fixed = compiler.constant(node)
    if not fixed.known:
        raise NotSupported(construct(node, compiler.scope))
    return fixed.datum


def _of_session(type_oid: int, words: str, value: Callable[[Session], object]) -> Expression:
    def bind(session: Session) -> Term:
        return folded(session, words, Term(lambda cells: value(session)), _told)

    return Expression(type_oid, words, frozenset(), bind, session=True)


def _told(datum: object) -> tuple[object]:
    return (datum,)


def _role(session: Session) -> object:
    return session.subject.role


def _login(session: Session) -> object:
    declared = session.subject.setting("session_authorization")
    if declared is None:
        raise Failed("the subject does not declare the setting session_authorization")
    return declared


def _timed(signature: str) -> Callable[[Node, Compiler], Expression]:
    """The moment, as a function of PostgreSQL that takes a timestamptz turns it into another type."""

    def handler(node: Node, compiler: Compiler) -> Expression:
        function, moment = builtin(signature), compiler.moment
        if function is None:
            raise NotSupported(construct(node, compiler.scope))
        context, convert = compiler.context(Collation.CODE_POINT), function.call

        def bind(session: Session) -> Term:
            within = context(session)
            key = (session.zone,)
            return Term(lambda cells: convert(within, moment.microseconds), timed=True, quiet=True, key=key)

        type_oid = node.number("type")
        return Expression(type_oid, construct(node, compiler.scope), frozenset(), bind, session=True, timed=True)

    return handler


def _now(node: Node, compiler: Compiler) -> Expression:
    moment = compiler.moment
    term = Term(lambda cells: moment.microseconds, timed=True, quiet=True)
    return Expression(_TIMESTAMPTZ, "now()", frozenset(), lambda session: term, timed=True)


def _current_user(node: Node, compiler: Compiler) -> Expression:
    return _of_session(_NAME, "current_user", _role)


def _session_user(node: Node, compiler: Compiler) -> Expression:
    return _of_session(_NAME, "session_user", _login)


def _value_function(node: Node, compiler: Compiler) -> Expression:
    handler = _VALUES.get(node.number("op"))
    if handler is None:
        raise NotSupported(construct(node, compiler.scope))
    return handler(node, compiler)


_VALUES: dict[int, Handler] = {
    0: _timed("date(timestamp with time zone)"),
    3: _now,
    5: _timed("time(timestamp with time zone)"),
    7: _timed("timestamp(timestamp with time zone)"),
    9: _current_user,
    10: _current_user,
    11: _current_user,
    12: _session_user,
}
"""CURRENT_DATE, CURRENT_TIMESTAMP, LOCALTIME, LOCALTIMESTAMP, CURRENT_ROLE, CURRENT_USER, USER, SESSION_USER."""

_SPECIAL: dict[str, Handler] = {
    "current_setting(text)": _setting,
    "current_setting(text, boolean)": _setting,
    "current_user()": _current_user,
    "now()": _now,
    "session_user()": _session_user,
    "statement_timestamp()": _now,
    "transaction_timestamp()": _now,
}

SESSIONS: dict[str, Handler] = {
    "FUNCEXPR": _function,
    "SQLVALUEFUNCTION": _value_function,
    "SUBLINK": _sublink,
}
