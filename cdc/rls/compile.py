"""Policies, rights and a subject: which rows of a table the subject may see.

Pure: no I/O, no clock. Each policy's node tree is compiled once, into conditions that are the same for all subjects
of a role; a subject's session expressions are then bound as constants. A row is visible when at least one permissive
policy is TRUE and every restrictive one is TRUE; NULL is not TRUE, and a cell that was not sent leaves it open.

Everything fails closed. A construct that is not known here makes its policy unsupported: a permissive one grants
nothing then, a restrictive one denies the table. A session expression that would raise in Postgres denies this
subject the table, with the reason. The manual: "Row Security Policies" and CREATE POLICY.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import tzinfo

from cdc.operators import Moment, Undecided
from cdc.operators.zones import named_zone
from cdc.predicate import FALSE, TRUE, Predicate, Probe, constant
from cdc.relation import Relation
from cdc.rls.conditions import all_of, any_of
from cdc.rls.constructs import NotSupported, Scope
from cdc.rls.expression import Session, SessionError
from cdc.rls.nodes import TreeError, read
from cdc.rls.policy import Policy, TableRights, Unsupported
from cdc.rls.subject import Subject
from cdc.rls.tags import compile_condition
from cdc.values import Types

__all__ = ["BoundPolicy", "Decision", "decide", "review"]

Condition = Callable[[Session], Predicate]


@dataclass(frozen=True, slots=True)
class BoundPolicy:
    """A policy as it is for one subject.

    Attributes:
        policy: the policy.
        predicate: over the cells of a tuple; None when it cannot be evaluated.
        reason: why not, in words; None when it can.
        columns: names of the relation's columns, by which `index` speaks of cells.
    """

    policy: Policy
    predicate: Predicate | None
    reason: str | None
    columns: tuple[str, ...] = ()

    @property
    def index(self) -> str | None:
        """The index that finds the rows it may show, in words; None when each row has to be judged."""
        if self.predicate is None or self.predicate.cover is None:
            return None
        probes = {probe for probe, _ in self.predicate.cover}
        words = sorted({self._words(probe) for probe in probes})
        return ", ".join(words) if words else "no row"

    def _words(self, probe: Probe) -> str:
        name = self.columns[probe.column]
        return f"an element of {name}" if probe.elements else name


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
        policies: the policies that apply to the role, as they are for this subject; empty when none is looked at.
    """

    predicate: Predicate
    hidden: frozenset[str]
    denied: str | None
    exempt: bool
    unsupported: tuple[Unsupported, ...]
    granted: bool = True
    policies: tuple[BoundPolicy, ...] = ()

    @property
    def key(self) -> Hashable:
        """Decisions with equal keys show the same rows; None says nothing."""
        return self.predicate.key


