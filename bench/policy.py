"""How many decisions a second are there under a policy of each class, and what does it cost to bind a subject to it?

A private PostgreSQL holds a table and, one after the other, a policy of each class; its rights come from the catalog,
as those of a consumer do. What is timed is the decision alone, on cells in memory: `undecided` is the same loop
with a test that looks at nothing, and a ratio is its time divided by the policy's, so that 1 would be a policy for
nothing. `…_visible` is how many of the rows are shown.

`bind_…` is `decide` for one subject after the other with claims of their own, when the policy is compiled already: its
time, and the bytes that stay with each subject.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import contest
import psycopg

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.operators import Moment
from cdc.predicate import TRUE
from cdc.relation import Column, Relation
from cdc.rights import load_rights
from cdc.rls import Decision, Subject, TableRights, decide
from cdc.testing import Sandbox
from cdc.values import Types

ROWS = 100_000
DIFFERENT = 1000
"""Rows that are different; the loop takes them again and again."""
SUBJECTS = 2000
TARGETS: dict[str, contest.Target] = {}
ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
TABLE = """
CREATE TABLE wells (id int PRIMARY KEY, owner uuid, status text, name text, depth int, price numeric, till timestamptz,
                    facts jsonb, tags text[], is_public boolean);
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON wells TO authenticated, anon;
"""
FILL = f"""
INSERT INTO wells
SELECT n, CASE n % 2 WHEN 0 THEN '{ONE}' ELSE '{TWO}' END::uuid,
       (ARRAY['planned', 'drilling', 'closed', 'lost'])[n % 4 + 1],
       CASE n % 2 WHEN 0 THEN 'A-' ELSE 'B-' END || n, n, n / 2.0, CASE n % 2 WHEN 0 THEN now() + interval '1 year' END,
       jsonb_build_object('tenant', n % 2, 'tags', ARRAY['a', 'b']), ARRAY['a', 'b'], n % 2 = 0
