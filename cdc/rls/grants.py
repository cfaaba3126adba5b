"""Grants: which rights a role has, by what was granted to it, to PUBLIC, and to the roles that it inherits from.

Pure. PostgreSQL decides the same in `has_privs_of_role` and `aclmask` (src/backend/utils/adt/acl.c). The manual: "Role
Membership", "Predefined Roles" and "Privileges".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cdc.rls.facts import Facts, GivenFunction, GivenPolicy, Grantees
from cdc.rls.policy import ColumnRights, Function, Policy, TableRights

__all__ = ["Role", "Roles", "rights_of"]

_PUBLIC = 0
_DATABASE_OWNER, _READ_ALL_DATA, _WRITE_ALL_DATA = 6171, 6181, 6182
"""Predefined roles: pg_database_owner and the others. Their OIDs are the same on every server."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role: its OID, its own attributes, which nobody inherits, and the TimeZone of its sessions, if one is set."""

    oid: int
    name: str
    superuser: bool
    bypass_rls: bool
    inherits: bool
    zone: str | None


@dataclass(frozen=True)
class Roles:
    """Some roles of a server, with all that they are members of, however deep.

    Attributes:
        by_name: the roles.
        members: the roles that a role is a direct member of, and whether it inherits their rights; by the member's OID.
        database_owner: OID of the database's owner, who is a member of pg_database_owner without being told so.
        by_membership: whether each membership says whether it is inherited (from 16 on), and not its member.
        zone: the server's TimeZone; None when it is not known.
    """

    by_name: Mapping[str, Role]
    members: Mapping[int, tuple[tuple[int, bool], ...]]
    database_owner: int
    by_membership: bool
    zone: str | None = None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Roles:
        """From the JSON that `cdc.fact_query.ROLES` gives."""
        roles = [Role(*each) for each in said["roles"] or ()]
        heirs = {role.oid for role in roles if role.inherits}
        members: dict[int, tuple[tuple[int, bool], ...]] = {}
        for member, group, option in said["members"] or ():
            inherits = option if said["by_membership"] else member in heirs
            members[member] = (*members.get(member, ()), (group, inherits))
        by_name = {role.name: role for role in roles}
        return cls(by_name, members, said["database_owner"], said["by_membership"], said["zone"])

    def reach(self, role: Role) -> frozenset[int]:
        """OIDs of the roles whose rights a role has: its own, and those of the roles it inherits from."""
        found = self._reached.get(role.oid)
        if found is None:
            found = self._reached[role.oid] = self._closure(role.oid)
        return found

    def _closure(self, oid: int) -> frozenset[int]:
        reached, left = {oid}, [oid]
        while left:
            member = left.pop()
            groups = {group for group, inherits in self.members.get(member, ()) if inherits}
            if member == self.database_owner and (self.by_membership or member in self._heirs):
                groups.add(_DATABASE_OWNER)
            left += groups - reached
            reached |= groups
        return frozenset(reached)

    @cached_property
    def _reached(self) -> dict[int, frozenset[int]]:
        return {}

    @cached_property
    def _heirs(self) -> frozenset[int]:
        return frozenset(role.oid for role in self.by_name.values() if role.inherits)


def rights_of(facts: Facts, roles: Roles, name: str) -> TableRights | None:
    """The rights of a role on a table; None when the role is not among `roles`."""
    role = roles.by_name.get(name)
    if role is None:
        return None
    reach = roles.reach(role)

    def holds(grantees: Grantees) -> bool:
        return role.superuser or _PUBLIC in grantees or not reach.isdisjoint(grantees)

    reads_all = role.superuser or _READ_ALL_DATA in reach
    select = reads_all or holds(facts.select)
    return TableRights(
        oid=facts.oid,
        schema=facts.schema,
        table=facts.table,
        role=name,
        superuser=role.superuser,
        bypass_rls=role.bypass_rls,
        owns=role.superuser or facts.owner in reach,
        row_security=facts.row_security,
        forced=facts.forced,
        schema_usage=reads_all or _WRITE_ALL_DATA in reach or holds(facts.usage),
        select=select,
        columns={
            number: ColumnRights(each.name, each.type_oid, each.base_oid, select or holds(each.select))
            for number, each in facts.columns.items()
        },
        policies=tuple(_policy(each, holds(each.roles)) for each in facts.policies),
        functions={oid: _function(each, holds(each.execute)) for oid, each in facts.functions.items()},
        operators={oid: name for oid, (name, _) in facts.operators.items()},
        operator_functions={oid: code for oid, (_, code) in facts.operators.items()},
        nondeterministic=facts.nondeterministic,
        code_point=facts.code_point,
        plain_case=facts.plain_case,
        zone=role.zone or roles.zone,
        utf8=facts.utf8,
    )


def _policy(given: GivenPolicy, applies: bool) -> Policy:
    return Policy(given.name, given.permissive, given.command, given.to, given.tree, given.expression, applies)


def _function(given: GivenFunction, executable: bool) -> Function:
    return Function(**dict(given.fields), executable=executable)