@dataclass(frozen=True, slots=True)
class _Compiled:
    """What is the same for all subjects of the role: grants, and the policies that apply, compiled for one relation."""

    hidden: frozenset[str]
    missing: str | None
    supported: tuple[tuple[Policy, Condition], ...] = ()
    refused: tuple[BoundPolicy, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    denied: str | None = None
    columns: tuple[str, ...] = ()


def decide(
    rights: TableRights, relation: Relation, types: Types, subject: Subject, moment: Moment | None = None
) -> Decision:
    """Decide what a subject may see of a relation.

    Compiling happens once for the same rights and relation; after that a subject costs the evaluation of its session
    expressions.

    Args:
        rights: of the relation's table and the subject's role, from `load_rights`.
        relation: the table as the stream describes it.
        types: the types of the server, among them those of the relation's columns.
        subject: as whom to look.
        moment: when changes are judged, and where an error is noted; whoever judges sets it. One for all that are
            judged together. None makes one that stays at its beginning.

    Raises:
        ValueError: the rights are those of another role or table.
    """
    if (rights.role, rights.oid) != (subject.role, relation.oid):
        raise ValueError(f"rights of {rights.role} on {rights} do not judge {subject.role} on {relation}")
    compiled = _compiled(Scope(rights, relation, types, moment or _MOMENT))
    hidden = compiled.hidden
    if compiled.missing is not None:
        return Decision(_NOTHING, hidden, compiled.missing, rights.exempt, (), granted=False)
    if rights.exempt:
        return Decision(_EVERYTHING, hidden, None, True, ())
    bound = _bind_all(compiled, Session(subject, _zone(subject.setting("timezone") or rights.zone)))
    policies = (*bound, *compiled.refused)
    reason = compiled.denied or _failed(bound)
    predicate = _NOTHING if reason is not None else _together(bound)
    return Decision(predicate, hidden, reason, False, compiled.unsupported, policies=policies)


_MOMENT = Moment()
_NOTHING, _EVERYTHING = constant(FALSE), constant(TRUE)


def _zone(name: str | None) -> tzinfo | None:
    """The time zone of this name; None when it is not surely the server's, so that what needs it is undecided."""
    try:
        return None if name is None else named_zone(name)
    except Undecided:
        return None


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
    """What was compiled, kept with the rights for the relation that was asked for last."""
    room = scope.rights.compiled
    if room and room[0][1] is scope.types and room[0][2] is scope.moment and room[0][0] == scope.relation:
        return room[0][3]  # type: ignore[no-any-return]  # the room holds any value
    hidden = _hidden(scope.rights, scope.relation)
    compiled = _Compiled(
        hidden, _missing_right(scope.rights, scope.relation, hidden) or _renamed(scope.rights, scope.relation)
    )
    if compiled.missing is None and not scope.rights.exempt:
        compiled = _compile_policies(compiled, scope)
    room[:] = [(scope.relation, scope.types, scope.moment, compiled)]
    return compiled


def _compile_policies(compiled: _Compiled, scope: Scope) -> _Compiled:
    granting = [policy for policy in scope.rights.policies if policy.applies and policy.node_text is not None]
    supported: list[tuple[Policy, Condition]] = []
    refused: list[BoundPolicy] = []
    unsupported: list[Unsupported] = []
    denied = None
    if not any(policy.permissive for policy in granting):
        reason = f"row-level security is on, and no policy lets role {scope.rights.role} read"
        return replace(compiled, denied=reason)
    for policy in granting:
        condition, problem = _attempt(policy, scope)
        if condition is not None:
            supported.append((policy, condition))
        elif problem is not None:
            unsupported.append(Unsupported(policy.name, problem))
            refused.append(BoundPolicy(policy, None, problem))
            denied = denied if policy.permissive else f"restrictive {unsupported[-1]} is not supported"
    if not any(policy.permissive for policy, _ in supported) and denied is None:
        denied = f"no policy that cdc can decide lets role {scope.rights.role} read: {unsupported[0]}"
    columns = tuple(column.name for column in scope.relation.columns)
    return _Compiled(compiled.hidden, None, tuple(supported), tuple(refused), tuple(unsupported), denied, columns)


def _attempt(policy: Policy, scope: Scope) -> tuple[Condition | None, str | None]:
    """The policy's condition, or the construct because of which it has none; neither for one with WITH CHECK only."""
    if policy.node_text is None:
        return None, None
    try:
        name = f'policy "{policy.name}"'
        return compile_condition(read(policy.node_text), scope, name, _identity(policy, scope)), None
    except NotSupported as problem:
        return None, str(problem)
    except TreeError as problem:
        return None, f"a node tree that cdc cannot read ({problem})"
    except Exception as error:
        return None, _unforeseen(error)


def _identity(policy: Policy, scope: Scope) -> Hashable:
    """What a compiled policy depends on, apart from the session. Equal for roles that have the same policy.

    What only other policies of the table mention is no part of it: nobody is to notice when those change.
    """
    rights, columns = scope.rights, scope.relation.columns
    numbers = _mentioned(policy.node_text or "", rights)
    return (
        (policy.name, policy.node_text, rights.oid, rights.utf8),
        (rights.nondeterministic & numbers, rights.code_point & numbers, rights.plain_case & numbers),
        tuple((column.name, column.type_oid) for column in columns),
        tuple((number, column.name) for number, column in rights.columns.items()),
        frozenset((oid, rights.functions[oid]) for oid in rights.functions.keys() & numbers),
        frozenset((oid, rights.operator_functions[oid]) for oid in rights.operator_functions.keys() & numbers),
        scope.types,
        frozenset((oid, scope.types.labels(oid)) for oid in numbers if scope.types.labels(oid)),
    )


def _mentioned(tree: str, rights: TableRights) -> frozenset[int]:
    """Every number in a node tree and in those of the functions that it may call: all OIDs, and some numbers more."""
    found: set[int] = set()
    trees = [tree]
    while trees:
        new = {int(number) for number in _NUMBER.findall(trees.pop())} - found
        new |= {rights.operator_functions[oid] for oid in new & rights.operator_functions.keys()} - found
        found |= new
        trees += [rights.functions[oid].tree or "" for oid in new & rights.functions.keys()]
    return frozenset(found)


_NUMBER = re.compile(r"[0-9]{1,10}")


def _bind_all(compiled: _Compiled, session: Session) -> list[BoundPolicy]:
    """Each policy for a subject; one that would raise in PostgreSQL has a reason instead of a predicate."""
    bound = []
    for policy, condition in compiled.supported:
        try:
            bound.append(BoundPolicy(policy, condition(session), None, compiled.columns))
        except SessionError as problem:
            bound.append(BoundPolicy(policy, None, str(problem)))
        except Exception as error:
            bound.append(BoundPolicy(policy, None, _unforeseen(error)))
    return bound


def _unforeseen(error: Exception) -> str:
    """The reason for an error that nobody thought of: one policy must not end the stream for everybody."""
    if isinstance(error, RecursionError):
        return "a condition that is nested too deep"
    return f"cdc could not decide it ({type(error).__name__}: see to it that this is reported)"


def _failed(bound: list[BoundPolicy]) -> str | None:
    for each in bound:
        if each.reason is not None:
            return f'policy "{each.policy.name}" cannot be evaluated for this subject: {each.reason}'
    return None


def _together(bound: list[BoundPolicy]) -> Predicate:
    """All policies as one predicate, in the order in which the server evaluates them.

    Restrictive policies come first, by name; then one permissive policy after the other, by name backwards.
    """
    restrictive = [each.predicate for each in bound if not each.policy.permissive and each.predicate is not None]
    permissive = [each.predicate for each in bound if each.policy.permissive and each.predicate is not None]
    return all_of([*restrictive, any_of(permissive[::-1])])
