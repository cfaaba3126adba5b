"""Explain: what row-level security of a table means, to whom, for which row, and why.

May import psycopg. It decides with the same code as a consumer does, from the same catalogs: each policy by itself, and
all of them together. Nothing is changed in the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.errors import ConfigurationError, SubscriptionError
from cdc.explanation import ExplainedPolicy, Explanation
from cdc.operators import Moment
from cdc.parsed_bodies import list_functions
from cdc.predicate import ERROR, FALSE, NULL, TRUE, Predicate, Verdict, verdict
from cdc.relation import Relation
from cdc.rights import load_rights
from cdc.rls import Decision, Policy, Subject, TableRights, decide, review
from cdc.sample import REFUSED, Described, Sample, described, made, read
from cdc.session_functions import SessionFunctions
from cdc.shadow import ask

__all__ = ["explain", "explain_all"]

_SECURED = """
SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid))
ORDER BY n.nspname, c.relname
"""
_NAMED = """
SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname = %s AND c.relname = %s
"""
_COMMANDS = "SELECT polcmd::text, polpermissive FROM pg_catalog.pg_policy WHERE polrelid = %s"
_NOW = "SELECT ((extract(epoch FROM pg_catalog.now()) - 946684800) * 1000000)::int8"
_WORDS = {TRUE: "true", FALSE: "false", NULL: "null", ERROR: "error"}
_SEES = {Verdict.YES: True, Verdict.NO: False, Verdict.UNDECIDED: None}


def explain(
    dsn: str,
    table: str,
    subject: Subject | None = None,
    *,
    key: object = None,
    row: Mapping[str, Any] | None = None,
    session_functions: Sequence[str] = (),
    rights_dsn: str | None = None,
) -> Explanation:
    """Say what row-level security of a table means: to a subject, and for one row.

    Args:
        dsn: the database. Any role may read the catalogs that are needed; to read a row by its key, it has to see all
            rows of the table; and PostgreSQL itself is asked for the row if the role may become the subject's.
        table: `table` or `schema.table`, case-sensitive.
        subject: as whom to look; None explains the policies alone.
        key: the key of a row of the table, a tuple for several columns.
        row: values by column, instead of a key. A column that is left out counts as one that was not sent.
        session_functions, rights_dsn: as for `Consumer`.

    Raises:
        ConfigurationError: the DSN cannot be used, or there is no such row, column or value.
        ConnectionFailed: the server cannot be reached.
        SubscriptionError: there is no such table or role.
    """
    if key is not None and row is not None:
        raise ConfigurationError("give a key or a row, not both")
    if subject is None and (key is not None or row is not None):
        raise ConfigurationError("a row is explained to a subject: say as whom to look")
    functions = _checked(session_functions, rights_dsn)
    with connect(dsn) as connection:
        list_functions(connection, functions.listed)
        found = _Table.named(connection, table)
        sample = None
        if key is not None:
            sample = read(connection, found.described, key)
        elif row is not None:
            sample = made(connection, found.described, row)
        return found.explained(subject, sample, functions)


def explain_all(
    dsn: str, subject: Subject | None = None, session_functions: Sequence[str] = (), rights_dsn: str | None = None
) -> list[Explanation]:
    """The same for every table that has row-level security or policies. It raises what `explain` does."""
    functions = _checked(session_functions, rights_dsn)
    with connect(dsn) as connection:
        list_functions(connection, functions.listed)
        rows = connection.execute(_SECURED).fetchall()
        return [_Table.of(connection, *row).explained(subject, None, functions) for row in rows]


def _checked(names: Sequence[str], dsn: str | None) -> SessionFunctions:
    functions = SessionFunctions(names, dsn)
    functions.check()
    return functions


@dataclass(frozen=True, slots=True)
class _Table:
    connection: psycopg.Connection[Any]
    oid: int
    schema: str
    table: str
    described: Described

    @classmethod
    def named(cls, connection: psycopg.Connection[Any], text: str) -> _Table:
        schema, _, name = text.rpartition(".")
        try:
            row = connection.execute(_NAMED, (schema or "public", name)).fetchone()
        except REFUSED:
            row = None
        if row is None:
            raise SubscriptionError(f"there is no table {schema or 'public'}.{name}; names are case-sensitive here")
        return cls.of(connection, *row)

    @classmethod
    def of(cls, connection: psycopg.Connection[Any], oid: int, schema: str, table: str) -> _Table:
        return cls(connection, oid, schema, table, described(connection, oid, schema, table))

    def explained(self, subject: Subject | None, sample: Sample | None, functions: SessionFunctions) -> Explanation:
        """What the policies mean, to a subject if there is one, and for a row if there is one."""
        rights = load_rights(self.connection, self.oid, self._self() if subject is None else subject.role)
        relation, types = self.described.relation, self.described.types
        types.add(load_types(self.connection, types.missing(rights.type_oids)))
        reviewed = [_reviewed(*each) for each in review(rights, relation, types)]
        plain = Explanation(
            self.schema, self.table, rights.row_security, rights.forced, tuple(reviewed), self._warnings(rights)
        )
        if subject is None:
            return plain
        functions.ask(subject, rights.functions.values())
        moment = self._moment()
        decision = decide(rights, relation, types, subject, moment)
        judged = [_Judged.of(policy, self.described, rights, subject, sample, moment) for policy in rights.policies]
        whole = replace(
            plain,
            policies=tuple(map(_explained, reviewed, judged)),
            role=subject.role,
            exempt=_exempt(rights) if decision.granted else None,
            hidden=tuple(column.name for column in relation.columns if column.name in decision.hidden),
            denied=decision.denied,
        )
        if sample is None:
            return whole
        is_read = not any(each.asked for each in rights.functions.values())
        return self._for_row(whole, decision, judged, subject, sample, is_read)

    def _for_row(
        self,
        whole: Explanation,
        decision: Decision,
        judged: list[_Judged],
        subject: Subject,
        sample: Sample,
        is_read: bool,
    ) -> Explanation:
        outcome = decision.predicate.test(sample.cells)
        visible = False if decision.denied is not None else _SEES[verdict(outcome)]
        is_read = is_read and all(each.unsupported is None for each in judged if each.policy.applies)
        answer = ask(self.connection, self.described, sample, subject, is_read)
        if answer.visible is not None and visible is not None:
            answer = replace(answer, agrees=answer.visible is visible)
        because = decision.denied or whole.exempt or _because(judged)
        return replace(whole, row=sample.name, visible=visible, because=because, server=answer)

    def _moment(self) -> Moment:
        """Now, by the server's clock."""
        row = self.connection.execute(_NOW).fetchone()
        moment = Moment()
        moment.microseconds = 0 if row is None else row[0]
        return moment

    def _self(self) -> str:
        row = self.connection.execute("SELECT current_user").fetchone()
        return str(row[0]) if row else ""

    def _warnings(self, rights: TableRights) -> tuple[str, ...]:
        """What is probably not meant."""
        commands = self.connection.execute(_COMMANDS, (self.oid,)).fetchall()
        permissive = {command for command, is_permissive in commands if is_permissive}
        if not rights.row_security:
            return ()
        found = []
        if commands and not permissive:
            found.append("all policies are restrictive, and those only take away: no row is shown")
        elif permissive == {"r"}:
            found.append("there are policies FOR SELECT only: no role that they bind can insert, update or delete")
        elif commands and not permissive & {"a", "*"}:
            found.append("no policy lets a role that they bind insert")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Judged:
    """One policy, as it would decide if it were the only one and applied.

    Attributes:
        policy: the policy.
        unsupported: the construct that cannot be decided, or None.
        problem: why it cannot be evaluated for the subject, or None.
        outcome: of the row; None without a row.
        reason: why that is an error, or None.
        index: in words, how subscribers are found.
    """

    policy: Policy
    unsupported: str | None = None
    problem: str | None = None
    outcome: int | None = None
    reason: str | None = None
    index: str | None = None

    @classmethod
    def of(
        cls,
        policy: Policy,
        table: Described,
        rights: TableRights,
        subject: Subject,
        sample: Sample | None,
        moment: Moment,
    ) -> _Judged:
        if policy.node_text is None:
            return cls(policy)
        decision = decide(_alone(policy, rights), table.relation, table.types, subject, moment)
        if decision.unsupported:
            return cls(policy, unsupported=decision.unsupported[0].construct)
        if decision.denied is not None:
            return cls(policy, problem=decision.denied)
        index = _index(decision.predicate, table.relation)
        if sample is None:
            return cls(policy, index=index)
        moment.problem = None
        outcome = decision.predicate.test(sample.cells)
        return cls(policy, None, None, outcome, moment.problem if outcome & ERROR else None, index)


