"""Grants by hand-made facts: memberships, PUBLIC, owners and predefined roles, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.rls.facts import Facts, FactsError
from cdc.rls.grants import Roles, rights_of

SAID: dict[str, Any] = {
    "format": 1,
    "schema": "public",
    "table": "wells",
    "owner": 10,
    "row_security": True,
    "forced": False,
    "usage": [0],
    "select": [10],
    "columns": [[1, "id", 23, 0, None], [2, "name", 25, 0, [30]]],
    "policies": [
        {
            "name": "p",
            "permissive": True,
            "command": "ALL",
            "roles": [20],
            "to": ["staff"],
            "tree": "{X}",
            "expression": "x",
        }
    ],
    "operators": {"96": ["=", 65]},
    "functions": None,
    "nondeterministic": None,
    "code_point": [100],
    "utf8": True,
}


def roles(*memberships: list[Any], heirs: bool = True, by_membership: bool = True, **marked: Any) -> Roles:
    known = [[10, "owner"], [20, "staff"], [30, "clerk"]]
    listed = [[*each, marked.get("superuser") == each[1], False, heirs, None] for each in known]
    said = {"roles": listed, "members": list(memberships), "database_owner": marked.get("database_owner", 10)}
    return Roles.read(said | {"by_membership": by_membership, "zone": "UTC"})


def seen(graph: Roles, name: str, **changed: Any) -> tuple[bool, bool, list[str], bool]:
    """The SELECT right, whether it counts as the owner, the columns that it may read, and whether the policy holds."""
    rights = rights_of(Facts.read(500, SAID | changed), graph, name)
    assert rights is not None
    readable = [column.name for column in rights.columns.values() if column.selectable]
    return rights.select, rights.owns, readable, rights.policies[0].applies


def test_what_was_granted_to_nobody_is_the_owners() -> None:
    assert seen(roles(), "owner") == (True, True, ["id", "name"], False)
    assert seen(roles(), "staff") == (False, False, [], True)
    assert seen(roles(), "clerk") == (False, False, ["name"], False)
    assert seen(roles(), "clerk", select=[0]) == (True, False, ["id", "name"], False)


def test_a_superuser_holds_everything() -> None:
    assert seen(roles(superuser="clerk"), "clerk", usage=[]) == (True, True, ["id", "name"], True)


@pytest.mark.parametrize("option", [True, False])
def test_from_16_on_the_membership_decides(option: bool) -> None:
    graph = roles([30, 20, option], [20, 10, True], heirs=not option)
    assert seen(graph, "clerk")[:2] == (option, option)
    assert seen(graph, "clerk")[3] is option


@pytest.mark.parametrize("heirs", [True, False])
def test_before_16_the_member_decides(heirs: bool) -> None:
    graph = roles([30, 20, None], [20, 10, None], heirs=heirs, by_membership=False)
    assert seen(graph, "clerk")[:2] == (heirs, heirs)


def test_members_in_a_circle_end() -> None:
    graph = roles([30, 20, True], [20, 30, True])
    assert graph.reach(graph.by_name["staff"]) == graph.reach(graph.by_name["clerk"]) == {20, 30}


def test_predefined_roles() -> None:
    reads = roles([30, 6181, True])
    assert seen(reads, "clerk", usage=[]) == (True, False, ["id", "name"], False)
    rights = rights_of(Facts.read(500, SAID | {"usage": []}), reads, "clerk")
    assert rights is not None and rights.schema_usage and not rights.exempt
    writes = rights_of(Facts.read(500, SAID | {"usage": []}), roles([30, 6182, True]), "clerk")
    assert writes is not None and writes.schema_usage and not writes.select
    owner = roles([30, 20, True], database_owner=20)
    assert seen(owner, "clerk", select=[6171])[0] and not seen(owner, "owner", select=[6171])[0]


def test_who_is_not_known_has_no_rights() -> None:
    assert rights_of(Facts.read(500, SAID), roles(), "stranger") is None


@pytest.mark.parametrize("said", [None, {}, [], SAID | {"format": 2}, SAID | {"select": 7}, SAID | {"columns": [[1]]}])
def test_facts_that_are_none(said: object) -> None:
    with pytest.raises(FactsError):
        Facts.read(500, said)
