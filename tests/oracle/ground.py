"""The ground: a private server with the databases that scenes are played in, and what PostgreSQL says there.

Touches that server only.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.relation import Column, Relation
from cdc.rls import Subject
from cdc.testing import Sandbox, apply_supabase
from cdc.values import Types
from tests.oracle.kinds import KINDS, SETUP, Kind
from tests.oracle.scene import ROLES, Policy, Scene, reset

__all__ = ["Ground", "Place"]

_OTHER_LOCALE = "TEMPLATE template0 LC_COLLATE 'C.utf8' LC_CTYPE 'C.utf8'"
_NAMED = "SELECT c.oid, a.attname, a.atttypid, a.atttypmod FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"


class Place:
    """One database, and the scene that is played in it.

    Attributes:
        connection: a superuser's, whose cells look as the stream's do.
        version: the server's version, such as 180006.
        scene: what is played; `relation`, `types` and `cells` are its table's.
        hidden: the columns that PostgreSQL does not let each subject select.
        focus: the construct that most policies are to have; empty for none.
    """

    def __init__(self, dsn: str, focus: str = "") -> None:
        self.dsn, self.focus = dsn, focus
        self.connection = connect(dsn)
        self.version = self.connection.info.server_version
        self.kinds = _kinds(self.connection)
        self.types = Types()
        self.scene: Scene
        self.relation: Relation
        self.cells: list[list[bytes | None]] = []
        self.hidden: list[frozenset[str]] = []
        self._sessions = ExitStack()
        self._readers: dict[int, psycopg.Connection[Any]] = {}

    def play(self, scene: Scene) -> None:
        """Make the scene's table, rows, roles and grants in the place of those before."""
        self.leave()
        self.scene = scene
        for statement in (*reset(self.version), *scene.create()):
            self.connection.execute(statement)
        for key, row in enumerate(scene.rows, 1):
            self.connection.execute(scene.insert(key, row))
        self.relation = self._describe()
        self.cells = self.read()
        # Before there are policies, which may raise for a subject before anybody asks for its privileges.
        self.hidden = [self._hidden(number) for number in range(len(scene.subjects))]

    def leave(self) -> None:
        """Drop the scene."""
        self._sessions.close()
        self._readers.clear()
        if hasattr(self, "scene"):
            self.connection.execute(f"DROP TABLE IF EXISTS {self.scene.table}")
            del self.scene

    def read(self) -> list[list[bytes | None]]:
        """The cells of all rows, in the order of their keys."""
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in self.relation.columns)
        query = sql.SQL("SELECT {} FROM {} ORDER BY id").format(names, sql.SQL(self.scene.table))
        result = self.connection.execute(query).pgresult
        assert result is not None
        return [[result.get_value(row, at) for at in range(result.nfields)] for row in range(result.ntuples)]

    def _describe(self) -> Relation:
        schema, name = self.scene.table.split(".")
        where = " WHERE c.oid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
        found = self.connection.execute(_NAMED + where, (self.scene.table,)).fetchall()  # type: ignore[arg-type]
        self.types = Types()
        self.types.add(load_types(self.connection, self.types.missing(row[2] for row in found)))
        columns = tuple(Column(row[1], row[2], row[3], row[1] == "id", self.types.decoder(row[2])) for row in found)
        return Relation(found[0][0], schema, name, "d", columns, (0,))

    def policies(self, policies: list[Policy]) -> list[Policy]:
        """Replace the table's policies; returns those that PostgreSQL accepts."""
        for (name,) in self.connection.execute(
            "SELECT polname FROM pg_policy WHERE polrelid = %s", (self.relation.oid,)
        ).fetchall():
            self.connection.execute(f"DROP POLICY {name} ON {self.scene.table}")
        accepted = []
        for policy in policies:
            with suppress(psycopg.Error):
                self.connection.execute(policy.sql(self.scene.table))
                accepted.append(policy)
        return accepted

    def reader(self, place: int) -> psycopg.Connection[Any]:
        """A session that is one subject's for ever: a setting once set locally is '' and not NULL afterwards."""
        session = self._readers.get(place)
        if session is None:
            session = open_session(self.dsn, self.scene.subjects[place])
            self._readers[place] = self._sessions.enter_context(session)
        return session

    def shown(self, place: int, keys: list[int], condition: str = "") -> tuple[set[int], dict[int, str]]:
        """The keys of the rows that PostgreSQL shows to a subject, and where it raises, with the SQLSTATE."""
        session, table = self.reader(place), self.scene.table
        try:
            where = f" WHERE {condition}" if condition else ""
            return {key for (key,) in session.execute(f"SELECT id FROM {table}{where}").fetchall()}, {}  # type: ignore[arg-type]
        except psycopg.errors.InsufficientPrivilege:
            raise
        except psycopg.Error:
            return self._one_by_one(session, keys, condition)

    def selected(self, keys: list[int], condition: str) -> tuple[set[int], dict[int, str]]:
        """The keys of the rows that a condition selects, and where it raises. Raises when it is no condition."""
        query = f"SELECT id FROM {self.scene.table} WHERE {condition}"
        self.connection.execute(f"EXPLAIN {query}")  # type: ignore[arg-type]
        try:
            return {key for (key,) in self.connection.execute(query).fetchall()}, {}  # type: ignore[arg-type]
        except psycopg.Error:
            return self._one_by_one(self.connection, keys, condition)

    def _one_by_one(
        self, session: psycopg.Connection[Any], keys: list[int], condition: str
    ) -> tuple[set[int], dict[int, str]]:
        query = f"SELECT id FROM {self.scene.table} WHERE id = $key" + (f" AND ({condition})" if condition else "")
        rows = session.execute("SELECT key, problem FROM oracle.shown(%s, %s)", (query, keys)).fetchall()
        return {key for key, problem in rows if problem is None}, {key: problem for key, problem in rows if problem}

    def _hidden(self, place: int) -> frozenset[str]:
        """The columns that PostgreSQL does not let a subject select."""
        session, found = self.reader(place), set()
        for column in self.relation.columns:
            try:
                session.execute(f"SELECT {column.name} FROM {self.scene.table} LIMIT 0")  # type: ignore[arg-type]
            except psycopg.errors.InsufficientPrivilege:
                found.add(column.name)
        return frozenset(found)

    def close(self) -> None:
        """Drop the scene and close the connections."""
        self.leave()
        self.connection.close()