def _alone(policy: Policy, rights: TableRights) -> TableRights:
    """Rights under which nothing but this policy decides."""
    return replace(
        rights,
        policies=(replace(policy, permissive=True, applies=True),),
        row_security=True,
        forced=True,
        superuser=False,
        bypass_rls=False,
        schema_usage=True,
        select=True,
        columns={number: replace(column, selectable=True) for number, column in rights.columns.items()},
    )


def _index(predicate: Predicate, relation: Relation) -> str:
    """How an index finds the subjects who see a row."""
    if predicate.cover is None:
        return "every row is judged" if predicate.columns else "the same for every row"
    if not predicate.cover:
        return "true for no row"
    found = Counter((probe.column, probe.elements) for probe, _ in predicate.cover)
    named = (
        f"{'an element of ' if elements else ''}{relation.columns[index].name}"
        f"{'' if count == 1 else f' ({count} values)'}"
        for (index, elements), count in sorted(found.items())
    )
    return f"found by {' or '.join(named)}"


def _reviewed(policy: Policy, unsupported: str | None) -> ExplainedPolicy:
    return ExplainedPolicy(policy.name, policy.permissive, policy.command, policy.roles, policy.expression, unsupported)


def _explained(policy: ExplainedPolicy, judged: _Judged) -> ExplainedPolicy:
    if not judged.policy.applies:
        return replace(policy, applies=False)
    outcome = None if judged.outcome is None else _WORDS.get(judged.outcome, "not decidable")
    return replace(
        policy, applies=True, index=judged.index, problem=judged.problem, outcome=outcome, reason=judged.reason
    )


