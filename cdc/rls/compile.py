"""Policies, rights and a subject: which rows of a table the subject may see.

Pure: no I/O, no clock. Each policy's node tree is compiled once, into conditions that are the same for all subjects
of a role; a subject's session expressions are then bound as constants. A row is visible when at least one permissive
policy is TRUE and every restrictive one is TRUE; NULL is not TRUE, and a cell that was not sent leaves it open.

Everything fails closed. A construct that is not known here makes its policy unsupported: a permissive one grants
nothing then, a restrictive one denies the table. A session expression that would raise in Postgres denies this
subject the table, with the reason. The manual: "Row Security Policies" and CREATE POLICY.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from cdc.predicate import FALSE, TRUE, Predicate, constant
from cdc.relation import Relation
from cdc.rls.conditions import And, Condition, Equals, Holds, Operand, Or, SameSession, all_of, any_of
from cdc.rls.constructs import NotSupported, Scope, construct
from cdc.rls.nodes import Node, TreeError, read
from cdc.rls.policy import Policy, TableRights, Unsupported
from cdc.rls.session import RELABELS, Session, SessionError, compile_session, sole_target
from cdc.rls.subject import Subject
from cdc.values import Equality, Types

__all__ = ["Decision", "decide", "review"]

_BOOLEAN = 16

# Operators `=` by OID, with the types of their sides. Those that compare a date with a timestamp, or a
# timestamp with one of a time zone, are not here: they depend on the session's zone.
_EQUALITIES = {
    15: (23, 20), 91: (16, 16), 93: (19, 19), 94: (21, 21), 96: (23, 23), 98: (25, 25), 254: (19, 25),
    260: (25, 19), 410: (20, 20), 416: (20, 23), 532: (21, 23), 533: (23, 21), 607: (26, 26), 620: (700, 700),
    670: (701, 701), 1054: (1042, 1042), 1093: (1082, 1082), 1120: (700, 701), 1130: (701, 700),
    1320: (1184, 1184), 1752: (1700, 1700), 1862: (21, 20), 1868: (20, 21), 2060: (1114, 1114),
    2972: (2950, 2950),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """What a subject may see of a relation.

    Attributes:
        predicate: over the cells of a tuple of the relation; only a certain TRUE shows the row.
        hidden: names of the relation's columns that the role may not read.
        denied: why nothing can be seen at all, None when something can. No error: a subject without rights is one.
        exempt: whether row-level security does not apply to the role.
        unsupported: the policies that cannot be decided. The predicate is safe all the same.
        granted: whether the role has the SELECT right at all, so that it may know of a TRUNCATE.
    """

    predicate: Predicate
    hidden: frozenset[str]
    denied: str | None
    exempt: bool
    unsupported: tuple[Unsupported, ...]
    granted: bool = True


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The policies that apply to the role, compiled for one relation."""

    permissive: tuple[tuple[Policy, Condition], ...]
    restrictive: tuple[tuple[Policy, Condition], ...]
    unsupported: tuple[Unsupported, ...]
    denied: str | None


def decide(rights: TableRights, relation: Relation, types: Types, subject: Subject) -> Decision:
    """Decide what a subject may see of a relation.

    Compiling happens once for the same rights and relation; after that a subject costs the evaluation of its session
    expressions.

    Args:
        rights: of the relation's table and the subject's role, from `load_rights`.
        relation: the table as the stream describes it.
        types: the types of the server, among them those of the relation's columns.
        subject: as whom to look.

    Raises:
        ValueError: the rights are those of another role or table.
    """
    if (rights.role, rights.oid) != (subject.role, relation.oid):
        raise ValueError(f"rights of {rights.role} on {rights} do not judge {subject.role} on {relation}")
    hidden = _hidden(rights, relation)
    reason = _missing_right(rights, relation, hidden) or _renamed(rights, relation)
    if reason is not None:
        return Decision(constant(FALSE), hidden, reason, rights.exempt, (), granted=False)
    if rights.exempt:
        return Decision(constant(TRUE), hidden, None, True, ())
    compiled = _compiled(Scope(rights, relation, types))
    predicate, reason = constant(FALSE), compiled.denied
    if reason is None:
        predicate, reason = _bind(compiled, subject)
    return Decision(predicate, hidden, reason, False, compiled.unsupported)