def open_session(dsn: str, subject: Subject) -> psycopg.Connection[Any]:
    """A session as a subject."""
    session = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
    user = subject.setting("session_authorization")
    if user is not None:
        session.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(user)))
    for name, value in subject.settings:
        if name == "session_authorization":
            continue
        session.execute("SELECT set_config(%s, %s, false)", (name, value))
    session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(subject.role)))
    return session


def _kinds(connection: psycopg.Connection[Any]) -> list[Kind]:
    """The kinds that this server has: not each has every collation."""
    known = {name for (name,) in connection.execute("SELECT collname::text FROM pg_collation").fetchall()}
    return [kind for kind in KINDS if not kind.suffix or kind.suffix.split('"')[1] in known]


class Ground:
    """Two databases, one of which has a locale that is not C, on a private server or on a given one.

    Args:
        version: the major version of PostgreSQL; None takes the one that `Sandbox` takes.
        dsn: a superuser's, of a private server that runs already; None starts one. Its roles are the oracle's own.
        focus: the construct that most policies are to have; empty for none.
    """

    def __init__(self, version: str | None = None, dsn: str | None = None, focus: str = "") -> None:
        self._version, self._dsn, self._focus = version, dsn, focus
        self._stack = ExitStack()
        self.places: list[Place] = []

    def __enter__(self) -> Self:
        dsn = self._dsn or self._stack.enter_context(Sandbox(version=self._version)).dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            for name, attributes in ROLES.items():
                with suppress(psycopg.errors.DuplicateObject):
                    connection.execute(f"CREATE ROLE {name} {attributes}")  # type: ignore[arg-type]
            names = [self._database(connection, ""), self._database(connection, _OTHER_LOCALE)]
        for name in names:
            own = make_conninfo(dsn, dbname=name)
            apply_supabase(own)
            with psycopg.connect(own, autocommit=True) as connection:
                connection.execute(SETUP + "CREATE SCHEMA hidden")  # type: ignore[arg-type]
            self.places.append(Place(own, self._focus))
            self._stack.callback(self.places[-1].close)
        return self

    def _database(self, connection: psycopg.Connection[Any], locale: str) -> str:
        """A new database, in the server's own locale when it does not have the other one."""
        name = f"oracle_{secrets.token_hex(6)}"
        try:
            connection.execute(f"CREATE DATABASE {name} {locale}")  # type: ignore[arg-type]
        except psycopg.Error:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        if self._dsn is not None:
            self._stack.callback(_drop, self._dsn, name)
        return name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _drop(dsn: str, name: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type]