def _exempt(rights: TableRights) -> str | None:
    """Why row-level security does not bind the role; None when it does."""
    if not rights.exempt:
        return None
    if not rights.row_security:
        return "row-level security is off"
    if rights.superuser:
        return f"{rights.role} is a superuser"
    if rights.bypass_rls:
        return f"{rights.role} has BYPASSRLS"
    return f"{rights.role} is the table's owner, or inherits from it, and the table has no FORCE"


def _because(judged: list[_Judged]) -> str:
    """Which policies decide, in words."""
    bound = [each for each in judged if each.policy.applies and each.policy.node_text is not None]
    against = [each for each in bound if not each.policy.permissive and each.outcome != TRUE]
    if against:
        return "; ".join(_said(each, "restrictive policy") for each in against)
    granting = [each.policy.name for each in bound if each.policy.permissive and each.outcome == TRUE]
    if granting:
        return f"{_named('policy', 'policies', granting)} true"
    open_ = [each for each in bound if each.policy.permissive and (each.outcome or 0) & (TRUE | ERROR)]
    if open_:
        return "; ".join(_said(each, "policy") for each in open_)
    return "no permissive policy is true"


def _said(judged: _Judged, what: str) -> str:
    outcome = _WORDS.get(judged.outcome or 0, "not decidable")
    return f"{what} {judged.policy.name} {'raises an error' if judged.outcome == ERROR else f'is {outcome}'}"


def _named(one: str, several: str, names: list[str]) -> str:
    return f"{one if len(names) == 1 else several} {', '.join(names)} {'is' if len(names) == 1 else 'are'}"
