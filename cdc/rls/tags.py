"""The table of node tags: what makes an expression of each.

Pure: no I/O. A tag that is not here is refused by its name. Version 14 spells ARRAY, CASE and COALESCE, later ones
add EXPR.
"""

from __future__ import annotations

from collections.abc import Hashable

from cdc.predicate import Predicate
from cdc.rls.branches import BRANCHES
from cdc.rls.calls import CALLS
from cdc.rls.columns import LEAVES
from cdc.rls.compiler import Compiler, Condition, Handler
from cdc.rls.conditions import CONDITIONS
from cdc.rls.constructs import Scope
from cdc.rls.expression import Expression, Session, SessionError
from cdc.rls.membership import MEMBERSHIP
from cdc.rls.nodes import Node
from cdc.rls.session import SESSIONS
from cdc.rls.subscripts import SUBSCRIPTS

__all__ = ["HANDLERS", "compile_condition", "compile_expression"]

HANDLERS: dict[str, Handler] = LEAVES | CALLS | CONDITIONS | BRANCHES | MEMBERSHIP | SESSIONS | SUBSCRIPTS


def compile_expression(node: Node, scope: Scope) -> Expression:
    """The expression of a node, of any type. Raises NotSupported, and TreeError for a malformed node."""
    return Compiler(scope, HANDLERS).expression(node)


def compile_condition(node: Node, scope: Scope, policy: str = "", identity: Hashable = None) -> Condition:
    """The condition of a boolean node: for a session, a predicate.

    Arguments: `policy`, what messages call it; `identity`, equal for conditions that are equal.
    Raises NotSupported, and TreeError for a malformed node.
    """
    compiler = Compiler(scope, HANDLERS, policy, identity)
    condition = compiler.tested(compiler.boolean(node))
    return condition if compiler.refusal is None else _refused(compiler.refusal)


def _refused(reason: str) -> Condition:
    def bind(session: Session) -> Predicate:
        raise SessionError(reason)

    return bind
