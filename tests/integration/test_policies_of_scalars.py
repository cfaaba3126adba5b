"""Policies that compute with numbers, dates, times and enums: the rows that they show are those that Postgres shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc.catalog import load_types
from cdc.predicate import TRUE
from cdc.rls import Subject
from tests.rls_table import ONE, Table, secured_table

MORE = """
ALTER TABLE w ADD since interval, ADD clock time, ADD net inet, ADD bits varbit, ADD raw bytea;
UPDATE w SET (feeling, since, clock, net, bits, raw) =
    (new.f::mood, new.s::interval, new.t::time, new.a::inet, new.b::varbit, new.r::bytea)
FROM (VALUES
    (1, 'sad', '1 day', '08:30', '10.0.0.1', '101', 'ab'),
    (2, 'glad', '24:00:00', '24:00', '10.0.0.0/8', '', ''),
    (4, 'calm', '1 mon', '00:00', '::1', '1010', '\\x00ff'),
    (5, 'calm', '-1 year', '23:59:59.5', '2001:db8::/32', '0', 'a')
) AS new (id, f, s, t, a, b, r) WHERE w.id = new.id;
INSERT INTO w (id, tz, ts, d, num, f8) VALUES
    (20, now() - interval '1 hour', localtimestamp - interval '1 hour', current_date, 1, 1),
    (21, now() + interval '1 hour', localtimestamp + interval '1 hour', current_date + 1, 2, 2),
    (22, now() - interval '8 days', localtimestamp - interval '8 days', current_date - 8, 3, 3),
    (23, '2024-03-10 06:59:59+00', '2024-03-10 02:30', '2024-03-10', 10, 10),
    (24, '2024-11-03 05:30+00', '2024-11-03 01:30', '2024-11-03', 100, 0.5);
"""

EXPRESSIONS = [
    "tz > now() - interval '7 days'",
    "tz <= now()",
    "tz BETWEEN now() - interval '2 hours' AND now()",
    "ts > localtimestamp - interval '7 days' AND ts < 'infinity'",
    "d = current_date OR d = current_date + 1",
    "d >= current_date - 30",
    "current_date - d < 10",
    "date_trunc('day', tz) = date_trunc('day', now())",
    "date_trunc('month', ts) = '2024-03-01'",
    "extract(year FROM d) = 2024",
    "extract(hour FROM tz) BETWEEN 1 AND 8",
    "extract(epoch FROM tz) > 1700000000",
    "date_part('dow', ts) = 0",
    "tz::date = d",
    "ts::timestamptz = tz",
    "ts = tz",
    "d < tz",
    "tz + interval '1 day' > '2024-03-11 06:00+00' AND tz < '2024-12-01'",
    "(tz AT TIME ZONE 'Europe/Berlin')::date = '2024-11-03'",
    "(ts AT TIME ZONE 'UTC') < '2024-06-01+00'",
    "age(now(), tz) > interval '1 month'",
    "tz = to_timestamp(1730611800)",
    "d = make_date(2024, 3, 10)",
    "isfinite(d) AND d > '2020-01-01'",
    "now() < tz",
    "since = interval '1 day'",
    "since > interval '29 days'",
    "since * 2 >= interval '2 days'",
    "-since > interval '0'",
    "make_interval(0, 0, 0, id, 0, 0, 0) > since",
    "clock > '08:00' AND clock <= '24:00'",
    "clock + interval '1 hour' < '10:00'",
    "feeling > 'sad'",
    "feeling < 'glad'",
    "feeling BETWEEN 'calm' AND 'glad'",
    "feeling = 'calm' OR feeling IS NULL AND id = 3",
    "num / 3 > 3.3333",
    "num % 2 = 1",
    "round(num, 1) = 12.5",
    "num::int = 13 OR num::int = 1",
    "f8::int = 2",
    "f8 / 0 > 1",
    "100 / id > 20",
    "100 / (id - 4) > 20",
    "id / 0 = 1",
    "big * 1000000000000 > 0",
    "sm + 32765 > 0",
    "abs(num) > 10 OR sign(num) < 0",
    "sqrt(f8) > 1",
    "round(num) = 13 OR trunc(num) = 12",
    "d + clock > '2020-01-01'",
    "power(id, 2) > 10 OR id = 1",
    "f4 = f8",
    "f4 < num",
    "(f8 - 0.25) * 4 = 5",
    "id & 1 = 1",
    "id << 2 > 12",
    "mod(id, 2) = 0 AND id::text = '2'",
    "num::text = '12.50' OR num::text = '12.500' OR num::text LIKE '%5'",
    "tz::text LIKE '2024-%'",
    "d::text = '2024-03-10' OR d::text = 'infinity' OR d::text LIKE '%BC'",
    "since::text = '1 mon' OR clock::text = '24:00:00'",
    "tag::numeric > 1",
    "name::int = 5",
    "n::text::boolean",
    "net << '10.0.0.0/7'",
    "net > '10.0.0.0'",
    "family(net) = 6",
    "host(net) = '10.0.0.1'",
    "bits > B'1'",
    "length(bits) = 4",
    "raw >= 'ab' OR raw = '\\x00ff'",
    "octet_length(raw) = 2",
    "owner > '11111111-1111-4111-8111-111111111111'",
    "greatest(num, f8::numeric) > 50",
    "(ts, ts + interval '1 hour') OVERLAPS (timestamp '2024-03-10 03:00', interval '1 day')",
    "id = current_setting('app.id')::int + 1",
    "tz < current_setting('app.before')::timestamptz",
    "d < current_setting('app.before')::date",
    "tz > now() - current_setting('app.window')::interval",
    "num > current_setting('app.least')::numeric",
]


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    with secured_table(database) as made:
        made.connection.execute("ALTER TYPE mood ADD VALUE 'calm' BEFORE 'glad'")
        feeling = next(column.type_oid for column in made.relation.columns if column.name == "feeling")
        made.types.add(load_types(made.connection, [feeling]))
        made.connection.execute(MORE)
        made.connection.execute("GRANT SELECT ON w TO authenticated")
        made.read()
        yield made


@pytest.mark.parametrize("zone", ["America/New_York", "UTC"])
def test_policies_show_what_postgres_shows(table: Table, zone: str) -> None:
    """Every row: shown here and there, or neither; where Postgres raises for it, it is not shown."""
    settings = {"app.id": "4", "app.before": "2024-03-10 03:00", "app.window": "8 days 1 minute", "app.least": "2.0"}
    subject = Subject("authenticated", {"sub": ONE}, settings | {"TimeZone": zone})
    shown, refused = 0, []
    for expression in EXPRESSIONS:
        table.policies([f"USING ({expression})"])
        decision = table.decide(subject)
        if decision.unsupported or decision.denied is not None:
            refused.append((expression, decision.unsupported, decision.denied))
            continue
        for row in table.rows:
            key = int(row[0] or 0)
            asked = table.asked(subject, key)
            ours = decision.predicate.test(row) == TRUE
            assert ours == (asked is True), (expression, key, asked, table.moment.problem)
            shown += ours
    assert not refused
    assert shown > 150
