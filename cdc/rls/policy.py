"""What the catalog says of one table as one role sees it: grants, policies, and the functions they call.

Pure data: `cdc.rights` reads it, `decide` judges by it. Two `TableRights` are equal when they say the same, so
whoever reads them again can tell whether anything changed.
The manual: "Row Security Policies", "Privileges", and "System Catalogs", pg_policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TYPE_OIDS = re.compile(r":(?:\w*type|array_typeid|element_typeid|typeId) ([0-9]{1,10})\b")

__all__ = ["ColumnRights", "Function", "Policy", "TableRights", "Unsupported"]


_OWN = frozenset({"internal", "sql"})
"""Languages of PostgreSQL's own functions: `age(timestamp)` is SQL."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that decides what may be read: FOR SELECT or FOR ALL.

    Attributes:
        name: its name.
        permissive: True for AS PERMISSIVE, False for AS RESTRICTIVE.
        command: `"SELECT"` or `"ALL"`.
        roles: names of the roles it is TO, `"public"` among them; empty never.
        node_text: its USING expression as a node tree; None when it has only WITH CHECK.
        expression: the same as SQL, for people; None likewise.
        applies: whether it holds for the role, as PUBLIC or through an inherited membership.
    """

    name: str
    permissive: bool
    command: str
    roles: tuple[str, ...]
    node_text: str | None
    expression: str | None
    applies: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a policy calls. The manual: "System Catalogs", pg_proc.

    Attributes:
        schema, name, arguments: how it is called; `arguments` are the types, such as `"uuid, text"`.
        language: `"sql"`, `"plpgsql"`, `"internal"`, …
        body: prosrc.
        security_definer: whether it runs as its owner.
        settings: proconfig, empty for none.
        result: OID of the type it returns.
        returns_set: whether it returns a set.
        argument_count: number of its arguments.
        kind: prokind: `"f"` function, `"p"` procedure, `"a"` aggregate, `"w"` window function.
        volatility: provolatile: `"i"`, `"s"` or `"v"`.
        executable: whether the role has the EXECUTE right.
    """

    schema: str
    name: str
    arguments: str
    language: str
    body: str
    security_definer: bool
    settings: tuple[str, ...]
    result: int
    returns_set: bool
    argument_count: int
    kind: str
    volatility: str
    executable: bool
    asked: bool = False
    """Whether the user lets the server run it, once for each subject."""
    tree: str | None = None
    """The parsed body as a node tree: prosqlbody, or that of a copy; empty when its names may mean several things.

    None when there is none.
    """

    @property
    def signature(self) -> str:
        """Under which `cdc.operators` knows it; empty when it is not PostgreSQL's own."""
        return f"{self.name}({self.arguments})" if self.schema == "pg_catalog" and self.language in _OWN else ""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}({self.arguments})"


@dataclass(frozen=True, slots=True)
class ColumnRights:
    """A column of the table: its name, its type's OID, the type a domain rests on (else 0), and the SELECT right."""

    name: str
    type_oid: int
    base_oid: int
    selectable: bool


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A policy that cdc cannot decide, and the construct in it, in words."""

    policy: str
    construct: str

    def __str__(self) -> str:
        return f'policy "{self.policy}": {self.construct}'


@dataclass(frozen=True, slots=True)
class TableRights:
    """Everything about one table as one role sees it.

    Attributes:
        oid, schema, table: the table.
        role: the role.
        superuser, bypass_rls: attributes of the role itself; they are not inherited.
        owns: whether the role is the table's owner or inherits from it.
        row_security, forced: whether row-level security is on, and whether it binds the owner too.
        schema_usage: the USAGE right on the schema.
        select: the SELECT right on the whole table.
        columns: the table's columns by number.
        policies: the policies for reading, in the order of their names.
        functions: the functions that the policies call, by OID; among them those behind operators.
        operators: names of the operators in the policies, by OID.
        operator_functions: OIDs of the operators' functions, by the operators' OIDs.
        nondeterministic: OIDs of the collations under which different texts may be equal.
        code_point: OIDs of the collations that order texts by code point and know the case of ASCII letters only; the
            database's own (100) among them if it is such a one.
        plain_case: OIDs of other collations under whose language i and I are each other's case, as far as known.
        zone: the TimeZone that a session of the role has, by the server's settings; None when it is not known.
        utf8: whether the database's encoding is UTF8.
    """

    oid: int
    schema: str
    table: str
    role: str
    superuser: bool
    bypass_rls: bool
    owns: bool
    row_security: bool
    forced: bool
    schema_usage: bool
    select: bool
    columns: Mapping[int, ColumnRights]
    policies: tuple[Policy, ...]
    functions: Mapping[int, Function]
    operators: Mapping[int, str]
    nondeterministic: frozenset[int]
    utf8: bool
    operator_functions: Mapping[int, int] = field(default_factory=dict)
    code_point: frozenset[int] = frozenset()
    plain_case: frozenset[int] = frozenset()
    zone: str | None = None
    compiled: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)
    """The room for what `decide` compiled last; no part of the value."""

    @property
    def exempt(self) -> bool:
        """Whether row-level security does not apply: off, superuser, BYPASSRLS, or the owner without FORCE."""
        return not self.row_security or self.superuser or self.bypass_rls or (self.owns and not self.forced)

    @property
    def type_oids(self) -> frozenset[int]:
        """OIDs of the types in the policies and in the functions that they call; who judges has to know these types."""
        trees = [policy.node_text for policy in self.policies] + [function.tree for function in self.functions.values()]
        found = (int(oid) for tree in trees if tree is not None for oid in _TYPE_OIDS.findall(tree))
        return frozenset(found).union(function.result for function in self.functions.values())

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"
