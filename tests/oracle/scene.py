"""A scene: a random table with rows, roles with grants, and those who look at it; and random policies for it.

Everything is a value that says its own SQL, so that a part can be left out to make a reproduction smaller.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from cdc.rls import Subject
from tests.oracle.grammar import Column, Expression, Grammar, literal
from tests.oracle.kinds import UUIDS, WORDS, Kind

__all__ = ["ROLES", "Policy", "Scene", "draw_policies", "draw_row", "draw_scene", "reset"]

ROLES = {
    "o_owner": "",
    "o_group": "",
    "o_deep": "",
    "o_member": "",
    "o_keeps": "",
    "o_plain": "",
    "o_none": "",
    "o_bypass": "BYPASSRLS",
    "o_super": "SUPERUSER",
}
"""The roles of every scene, made once on a server, with what distinguishes them for ever."""

_EDGES = [
    ("o_member", "o_group"),
    ("o_keeps", "o_group"),
    ("o_deep", "o_member"),
    ("o_plain", "o_owner"),
    ("o_member", "o_owner"),
    ("o_keeps", "o_bypass"),
    ("o_deep", "authenticated"),
    ("o_none", "o_group"),
    ("o_keeps", "o_plain"),
    ("o_none", "o_super"),
]
_READERS = [*ROLES, "anon", "authenticated"]
_COMMANDS = ("", "FOR ALL", "FOR SELECT", "FOR SELECT", "FOR SELECT", "FOR UPDATE", "FOR INSERT", "FOR DELETE")


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy on a scene's table."""

    name: str
    condition: Expression
    permissive: bool = True
    command: str = ""
    roles: tuple[str, ...] = ()
    check: str = ""

    def sql(self, table: str) -> str:
        """CREATE POLICY."""
        parts = [f"CREATE POLICY {self.name} ON {table}", "" if self.permissive else "AS RESTRICTIVE", self.command]
        parts.append(f"TO {', '.join(self.roles)}" if self.roles else "")
        if self.command == "FOR INSERT":
            return " ".join([*filter(None, parts), f"WITH CHECK ({self.condition.sql})"])
        return " ".join([*filter(None, parts), f"USING ({self.condition.sql})", self.check]).strip()


@dataclass(frozen=True, slots=True)
class Scene:
    """A table, its rows and those who look at it.

    Attributes:
        table: schema and name.
        columns: its columns behind `id`, the key.
        rows: text forms of the cells behind the key, which counts from 1.
        options: what is said of the table after it was made: its owner, row-level security, FORCE.
        rights: statements about roles and grants.
        subjects: who looks.
    """

    table: str
    columns: list[Column]
    rows: list[tuple[str | None, ...]]
    options: list[str]
    rights: list[str]
    subjects: list[Subject]
    dropped: bool = False
    external: bool = False
    partitioned: bool = False

    def create(self) -> list[str]:
        """The statements that make the table, without rows."""
        names = [f"{column.name} {column.kind.name}{column.kind.suffix}" for column in self.columns]
        if self.dropped:
            names.insert(1, "gone int")
        by = " PARTITION BY HASH (id)" if self.partitioned else ""
        made = [
            f"DROP TABLE IF EXISTS {self.table}",
            f"CREATE TABLE {self.table} (id int PRIMARY KEY, {', '.join(names)}){by}",
        ]
        for remainder, part in enumerate(self.parts):
            bounds = f"FOR VALUES WITH (MODULUS 2, REMAINDER {remainder})"
            made.append(f"CREATE TABLE {part} PARTITION OF {self.table} {bounds}")
        if self.dropped:
            made.append(f"ALTER TABLE {self.table} DROP COLUMN gone")
        if self.external:
            texts = [column.name for column in self.columns if column.kind.name in ("text", "jsonb", "varchar")]
            made += [f"ALTER TABLE {self.table} ALTER {name} SET STORAGE EXTERNAL" for name in texts]
        return [*made, *self.options, *self.rights]

    @property
    def parts(self) -> list[str]:
        """Its partitions."""
        return [f"{self.table}_{number}" for number in range(2)] if self.partitioned else []

    def insert(self, key: int, row: tuple[str | None, ...]) -> str:
        """The INSERT of one row."""
        return f"INSERT INTO {self.table} VALUES ({key}, {', '.join(map(self.cell, row))})"

    def cell(self, text: str | None) -> str:
        """A cell's text as SQL."""
        return "NULL" if text is None else literal(text, "")


