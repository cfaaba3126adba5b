"""Expressions of every kind: what a policy of one says of each row, PostgreSQL says too, errors among it.

A row is asked for by its key, as a subject would. Where PostgreSQL raises, nothing is shown and there is a reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import psycopg
import pytest
from psycopg import sql

from cdc.predicate import ERROR, TRUE, Predicate
from cdc.rls import Decision, Subject
from cdc.tuples import UNCHANGED
from tests.rls_table import CLAIMS, ONE, TWO, Table, secured_table

EXPRESSIONS = [
    # comparisons and arithmetic
    "id <> 1",
    "id < 3 OR big > 5",
    "id BETWEEN 2 AND 4",
    "id NOT BETWEEN 2 AND sm",
    "id BETWEEN SYMMETRIC 4 AND 2",
    "id + 0 = 1",
    "id * 2 > 7",
    "-id < -3",
    "id % 2 = 0",
    "sm = big",
    "sm < big",
    "sm + big = 10",
    "num > f8::numeric",
    "f4 = f8",
    "f4 < f8",
    "num = f8",
    "num <> 'NaN'",
    "f8 > 1",
    "name = tag",
    "name <> tag",
    "name = n",
    "c = name",
    "c <> 'ab'",
    "d < '2021-01-01'",
    "d = ts",
    "d + 1 = '2020-01-03'",
    "ts > d",
    "owner <> auth.uid()",
    "owner > '20000000-0000-4000-8000-000000000000'",
    "o > 77",
    "dom + 1 = 6",
    "dom IN (5, 7)",
    "dom <> 5",
    "feeling = 'sad'",
    "feeling <> 'sad'",
    "feeling > 'sad'",
    "feeling IN ('glad')",
    "feeling = (auth.jwt() ->> 'feeling')::mood",
    "feeling::text = 'glad'",
    # errors of a row
    "1 / (id - 3) > 0",
    "id = 3 OR 1 / (id - 3) > 0",
    "1 / (id - 3) > 0 OR id = 3",
    "id <> 3 AND 1 / (id - 3) > 0",
    "NOT (1 / (id - 3) > 0 AND false)",
    "NOT (1 / (id - 3) > 0 AND auth.role() = 'nobody')",
    "NOT (auth.role() = 'nobody' AND 1 / (id - 3) > 0)",
    "(1 / (id - 3) > 0) IS NULL",
    "(1 / (id - 3)) IS NOT NULL",
    "CASE WHEN id = 3 THEN false ELSE 1 / (id - 3) > 0 END",
    "CASE WHEN id <> 3 THEN 1 / (id - 3) > 0 ELSE ok END",
    "coalesce(ok, 1 / (id - 4) > 0)",
    "coalesce(ok, 1 / (id - 3) > 0)",
    "big::int > 0",
    "name::uuid = owner",
    "CASE WHEN name ~ '^[0-9a-f-]{36}$' THEN name::uuid = auth.uid() ELSE false END",
    "tag::numeric > 1",
    "num::int > 1",
    # three-valued logic
    "NOT ok",
    "NOT (NOT ok)",
    "NOT (ok AND owner = auth.uid())",
    "NOT (ok OR owner = auth.uid())",
    "NOT (ok OR NULL)",
    "NOT (ok AND NULL)",
    "ok IS TRUE",
    "ok IS NOT TRUE",
    "ok IS FALSE",
    "ok IS NOT FALSE",
    "ok IS UNKNOWN",
    "ok IS NOT UNKNOWN",
    "(owner = auth.uid()) IS TRUE",
    "(owner = auth.uid()) IS NOT TRUE",
    "(owner = auth.uid()) IS UNKNOWN",
    "(owner = auth.uid()) IS NOT FALSE",
    "owner IS NULL",
    "owner IS NOT NULL",
    "auth.uid() IS NULL",
    "auth.uid() IS NOT NULL AND ok",
    "j IS NULL",
    "arr IS NOT NULL",
    "(owner = auth.uid()) IS NULL",
    "NOT (owner IS NULL)",
    "id IS DISTINCT FROM 1",
    "owner IS DISTINCT FROM auth.uid()",
    "owner IS NOT DISTINCT FROM auth.uid()",
    "big IS DISTINCT FROM sm",
    "NULL IS DISTINCT FROM owner",
    "ok IS DISTINCT FROM true",
    "ok = (owner = auth.uid())",
    "ok <> (sm = 5)",
    "(ok AND sm = 7) = ok",
    # IN, ANY, ALL
    "id IN (1, 2)",
    "id IN (1, NULL)",
    "id NOT IN (1, 2)",
    "id NOT IN (1, NULL)",
    "owner IN (auth.uid())",
    "owner IN (auth.uid(), '22222222-2222-4222-8222-222222222222')",
    "owner NOT IN (auth.uid())",
    "name IN ('alpha', 'true', current_setting('app.tenant', true))",
    "tag IN ('alpha', 'x y')",
    "c IN ('ab', 'x')",
    "n IN ('ab', 'é')",
    "num IN (12.5, 'NaN')",
    "d IN ('2020-01-02', 'infinity')",
    "id IN (sm, 7)",
    "id IN (sm, big::int)",
    "id IN (sm, 1 / (id - 3))",
    "id = ANY (NULL::int[])",
    "id < ANY (ARRAY[2, sm])",
    "id < ALL (ARRAY[5, big])",
    "id = ANY (string_to_array('1,4', ',')::int[])",
    "id = ANY (string_to_array(current_setting('app.ids', true), ',')::int[])",
    "name = ANY (ARRAY['alpha', tag])",
    "'b' = ANY (arr)",
    "current_setting('app.tenant', true) = ANY (arr)",
    "name = ANY (arr)",
    "'b' <> ALL (arr)",
    "name LIKE ANY (ARRAY['a%', 't%'])",
    "5 = ANY (nums)",
    "sm = ANY (nums)",
    "auth.uid() = ANY (uids)",
    # arrays
    "arr @> ARRAY['a']",
    "arr @> ARRAY[current_setting('app.tenant', true)]",
    "ARRAY['a', 'b', 'c'] @> arr",
    "arr <@ ARRAY['a', 'b']",
    "ARRAY['a'] <@ arr",
    "arr && ARRAY['a', 'z']",
    "ARRAY['b'] && arr",
    "nums && ARRAY[5, NULL]",
    "uids @> ARRAY[auth.uid()]",
    "arr = ARRAY['a', 'b']",
    "ARRAY[id, sm] = ARRAY[1, 5]",
    "ARRAY[[id]] = ARRAY[[1]]",
    "ARRAY[id]::bigint[] = ARRAY[1::bigint]",
    "arr::varchar[] @> ARRAY['a'::varchar]",
    "cardinality(arr) = 2",
    "array_length(arr, 1) = 2",
    # CASE, COALESCE and their like
    "CASE WHEN ok THEN true END",
    "CASE WHEN ok THEN id = 1 WHEN sm = 0 THEN true ELSE owner = auth.uid() END",
    "CASE sm WHEN 5 THEN true WHEN 7 THEN false ELSE ok END",
    "CASE id WHEN 1 THEN 'a' WHEN 2 THEN 'b' END = 'a'",
    "CASE id WHEN 3 THEN NULL ELSE 1 / (id - 3) END > 0",
    "CASE auth.role() WHEN 'authenticated' THEN ok ELSE owner = auth.uid() END",
    "CASE WHEN auth.role() = 'authenticated' THEN true ELSE ok END",
    "CASE WHEN auth.role() = 'authenticated' THEN owner = auth.uid() ELSE ok END",
    "CASE WHEN ok THEN owner ELSE auth.uid() END = auth.uid()",
    "CASE WHEN id = 1 THEN false WHEN id = 2 THEN NULL ELSE ok IS NULL END",
    "owner = coalesce(auth.uid(), owner)",
    "coalesce(owner, auth.uid()) = auth.uid()",
    "coalesce(ok, false)",
    "coalesce(ok, true) AND id > 2",
    "coalesce(NULL, ok, owner = auth.uid())",
    "coalesce(name, tag) = 'alpha'",
    "coalesce(current_setting('app.tenant', true), name) = name",
    "nullif(sm, 5) IS NULL",
    "nullif(name, '') IS NOT NULL",
    "nullif(current_setting('app.tenant', true), '') = name",
    "nullif(nullif(id, 1), 2) IS NULL",
    "greatest(id, sm) = 5",
    "least(id, sm, 3) = 3",
    "greatest(d, '2021-01-01') = '2021-01-01'",
    "greatest(owner, auth.uid()) = owner",
    "greatest(f8, 1) = 'NaN'",
    "least(num, 1.0) = 0",
    # casts
    "owner::text = '11111111-1111-4111-8111-111111111111'",
    "id::text = '1'",
    "id::text IN ('1', '2')",
    "ok::text = 'true'",
    "ok::int = 1",
    "id::bigint = 1",
    "num::text = '12.50' OR num::text = '12.500'",
    "f8::text = '0.1'",
    "d::text = '2020-01-02'",
    "c::text = 'ab'",
    "name::varchar(3) = 'alp'",
    "name::char(5) = 'alpha'",
    "n::text = 'ab'",
    "name::name = n",
    "tag::text = 'x y'",
    "sm::int::boolean",
    "id = '1'::text::int",
    "name = (auth.jwt() ->> 'five')",
    "id = (auth.jwt() ->> 'five')::int",
    "sm = (auth.jwt() -> 'five')::text::int",
    "tag = (auth.jwt() ->> 'sub')::varchar(3)",
    # session
    "name = current_user",
    "name = current_role OR n = current_user",
    "name = session_user::text OR ok",
    "user = 'authenticated'",
    "auth.role() = current_user",
    "owner = auth.uid() OR name = auth.role() OR id = 3",
    "(auth.jwt() ->> 'number')::numeric > 1 AND ok",
    "current_setting('app.tenant', true) IS NULL",
    "current_setting('app.tenant', true) <> ''",
    "length(current_setting('app.tenant', true)) = length(name)",
    "(SELECT auth.uid()) = owner AND (SELECT auth.role()) = 'authenticated'",
    "(SELECT auth.uid() IS NOT NULL)",
    "owner = (SELECT nullif(auth.uid(), '22222222-2222-4222-8222-222222222222'))",
    # texts
    "lower(name) = 'alpha'",
    "upper(tag) = 'ALPHA'",
    "length(name) > 5",
    "length(c) = 2",
    "name LIKE 'al%'",
    "name NOT LIKE '%a'",
    "name ILIKE 'AL%'",
    "tag LIKE '_ y'",
    "c LIKE 'ab%'",
    "c LIKE 'ab'",
    "name ~ '^al'",
    "name !~ 'a$'",
    "name || tag = 'authenticatedalpha'",
    "name || id = 'alpha1'",
    "split_part(tag, ' ', 2) = 'y'",
    "substr(name, 1, 2) = 'al'",
    "starts_with(name, 'al')",
    "strpos(name, 'l') = 2",
    "btrim(tag) = tag",
    "name COLLATE \"C\" < 'b'",
    "name < 'b' COLLATE \"C\"",
    "name COLLATE \"C\" = 'alpha'",
    "position('l' in name) > 0",
    "replace(tag, ' ', '') = 'xy'",
    "md5(name) = md5('alpha')",
    # dates and times, as of the change
    "tz < now()",
    "d < current_date",
    "d <= current_date - 7",
    "ts < localtimestamp",
    "tz < current_timestamp OR ok",
    "extract(year FROM ts) = 2020",
    "date_trunc('day', ts) = '2020-01-02'",
    "ts::date = d",
    # constants in the server's memory, and documents
    "id = ANY ('{1,2}')",
    "id = ANY ('{1,NULL}'::int[])",
    "id = ANY ('{}'::int[])",
    "id = ALL ('{}'::int[])",
    "id <> ALL ('{1,2}')",
    "id <> ALL ('{1,NULL}')",
    "arr @> '{}'",
    "arr && '{}'",
    "arr = '{a,b}'",
    "arr <> '{a,b}'",
    "tz > now() - interval '1 day'",
    "ts + interval '1 hour' > ts",
    "age(ts, ts) = interval '0'",
    "feeling = ANY ('{sad}'::mood[])",
    "(auth.jwt() ->> 'size')::size = 'big'",
    "(auth.jwt() ->> 'size')::size IN ('big', 'small') AND ok",
    "CASE (auth.jwt() ->> 'size')::size WHEN 'big' THEN ok ELSE true END",
    "coalesce((auth.jwt() ->> 'size')::size > 'small', ok)",
    "j ->> 'a' = '1'",
    "(j -> 'a')::int = 1",
    "j @> '{\"a\": 1}'",
    "j ? 'a'",
    "name = (auth.jwt() #>> '{app_metadata,owner}')",
    "owner::text = (auth.jwt() #>> '{app_metadata,owner}')",
    "id = ANY ((auth.jwt() ->> 'ids')::int[])",
    "id = ANY (translate('[\"1\", \"4\"]'::text, '[]\"', '{}')::int[])",
    "name = ANY (concat(' { NULL , a  , \"b c\" } ')::text[])",
    "jsonb_typeof(j) = 'object'",
    "j = '{\"a\": 1.0}'",
    "(auth.jwt() -> 'roles') ? name",
    "auth.jwt() -> 'app_metadata' ->> 'owner' = owner::text",
    "j IS NOT NULL AND j <> 'null'",
    "tz::date = d",
]

SETUP = """
CREATE TYPE size AS ENUM ('small', 'big');
ALTER TABLE w ADD nums int[], ADD uids uuid[];
UPDATE w SET feeling = 'sad', arr = '{a,b}', nums = '{5,NULL,1}', uids = ARRAY[owner], j = '{"a": 1}' WHERE id = 1;
UPDATE w SET feeling = 'glad', arr = '{}', nums = '{}', uids = ARRAY[owner, NULL] WHERE id = 2;
UPDATE w SET feeling = 'sad', arr = '{alpha,NULL,"x y"}', nums = '{0}', uids = '{}', j = 'null' WHERE id = 4;
UPDATE w SET arr = '{{a,b},{c,größe}}', nums = NULL WHERE id = 5;
UPDATE w SET arr = '[0:1]={b,z}', nums = '[2:3]={7,5}' WHERE id = 7;
INSERT INTO w (id, owner, name, tag, big, sm, f8) VALUES
    (8, '11111111-1111-4111-8111-111111111111', 'Alpha', E'x\\\\y', 99999999999, 8, '-Infinity');