FROM generate_series(1, {DIFFERENT}) n
"""
POLICIES: dict[str, list[str]] = {
    "uuid_equality": ["USING (owner = auth.uid())"],
    "uuid_equality_sub_select": ["USING (owner = (SELECT auth.uid()))"],
    "in_list": ["USING (status IN ('planned', 'drilling'))"],
    "or_of_three": ["USING (owner = auth.uid() OR status = 'planned' OR depth = 7)"],
    "like": ["USING (name LIKE 'A-%')"],
    "jsonb_field": ["USING ((facts ->> 'tenant')::int = (auth.jwt() ->> 'tenant')::int)"],
    "timestamptz_after_now": ["USING (till > now())"],
    "arithmetic": ["USING (depth % 2 = 0 AND price * 2 >= 1)"],
    "case": ["USING (CASE status WHEN 'planned' THEN owner = auth.uid() WHEN 'closed' THEN true ELSE false END)"],
    "array_contains": ["USING (tags @> ARRAY['a'] AND is_public)"],
    "restrictive_and_permissive": ["USING (owner = auth.uid())", "AS RESTRICTIVE USING (status <> 'lost')"],
    "unsupported": ["USING (owner IN (SELECT owner FROM wells))"],
    "denied": [],
}
"""Policies by class; with none, nobody sees anything."""
HIDDEN = {"unsupported"}
"""The class that is not to be decided. Where any other one cannot be, there is no figure for it."""


class Ground:
    """The table, and what the catalog says of it."""

    def __init__(self, dsn: str) -> None:
        self.connection: psycopg.Connection[Any] = connect(dsn)
        self.connection.execute(TABLE + FILL)
        names = "attname, atttypid, atttypmod, attrelid"
        query = f"SELECT {names} FROM pg_attribute WHERE attrelid = 'wells'::regclass AND attnum > 0 ORDER BY attnum"
        found = self.connection.execute(query).fetchall()  # type: ignore[arg-type]
        self.moment = Moment()
        row = self.connection.execute("SELECT extract(epoch FROM now() - timestamptz '2000-01-01 00:00+00')").fetchone()
        self.moment.microseconds = int(row[0] * 1_000_000) if row else 0
        self.types = Types()
        self.types.add(load_types(self.connection, self.types.missing(row[1] for row in found)))
        columns = tuple(Column(row[0], row[1], row[2], row[0] == "id", bytes.decode) for row in found)
        self.relation = Relation(found[0][3], "public", "wells", "f", columns, (0,))
        result = self.connection.execute("SELECT * FROM wells ORDER BY id").pgresult
        assert result is not None
        self.rows = [[result.get_value(row, at) for at in range(result.nfields)] for row in range(result.ntuples)]

    def rights(self, clauses: Sequence[str]) -> TableRights:
        """The rights under these policies and no others."""
        for (name,) in self.connection.execute("SELECT polname FROM pg_policy").fetchall():
            self.connection.execute(f"DROP POLICY {name} ON wells")
        for number, clause in enumerate(clauses):
            self.connection.execute(f"CREATE POLICY p{number} ON wells {clause}")
        return load_rights(self.connection, self.relation.oid, "authenticated")

    def decide(self, rights: TableRights, subject: Subject) -> Decision:
        """The decision for a subject."""
        return decide(rights, self.relation, self.types, subject, self.moment)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def subject(number: int) -> Subject:
    """A subject with claims of its own; number 0 owns every other row."""
    sub = ONE if number == 0 else f"{number:08d}-1111-4111-8111-111111111111"
    return Subject("authenticated", {"sub": sub, "tenant": number})


def decided(test: Callable[[Sequence[Any]], int], rows: list[Any], count: int) -> float:
    """Seconds of so many decisions."""
    gc.collect()
    begun = time.process_time()
    for _ in range(count // len(rows)):
        for cells in rows:
            test(cells)
    return time.process_time() - begun


def bound(ground: Ground, rights: TableRights, count: int) -> tuple[float, float]:
    """Microseconds and bytes of a subject that is bound to policies."""
    subjects = [subject(number) for number in range(count)]
    ground.decide(rights, subjects[0])
    gc.collect()
    begun = time.process_time()
    for each in subjects:
        ground.decide(rights, each)
    taken = time.process_time() - begun
    tracemalloc.start()
    kept = [ground.decide(rights, each) for each in subjects]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / len(kept) * 1e6, size / len(kept)


def undecided(cells: Sequence[Any]) -> int:
    """A test that looks at nothing."""
    return TRUE


def measure(ground: Ground, count: int, rounds: int) -> contest.Figures:
    """The figures of every class."""
    figures: contest.Figures = {}
    tests: dict[str, Callable[[Sequence[Any]], int]] = {"undecided": undecided}
    rows = ground.rows[: max(1, min(len(ground.rows), count))]
    for name, clauses in POLICIES.items():
        rights = ground.rights(clauses)
        decision = ground.decide(rights, subject(0))
        if bool(decision.unsupported) == (name in HIDDEN):
            tests[name] = decision.predicate.test
        figures[f"{name}_supported"] = int(not decision.unsupported)
        figures[f"{name}_visible"] = sum(decision.predicate.test(cells) == TRUE for cells in rows)
        taken, size = bound(ground, rights, min(SUBJECTS, count))
        figures[f"bind_{name}_microseconds"] = contest.short(taken)
        figures[f"bind_{name}_bytes"] = round(size)
    done = count // len(rows) * len(rows)
    turns = {name: partial(decided, test, rows, count) for name, test in tests.items()}
    taken_by = contest.median(contest.take_turns(turns, rounds))
    for name, seconds in taken_by.items():
        figures[f"{name}_decisions_per_second"] = contest.short(done / max(seconds, 1e-9))
        if name != "undecided":
            figures[f"{name}_ratio"] = round(taken_by["undecided"] / max(seconds, 1e-9), 4)
    return figures


def main() -> None:
    """Time every class; print one table, and one JSON object if asked."""
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="decisions of each class")
    parser.add_argument("--quick", action="store_true", help="a look: 2,000 decisions, one round; saves nothing")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rows, chosen.rounds = 2000, 1
    with Sandbox(supabase=True) as server:
        ground = Ground(server.dsn)
        figures = contest.circumstances(server.version) | measure(ground, chosen.rows, chosen.rounds)
        ground.close()
    contest.finish(__file__, chosen, parser, figures, TARGETS)


if __name__ == "__main__":
    main()