def review(rights: TableRights, relation: Relation, types: Types) -> list[tuple[Policy, str | None]]:
    """Every policy, for whatever roles, with the construct that cannot be decided; None when it is supported."""
    scope = Scope(rights, relation, types)
    return [(policy, _attempt(policy, scope)[1]) for policy in rights.policies]


def _hidden(rights: TableRights, relation: Relation) -> frozenset[str]:
    readable = {column.name for column in rights.columns.values() if column.selectable}
    return frozenset(column.name for column in relation.columns) - readable


def _missing_right(rights: TableRights, relation: Relation, hidden: frozenset[str]) -> str | None:
    """Which grant is missing, so that the role can see nothing of the table. None when nothing is missing."""
    if not rights.schema_usage:
        return f"role {rights.role} has no USAGE right on schema {rights.schema}"
    if not rights.select and not any(column.selectable for column in rights.columns.values()):
        return f"role {rights.role} has no SELECT right on {rights}"
    for index in relation.key or ():
        if relation.columns[index].name in hidden:
            return f"role {rights.role} has no SELECT right on {relation.columns[index].name}, the key of {rights}"
    return None


def _renamed(rights: TableRights, relation: Relation) -> str | None:
    """Whether the streamed columns are not those that the rights speak of, as after a RENAME.

    Names then say nothing: what was called `secret` when the row was written may be called `public` now.
    """
    known = {column.name: number for number, column in rights.columns.items()}
    numbers = [known.get(column.name, 0) for column in relation.columns]
    if numbers == sorted(numbers) and 0 not in numbers:
        return None
    return f"the columns of {relation} are not what they were when these rows were written"


def _compiled(scope: Scope) -> _Compiled:
    """The compiled policies, kept with the rights for the relation that was asked for last."""
    room = scope.rights.compiled
    if room and room[0][0] == scope.relation and room[0][1] is scope.types:
        return room[0][2]  # type: ignore[no-any-return]  # the room holds any value
    compiled = _compile_policies(scope)
    room[:] = [(scope.relation, scope.types, compiled)]
    return compiled


def _compile_policies(scope: Scope) -> _Compiled:
    granting = [policy for policy in scope.rights.policies if policy.applies and policy.node_text is not None]
    supported: dict[bool, list[tuple[Policy, Condition]]] = {True: [], False: []}
    unsupported: list[Unsupported] = []
    denied = None
    if not any(policy.permissive for policy in granting):
        return _Compiled((), (), (), f"row-level security is on, and no policy lets role {scope.rights.role} read")
    for policy in granting:
        condition, problem = _attempt(policy, scope)
        if condition is not None:
            supported[policy.permissive].append((policy, condition))
        elif problem is not None:
            unsupported.append(Unsupported(policy.name, problem))
            denied = denied if policy.permissive else f"restrictive {unsupported[-1]} is not supported"
    if not supported[True] and denied is None:
        denied = f"no policy that cdc can decide lets role {scope.rights.role} read: {unsupported[0]}"
    return _Compiled(tuple(supported[True]), tuple(supported[False]), tuple(unsupported), denied)


def _attempt(policy: Policy, scope: Scope) -> tuple[Condition | None, str | None]:
    """The policy's condition, or the construct because of which it has none; neither for one with WITH CHECK only."""
    if policy.node_text is None:
        return None, None
    try:
        return _condition(read(policy.node_text), scope), None
    except NotSupported as problem:
        return None, str(problem)
    except TreeError as problem:
        return None, f"a node tree that cdc cannot read ({problem})"


def _bind(compiled: _Compiled, subject: Subject) -> tuple[Predicate, str | None]:
    """The predicate for a subject, or FALSE with the reason."""
    sides: list[list[Predicate]] = []
    for policies in (compiled.permissive, compiled.restrictive):
        bound = []
        for policy, condition in policies:
            try:
                bound.append(condition.bind(subject))
            except SessionError as problem:
                return constant(FALSE), f'policy "{policy.name}" cannot be evaluated for this subject: {problem}'
        sides.append(bound)
    return all_of([any_of(sides[0]), *sides[1]]), None


def _condition(node: Node, scope: Scope) -> Condition:
    """The condition of a boolean node. Raises NotSupported and TreeError."""
    handler = _HANDLERS.get(node.tag)
    return _holds(node, scope) if handler is None else handler(node, scope)


