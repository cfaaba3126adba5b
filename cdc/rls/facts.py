"""Facts: everything that makes up the rights on one table, whoever looks at it.

Pure data, from the jsonb that `cdc.fact_query.FACTS` gives and that rows of `cdc.rights` hold. Roles are OIDs here; 0
is PUBLIC. `grants` makes the rights of one role of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Facts", "FactsError", "GivenColumn", "GivenFunction", "GivenPolicy"]

_FORMAT = 1

Grantees = frozenset[int]
"""OIDs of the roles that a right was granted to; 0 is PUBLIC."""


class FactsError(ValueError):
    """The facts are none, or another release's. They grant nothing."""


@dataclass(frozen=True, slots=True)
class GivenColumn:
    """A column: its name, its type's OID, the type a domain rests on (else 0), and who may read it alone."""

    name: str
    type_oid: int
    base_oid: int
    select: Grantees


@dataclass(frozen=True, slots=True)
class GivenPolicy:
    """A policy for reading; see `Policy`. `roles` are OIDs, `to` their names."""

    name: str
    permissive: bool
    command: str
    roles: Grantees
    to: tuple[str, ...]
    tree: str | None
    expression: str | None


@dataclass(frozen=True, slots=True)
class GivenFunction:
    """A function that policies call, or that these functions call; see `Function`. `fields` are its own."""

    fields: tuple[tuple[str, Any], ...]
    owner: int
    execute: Grantees


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one table that is the same for all roles; see `TableRights`.

    Attributes:
        oid, schema, table: the table.
        owner: OID of its owner.
        usage, select: who has USAGE of the schema, and SELECT on the whole table.
    """

    oid: int
    schema: str
    table: str
    owner: int
    row_security: bool
    forced: bool
    usage: Grantees
    select: Grantees
    columns: Mapping[int, GivenColumn]
    policies: tuple[GivenPolicy, ...]
    functions: Mapping[int, GivenFunction]
    operators: Mapping[int, tuple[str, int]]
    nondeterministic: frozenset[int]
    code_point: frozenset[int]
    plain_case: frozenset[int]
    utf8: bool

    @classmethod
    def read(cls, oid: int, said: object) -> Facts:
        """From JSON. Raises FactsError when it is not what this release knows."""
        if not isinstance(said, dict) or said.get("format") != _FORMAT:
            raise FactsError("they are of another release of cdc")
        try:
            return cls(
                oid=oid,
                schema=said["schema"],
                table=said["table"],
                owner=said["owner"],
                row_security=said["row_security"],
                forced=said["forced"],
                usage=frozenset(said["usage"] or ()),
                select=frozenset(said["select"] or ()),
                columns={number: _column(*rest) for number, *rest in said["columns"] or ()},
                policies=tuple(map(_policy, said["policies"] or ())),
                functions={int(oid): _function(each) for oid, each in (said["functions"] or {}).items()},
                operators={int(oid): (name, code) for oid, (name, code) in (said["operators"] or {}).items()},
                nondeterministic=frozenset(said["nondeterministic"] or ()),
                code_point=frozenset(said["code_point"] or ()),
                plain_case=frozenset(said.get("plain_case") or ()),
                utf8=said["utf8"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FactsError(f"{type(error).__name__}: {error}") from None


def _column(name: str, type_oid: int, base_oid: int, select: list[int] | None) -> GivenColumn:
    return GivenColumn(_text(name), type_oid, base_oid, frozenset(select or ()))


def _policy(said: Mapping[str, Any]) -> GivenPolicy:
    return GivenPolicy(
        _text(said["name"]),
        said["permissive"],
        _text(said["command"]),
        frozenset(said["roles"]),
        tuple(map(_text, said["to"])),
        None if said["tree"] is None else _text(said["tree"]),
        None if said["expression"] is None else _text(said["expression"]),
    )


def _function(said: Mapping[str, Any]) -> GivenFunction:
    fields = {
        "schema": _text(said["schema"]),
        "name": _text(said["name"]),
        "arguments": _text(said["arguments"]),
        "language": _text(said["language"]),
        "body": _text(said["body"]),
        "security_definer": said["definer"],
        "settings": tuple(map(_text, said["settings"] or ())),
        "result": said["result"],
        "returns_set": said["set"],
        "argument_count": said["count"],
        "kind": said["kind"],
        "volatility": said["volatility"],
        "tree": None if said["tree"] is None else _text(said["tree"]),
        "asked": said.get("asked", False),
    }
    return GivenFunction(tuple(fields.items()), said["owner"], frozenset(said["execute"] or ()))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text is expected")
    return value