"""

SUBJECTS = [
    Subject("authenticated"),
    Subject(
        "authenticated", {**CLAIMS, "feeling": "glad", "size": "big"}, {"app.tenant": "alpha", "app.ids": "2,5,"[:-1]}
    ),
    Subject("authenticated", {"sub": TWO}, {"app.tenant": "", "app.ids": "7", "session_authorization": "postgres"}),
    Subject("anon", {"sub": "no uuid", "five": "5", "feeling": "odd"}, {"app.tenant": "b", "app.ids": "x"}),
]


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET timezone = 'UTC'").format(sql.Identifier(connection.info.dbname))
        )
    with secured_table(database) as made:
        made.connection.execute(SETUP)
        made.read()
        made.connection.execute("GRANT SELECT ON w TO anon, authenticated")
        yield made


def test_each_row_is_judged_as_postgres_judges_it(table: Table) -> None:
    problems: list[str] = []
    shown = stricter = errors = 0
    for expression in EXPRESSIONS:
        table.policies([f"USING ({expression})"])
        rights = {role: table.rights(role) for role in ("anon", "authenticated")}
        decisions = [table.decide(subject, rights[subject.role]) for subject in SUBJECTS]
        for subject, decision in zip(SUBJECTS, decisions, strict=True):
            if decision.unsupported:
                problems.append(f"{expression}: {decision.unsupported[0].construct}")
                break
            whole = table.selected(subject)
            for row in table.rows:
                key = int(row[0] or 0)
                truth = table.asked(subject, key) if isinstance(whole, str) else key in whole
                outcome = decision.predicate.test(row)
                errors += truth is None
                shown += bool(truth)
                where = f"{expression} as {subject!r}, row {row[0]!r}: {outcome}, not {truth}: {decision.denied}"
                if (outcome == TRUE) > bool(truth):
                    problems.append(f"LEAK {where}")
                elif (outcome == TRUE) < bool(truth):
                    stricter += 1
                    if not (decision.denied or outcome & ERROR):
                        problems.append(f"DENIED {where}")
                elif truth is None and decision.denied is None and not outcome & ERROR:
                    problems.append(f"SILENT {where}")
        problems += [f"{expression}: {problem}" for problem in _faults(table, decisions)]
    assert not problems, "\n".join(problems)
    assert shown > 500 and errors > 100 and stricter < 30, (shown, errors, stricter)


def _faults(table: Table, decisions: list[Decision]) -> list[str]:
    predicates = [decision.predicate for decision in decisions]
    found = [fault for predicate in predicates for fault in (*_open(table, predicate), *_uncovered(table, predicate))]
    for one, two in combinations(predicates, 2):
        if one.key is not None and one.key == two.key:
            found += ["equal keys, other outcomes" for row in table.rows if one.test(row) != two.test(row)]
    return found


def _open(table: Table, predicate: Predicate) -> list[str]:
    """Whether the outcome without a cell leaves room for every value that the cell has in another row."""
    faults = []
    for row in table.rows:
        for column in predicate.columns:
            unsent = predicate.test([*row[:column], UNCHANGED, *row[column + 1 :]])
            for other in table.rows:
                outcome = predicate.test([*row[:column], other[column], *row[column + 1 :]])
                if outcome & ~unsent:
                    faults.append(
                        f"{table.relation.columns[column].name} unsent: {unsent}, with {other[column]!r} {outcome}"
                    )
    return faults


def _uncovered(table: Table, predicate: Predicate) -> list[str]:
    """Rows that the predicate shows and its cover does not find."""
    faults = []
    for row in table.rows:
        if predicate.cover is not None and predicate.test(row) == TRUE:
            found = set()
            for probe in {probe for probe, _ in predicate.cover}:
                cell = row[probe.column]
                if isinstance(cell, bytes):
                    value = cell if probe.read is None else probe.read(cell)
                    found |= {(probe, each) for each in (value if probe.elements else [value])}  # type: ignore[attr-defined]
            if not found & predicate.cover:
                faults.append(f"row {row[0]!r} is not covered")
    return faults


def test_indexes(table: Table) -> None:
    """Which conditions an index finds."""
    subject = SUBJECTS[1]
    for expression, index in {
        "owner = auth.uid()": "owner",
        "ok": "ok",
        "NOT ok": "ok",
        "ok IS TRUE": "ok",
        "id IN (1, 2)": "id",
        "owner IN (auth.uid(), NULL)": "owner",
        "id = ANY (string_to_array(current_setting('app.ids', true), ',')::int[])": "id",
        "feeling = 'sad'": "feeling",
        "dom = 5": "dom",
        "'a' = ANY (arr)": "an element of arr",
        "arr @> ARRAY['a']": "an element of arr",
        "ARRAY['a'] <@ arr": "an element of arr",
        "arr && ARRAY['a', 'z']": "an element of arr",
        "arr @> '{}'": None,
        "arr && '{}'": "no row",
        "auth.uid() = ANY (uids)": "an element of uids",
        "owner = auth.uid() OR ok": "ok, owner",
        "owner = auth.uid() AND 1 / id = 1": "owner",
        "owner <> auth.uid()": None,
        "NOT (owner = auth.uid())": None,
        "lower(name) = 'a'": None,
        "auth.uid() IS NULL": "no row",
    }.items():
        table.policies([f"USING ({expression})"])
        (policy,) = table.decide(subject).policies
        assert (policy.reason, policy.index) == (None, index), expression


def test_several_policies_are_evaluated_in_the_order_of_the_server(table: Table) -> None:
    """What raises hides the row only when it is reached."""
    fails, shows, hides = "USING (1 / (id - 3) > -5)", "USING (id = 3)", "USING (id <> 3)"
    for clauses in (
        [fails, shows],
        [shows, fails],
        [shows, f"AS RESTRICTIVE {fails}"],
        [fails, f"AS RESTRICTIVE {hides}"],
        ["USING (true)", f"AS RESTRICTIVE {fails}", f"AS RESTRICTIVE {hides}"],
        ["USING (true)", f"AS RESTRICTIVE {hides}", f"AS RESTRICTIVE {fails}"],
    ):
        table.policies(clauses)
        decision = table.decide(SUBJECTS[0])
        for row in table.rows:
            truth = table.asked(SUBJECTS[0], int(row[0] or 0))
            assert (decision.predicate.test(row) == TRUE) == bool(truth), f"{clauses} row {row[0]!r}: {truth}"


def test_an_error_of_a_row_has_a_reason_without_values(table: Table) -> None:
    table.policies(["USING (tag::numeric > 1 AND owner = auth.uid())"])
    decision = table.decide(SUBJECTS[1])
    (row,) = [row for row in table.rows if row[0] == b"1"]
    assert decision.predicate.test(row) == ERROR
    assert table.moment.problem is not None and table.moment.problem.startswith('policy "p0": ')
    assert "x y" not in table.moment.problem and ONE not in table.moment.problem