def _holds(node: Node, scope: Scope) -> Condition:
    session = compile_session(node, scope)
    equality = scope.types.equality(session.type_oid)
    if session.type_oid != _BOOLEAN or equality is None:
        raise NotSupported(construct(node, scope))
    return Holds(Operand(session, equality))


def _boolean(node: Node, scope: Scope) -> Condition:
    shape = _CONNECTIVES.get(node.text("boolop"))
    if shape is None:
        raise NotSupported(construct(node, scope))
    return shape(tuple(_condition(part, scope) for part in node.nodes("args")))


_CONNECTIVES: dict[str, Callable[[tuple[Condition, ...]], Condition]] = {"and": And, "or": Or}


def _flag(node: Node, scope: Scope) -> Condition:
    """A boolean column on its own: the same as `column = true`."""
    column, equality = _column(node, _BOOLEAN, scope), scope.types.equality(_BOOLEAN)
    assert equality is not None
    return Equals(column, equality.from_cell, Operand(Session(_BOOLEAN, "true", lambda subject: "true"), equality))


def _sublink(node: Node, scope: Scope) -> Condition:
    return _condition(sole_target(node, scope), scope)


def _equals(node: Node, scope: Scope) -> Condition:
    """`=` of a column and a session expression, in either order, or of two session expressions."""
    sides, args = _EQUALITIES.get(node.number("opno")), node.nodes("args")
    if sides is None or len(args) != 2:
        raise NotSupported(construct(node, scope))
    if node.number("inputcollid") in scope.rights.nondeterministic:
        raise NotSupported("a comparison of texts under a nondeterministic collation")
    left, right = (_equality(oid, scope) for oid in sides)
    first, second = (_is_column(arg) for arg in args)
    if first and second:
        raise NotSupported("a comparison of two columns")
    if first:
        return Equals(_column(args[0], sides[0], scope), left.from_cell, _operand(args[1], sides[1], right, scope))
    if second:
        return Equals(_column(args[1], sides[1], scope), right.from_cell, _operand(args[0], sides[0], left, scope))
    return SameSession(_operand(args[0], sides[0], left, scope), _operand(args[1], sides[1], right, scope))


def _equality(type_oid: int, scope: Scope) -> Equality:
    equality = scope.types.equality(type_oid)
    if equality is None:
        raise NotSupported(f"a comparison of values of type {scope.types.name(type_oid)}")
    return equality


def _operand(node: Node, type_oid: int, equality: Equality, scope: Scope) -> Operand:
    session = compile_session(node, scope)
    if session.type_oid != type_oid:
        raise NotSupported(f"{scope.types.name(session.type_oid)} where {scope.types.name(type_oid)} is compared")
    return Operand(session, equality)


def _is_column(node: Node) -> bool:
    while node.tag == "RELABELTYPE":
        node = node.node("arg")
    return node.tag == "VAR"


def _column(node: Node, type_oid: int, scope: Scope) -> int:
    """Index in the relation of a column that has this type, maybe after casts that leave its text as it is."""
    labels = [type_oid]
    while node.tag == "RELABELTYPE":
        labels.append(node.number("resulttype"))
        node = node.node("arg")
    column = scope.rights.columns.get(node.number("varattno"))
    if column is None or node.number("varno") != 1 or node.number("varlevelsup") != 0:
        raise NotSupported(construct(node, scope))
    index = scope.relation.whole.columns.get(column.name)
    if index is None:
        raise NotSupported(f"column {column.name} is not in the publication")
    labels.append(node.number("vartype"))
    if not labels[-1] == column.type_oid == scope.relation.columns[index].type_oid:
        raise NotSupported(f"column {column.name} has another type in the stream than in the policy")
    allowed = RELABELS | {(column.type_oid, column.base_oid)}
    for target, source in pairwise(labels):
        if source != target and (source, target) not in allowed:
            raise NotSupported(f"cast of the column {column.name} to {scope.types.name(target)}")
    return index


_HANDLERS: dict[str, Callable[[Node, Scope], Condition]] = {
    "BOOLEXPR": _boolean,
    "OPEXPR": _equals,
    "SUBLINK": _sublink,
    "VAR": _flag,
}