def reset(version: int) -> list[str]:
    """What brings the roles back to what they were before any scene."""
    found = [f"REVOKE {group} FROM {member}" for member, group in _EDGES]
    found += [
        f"ALTER ROLE {role} NOINHERIT" if role in ("anon", "authenticated") else f"ALTER ROLE {role} INHERIT"
        for role in _READERS
    ]
    found += ["REVOKE ALL ON SCHEMA hidden FROM PUBLIC, " + ", ".join(_READERS)]
    for name in ("uid", "jwt", "role", "email"):
        found.append(f"GRANT EXECUTE ON FUNCTION auth.{name}() TO PUBLIC")
        found.append(f"REVOKE EXECUTE ON FUNCTION auth.{name}() FROM {', '.join(_READERS)}")
    return found


def draw_scene(
    draw: Random, number: int, version: int, kinds: list[Kind], rows: int = 24, streamed: bool = False
) -> Scene:
    """A random scene. One that is `streamed` has no rights that hide the whole table, and large texts out of line."""
    plain = streamed
    schema = "hidden" if not plain and draw.random() < 0.15 else "oracle"
    table = f"{schema}.t{number}"
    weights = [kind.weight for kind in kinds]
    chosen = draw.choices(kinds, weights, k=draw.randint(6, 14))
    columns = [Column(f"c{place}_{kind.family}", kind) for place, kind in enumerate(chosen)]
    owner = draw.choice(("o_owner", "o_owner", "postgres", "o_group"))
    options = [f"ALTER TABLE {table} OWNER TO {owner}"]
    if plain or draw.random() < 0.95:
        options.append(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    if draw.random() < 0.35:
        options.append(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    rights = [*_memberships(draw, version), *_grants(draw, table, schema, columns, plain)]
    return Scene(
        table,
        columns,
        [draw_row(draw, columns) for _ in range(rows)],
        options,
        rights,
        [_subject(draw) for _ in range(draw.randint(7, 10))],
        dropped=draw.random() < 0.2,
        external=streamed,
        partitioned=draw.random() < 0.2,
    )


def draw_row(draw: Random, columns: list[Column]) -> tuple[str | None, ...]:
    """The cells of a random row."""
    return tuple(None if draw.random() < 0.17 else draw.choice(column.kind.texts) for column in columns)


def _memberships(draw: Random, version: int) -> list[str]:
    found = [f"ALTER ROLE {role} {draw.choice(('INHERIT', 'INHERIT', 'NOINHERIT'))}" for role in ROLES]
    for member, group in _EDGES:
        if draw.random() < 0.5:
            extra = ""
            if version >= 160000 and draw.random() < 0.5:
                extra = f" WITH INHERIT {draw.choice(('TRUE', 'FALSE'))}, SET {draw.choice(('TRUE', 'FALSE'))}"
            elif draw.random() < 0.1:
                extra = " WITH ADMIN OPTION"
            found.append(f"GRANT {group} TO {member}{extra}")
    return found


def _grants(draw: Random, table: str, schema: str, columns: list[Column], plain: bool) -> list[str]:
    found = []
    for role in (*_READERS, "PUBLIC"):
        chance = draw.random() * (0.8 if plain else 1.0)
        if role == "PUBLIC":
            chance += 0.55
        if chance < 0.7:
            found.append(f"GRANT SELECT ON {table} TO {role}")
        elif chance < 0.86:
            names = [column.name for column in columns if draw.random() < 0.5]
            names += ["id"] * (draw.random() < 0.85 or not names)
            found.append(f"GRANT SELECT ({', '.join(names)}) ON {table} TO {role}")
        elif chance < 0.9:
            found.append(f"GRANT INSERT, UPDATE, DELETE ON {table} TO {role}")
        if schema == "hidden" and draw.random() < 0.6 and role != "PUBLIC":
            found.append(f"GRANT USAGE ON SCHEMA hidden TO {role}")
    if not plain and draw.random() < 0.05:
        name = draw.choice(("uid", "jwt", "role", "email"))
        found.append(f"REVOKE EXECUTE ON FUNCTION auth.{name}() FROM PUBLIC")
        found.append(f"GRANT EXECUTE ON FUNCTION auth.{name}() TO o_group, authenticated")
    return found


_METADATA: dict[str, list[Any]] = {
    "owner": [*UUIDS, "", None, 7],
    "org": ["alpha", "ab", "größe", ""],
    "level": [0, 7, 1.5, "7", "x", None, 2147483648],
    "admin": [True, False, "true", 1],
}
_CLAIMS: dict[str, list[Any]] = {
    "sub": [*UUIDS[:2], *UUIDS[:3], UUIDS[0].upper(), f"{{{UUIDS[1]}}}", "", "no uuid", None],
    "role": ["authenticated", "anon", "service_role", "ab", None],
    "email": ["x@example.org", "X@Example.org", "alpha", "", "ab  ", "größe", None],
    "tenant": [0, 1, 7, "7", " 7 ", "1.5", "x", 1.0, 4294967301, -1, None],
    "level": [1.5, "1.50", "NaN", 0, "1e3", 7, "Infinity", None, 1e300],
    "admin": [True, False, "true", "yes", "on", 1, None, "maybe"],
    "org": ["alpha", "Alpha", "ab", "abc", "a%", "é", "", "7", None],
    "since": [
        "2024-02-29",
        "2024-02-29T12:30:00Z",
        "2024-02-29 12:30:00+02",
        "infinity",
        "yesterday",
        "0044-03-15 BC",
        "no date",
        None,
    ],
    "exp": [4102444800, 4200000000.5, 4102444800],
    "tags": [["alpha", "ab"], [], ["ab", 7, None], "ab", None, [["alpha"]]],
    "mood": ["sad", "glad", "Glad", "", None],
    "span": ["1 day", "24:00:00", "P1D", "1 mon", "x"],
    "address": ["10.0.0.1", "10.0.0.0/8", "::1", "10.0.0"],
}
_SETTINGS: dict[str, list[str]] = {
    "app.tenant": ["alpha", "ab", "", "Alpha", "a%", "7", "größe", WORDS[-1]],
    "app.number": ["7", "1", " 7 ", "", "x", "1.5", "NaN", "2147483648"],
    "app.numbers": ["1,7", "", "1,,7", "x"],
    "app.flag": ["on", "off", "true", "t", "", "x", " TRUE "],
    "app.owner": [*UUIDS[:3], "", f"{UUIDS[0]},{UUIDS[1]}", "x"],
    "app.list": ["alpha,ab", "", "alpha", "a,,b", "é,größe"],
    "app.array": ["{alpha,ab}", "{}", "", '{"a b",NULL}', "alpha", "{{alpha},{ab}}"],
    "request.jwt.claim.sub": [*UUIDS[:2], "", "x"],
    "request.jwt.claim.role": ["authenticated", "", "anon"],
    "request.jwt.claim.email": ["x@example.org", ""],
}
_ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")
_ODD_CLAIMS = (
    "",
    "{",
    "[]",
    '"a"',
    "null",
    "{}",
    ' {"sub": "x"} ',
    '{"sub": 1e2, "tenant": 07}',
    '{"sub": "\\u0000"}',
    '{"tenant": 1.50, "tenant": 7}',
)


def _subject(draw: Random) -> Subject:
    settings = {
        name: draw.choice(values)
        for name, values in _SETTINGS.items()
        if draw.random() < (0.12 if "jwt" in name else 0.75)
    }
    role = draw.choices(_READERS, [2, 2, 2, 3, 3, 3, 1, 1, 0.4, 2, 6])[0]
    if draw.random() < 0.5:
        settings["TimeZone"] = draw.choice(_ZONES)
    if draw.random() < 0.3:
        settings["session_authorization"] = draw.choice(("o_super", "postgres"))
    chance = draw.random()
    if chance < 0.06:
        return Subject(role, settings=settings)
    if chance < 0.1:
        return Subject(role, settings=settings | {"request.jwt.claims": draw.choice(_ODD_CLAIMS)})
    claims = {name: _usual(draw, values) for name, values in _CLAIMS.items() if draw.random() < 0.88}
    if draw.random() < 0.8:
        claims["app_metadata"] = {
            name: _usual(draw, values) for name, values in _METADATA.items() if draw.random() < 0.8
        }
    return Subject(role, json.dumps(claims, ensure_ascii=draw.random() < 0.5), settings)


def _usual(draw: Random, values: list[Any]) -> Any:
    """The first ones of a list are good, the last ones odd; most are good, or nobody would ever see a row."""
    return draw.choice(values[: max(2, len(values) // 2)]) if draw.random() < 0.75 else draw.choice(values)


def draw_policies(draw: Random, columns: list[Column], focus: str = "") -> list[Policy]:
    """A random set of policies. Arguments: `focus`, the construct that most of them are to have; empty for none."""
    grammar = Grammar(draw, columns, focus)
    found = []
    for number in range(draw.choices((1, 2, 3, 4, 5), (5, 5, 4, 2, 1))[0]):
        permissive = number == 0 or draw.random() < 0.62
        roles: tuple[str, ...] = ()
        if draw.random() < 0.3:
            roles = tuple(draw.sample([*_READERS, "PUBLIC", "o_group", "authenticated"], draw.randint(1, 3)))
            roles = tuple(dict.fromkeys(roles))
        command = "" if draw.random() < 0.5 else draw.choice(_COMMANDS)
        check = "WITH CHECK (true)" if command in ("", "FOR ALL", "FOR UPDATE") and draw.random() < 0.1 else ""
        name = draw.choice("pqrstuvw") + str(number)
        found.append(
            Policy(name, grammar.condition(draw.choice((0, 1, 1, 2, 2, 3))), permissive, command, roles, check)
        )
    return found
