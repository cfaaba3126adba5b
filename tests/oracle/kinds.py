"""Kinds of columns, and the edge values that their cells, the constants in policies and the claims are drawn from.

All three come from the same few values, so that comparisons are true often enough to tell something.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BY_FAMILY", "KINDS", "SETUP", "UUIDS", "WORDS", "Kind"]

SETUP = """
CREATE SCHEMA IF NOT EXISTS oracle;
GRANT USAGE ON SCHEMA oracle TO PUBLIC;
CREATE TYPE oracle.mood AS ENUM ('sad', 'glad');
ALTER TYPE oracle.mood ADD VALUE 'fair' BEFORE 'glad';
ALTER TYPE oracle.mood ADD VALUE 'awful' BEFORE 'sad';
CREATE DOMAIN oracle.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN oracle.plain AS text;
CREATE DOMAIN oracle.plainer AS oracle.plain CHECK (VALUE <> 'never');
CREATE DOMAIN oracle.ident AS uuid;
CREATE FUNCTION oracle.tenant() RETURNS text LANGUAGE sql STABLE AS $$ SELECT auth.jwt() ->> 'org' $$;
CREATE FUNCTION oracle.level() RETURNS int LANGUAGE sql STABLE RETURN (auth.jwt() ->> 'tenant')::int;
CREATE FUNCTION oracle.is_admin() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT coalesce((auth.jwt() ->> 'admin')::boolean, false) OR auth.role() = 'service_role'
$$;
CREATE FUNCTION oracle.who() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS $$ SELECT current_user::text $$;
CREATE FUNCTION oracle.me() RETURNS uuid LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT CASE WHEN oracle.is_admin() THEN NULL ELSE auth.uid() END;
END;
CREATE FUNCTION oracle.closed() RETURNS text LANGUAGE sql STABLE RETURN 'alpha';
REVOKE EXECUTE ON FUNCTION oracle.closed() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oracle.closed() TO authenticated, o_plain;
CREATE FUNCTION oracle.shown(query text, keys int[]) RETURNS TABLE (key int, problem text) LANGUAGE plpgsql AS $$
DECLARE
    seen int;
BEGIN
    FOREACH key IN ARRAY keys LOOP
        BEGIN
            seen := NULL;
            EXECUTE replace(query, '$key', '(' || key::text || ')') INTO seen;
            problem := NULL;
            CONTINUE WHEN seen IS NULL;
        EXCEPTION WHEN OTHERS THEN
            problem := SQLSTATE;
        END;
        RETURN NEXT;
    END LOOP;
END $$;
"""
"""What the tables and the questions lean on; applied once to each database."""

UUIDS = (
    "11111111-1111-4111-8111-111111111111",
    "22222222-2222-4222-8222-222222222222",
    "AAAAAAAA-bbbb-4CCC-8ddd-eeeeeeeeeeee",
    "00000000-0000-0000-0000-000000000000",
)
WORDS = (
    "alpha",
    "Alpha",
    "ALPHA",
    "alp",
    "",
    " ",
    "ab",
    "ab  ",
    "a_c",
    "a%c",
    "abc",
    "a\\c",
    "größe",
    "GRÖSSE",
    "é",
    "É",
    "ß",
    "İ",
    "\U0001d518nicode",
    "😀",
    "a\nb",
    "line\n",
    "x@example.org",
    "X@Example.org",
    "org/7/admin",
    "1",
    "7",
    "-5",
    "1.50",
    "true",
    "t",
    "authenticated",
    "anon",
    "o_plain",
    "o_group",
    "null",
    "NaN",
    "2024-02-29",
    UUIDS[0],
    '{"a": 1}',
    "{}",
    "[1]",
    "a,b",
    "'",
    '"',
    "long" * 2250,
)
_SHORT = tuple(word for word in WORDS if len(word) <= 20)
_ORDINARY = ("alpha", "ab", "ab  ", "", "7", "x y", "ABC", "a%", "zz")
_DATES = (
    "2024-02-29",
    "2024-03-01",
    "1999-12-31",
    "2000-01-01",
    "0001-01-01",
    "0044-03-15 BC",
    "9999-12-31",
    "12020-01-02",
)
_TIMES = (
    "2024-02-29 12:30:00",
    "2024-02-29 00:00:00",
    "2000-01-01 00:00:00",
    "1999-12-31 23:59:59.999999",
    "9999-12-31 23:59:59",
    "2024-03-31 02:30:00",
    "0044-03-15 12:00:00 BC",
    "12020-01-02 03:04:05.678",
    "infinity",
    "-infinity",
    "2030-06-01 12:00:00",
    "1900-01-01 00:00:00",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type as a column has it.

    Attributes:
        name: the type, as CREATE TABLE takes it.
        family: the name that templates call its values by.
        texts: edge values in text form.
        cast: the type to which constants are cast.
        suffix: what stands behind the type of a column, such as a collation.
        weight: how often it is drawn.
    """

    name: str
    family: str
    texts: tuple[str, ...]
    cast: str = ""
    suffix: str = ""
    weight: int = 2


KINDS = [
    Kind("uuid", "uuid", UUIDS, weight=5),
    Kind("oracle.ident", "uuid", UUIDS, "uuid", weight=1),
    Kind("text", "text", WORDS, weight=5),
    Kind("varchar(20)", "text", _SHORT, "varchar"),
    Kind("varchar", "text", WORDS, "varchar", weight=1),
    Kind("text", "text", WORDS, suffix=' COLLATE "C"'),
    Kind("text", "text", WORDS, suffix=' COLLATE "C.utf8"', weight=1),
    Kind("oracle.plain", "text", WORDS, "text", weight=1),
    Kind("oracle.plainer", "text", WORDS, "text", weight=1),
    Kind("char(6)", "bpchar", _ORDINARY, "bpchar"),
    Kind("name", "name", ("alpha", "ab", "", "authenticated", "o_plain", "o_group", "postgres", "é"), weight=1),
    Kind("boolean", "bool", ("true", "false"), weight=4),
    Kind("smallint", "int", ("0", "1", "-1", "7", "32767", "-32768"), weight=1),
    Kind("integer", "int", ("0", "1", "-1", "7", "2", "42", "2147483647", "-2147483648"), weight=5),
    Kind("oracle.positive", "int", ("1", "2", "7", "2147483647"), "int", weight=1),
    Kind("bigint", "int", ("0", "1", "-1", "7", "4294967301", "9223372036854775807", "-9223372036854775808"), weight=3),
    Kind("oid", "oid", ("0", "1", "7", "4294967295"), weight=1),
    Kind(
        "numeric",
        "numeric",
        (
            "0",
            "1",
            "1.0",
            "1.50",
            "1.5",
            "-5",
            "7",
            "0.00",
            "1e-20",
            "NaN",
            "123456789012345678901234567890.1",
            "-0.5",
            "2.5",
            "100",
        ),
        weight=3,
    ),
    Kind("numeric(8,2)", "numeric", ("0", "1", "1.50", "-5", "7", "999999.99", "NaN", "0.01"), "numeric"),
    Kind(
        "real",
        "float",
        ("0", "-0", "1", "1.5", "0.1", "NaN", "Infinity", "-Infinity", "3.4e38", "1e-40", "7"),
        weight=1,
    ),
    Kind(
        "double precision",
        "float",
        ("0", "-0", "1", "1.5", "0.1", "NaN", "Infinity", "-Infinity", "1.7e308", "5e-324", "7", "9007199254740993"),
    ),
    Kind("date", "date", (*_DATES, "infinity", "-infinity", "2030-06-01")),
    Kind("timestamp", "timestamp", _TIMES),
    Kind("timestamptz", "timestamptz", (*_TIMES, "2024-02-29 12:30:00+02", "2024-02-29 23:30:00-11"), weight=3),
    Kind("time", "time", ("00:00:00", "12:30:00", "23:59:59.999999", "24:00:00"), weight=1),
    Kind("timetz", "timetz", ("00:00:00+00", "12:30:00+02", "10:30:00+00", "24:00:00-12"), weight=1),
    Kind(
        "interval",
        "interval",
        (
            "0",
            "1 day",
            "24:00:00",
            "1 mon",
            "30 days",
            "-1 day",
            "1 year 2 mons 3 days 04:05:06.789",
            "720:00:00",
            "-00:00:01",
        ),
        weight=1,
    ),
    Kind("bytea", "bytea", ("\\x", "\\x00", "\\x6162", "\\xff", "ab", "abc\\000"), weight=1),
    Kind("oracle.mood", "mood", ("awful", "sad", "fair", "glad"), weight=2),
    Kind("inet", "inet", ("10.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "::1", "192.168.1.5", "::ffff:10.0.0.1"), weight=1),
    Kind("cidr", "cidr", ("10.0.0.0/8", "::1/128", "192.168.1.0/24"), weight=1),
    Kind("macaddr", "macaddr", ("08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"), weight=1),
    Kind("money", "money", ("0", "1.50", "-5", "92233720368547758.07"), weight=1),
    Kind("bit(4)", "bit", ("0000", "1010", "1111"), "bit(4)", weight=1),
    Kind("varbit", "varbit", ("", "0", "1010", "10101010101"), weight=1),
    Kind(
        "jsonb",
        "jsonb",
        (
            "{}",
            "[]",
            "null",
            "1",
            '"a"',
            '{"a": 1}',
            '{"a": 1.0, "b": null}',
            '{"a": {"b": [1, 2, "x"]}, "org": "alpha"}',
            '["a", "b", 1]',
            '{"tenant": 7, "tags": ["alpha", "ab"], "admin": true}',
            '{"tenant": "7", "admin": "true"}',
            '{"owner": "11111111-1111-4111-8111-111111111111", "level": 1e3}',
            '{"a": "größe😀", "": 1}',
            '{"a": 1, "a": 2}',
            '{"b": 2, "aa": 1}',
            "true",
            "-0",
            '[[1, 2], {"x": []}]',
            '{"when": "2024-02-29T12:30:00Z", "n": -0.0}',
        ),
        weight=4,
    ),
    Kind(
        "json",
        "json",
        ("{}", '{"a": 1}', '{"a": 1.50, "a": "two"}', '{"org": "alpha", "tenant": 7}', "[1]", '"a"', "null"),
        weight=1,
    ),
    Kind(
        "text[]",
        "texts",
        ("{}", "{alpha}", "{alpha,ab,NULL}", "{NULL}", '{"",größe}', "{{a,b},{c,d}}", "[2:3]={alpha,ab}"),
        weight=3,
    ),
    Kind("integer[]", "ints", ("{}", "{1}", "{1,7,NULL}", "{NULL}", "{7,7,2}", "{{1,2},{3,4}}", "[0:1]={1,7}")),
    Kind("uuid[]", "uuids", ("{}", f"{{{UUIDS[0]}}}", f"{{{UUIDS[0]},{UUIDS[1].upper()},NULL}}", "{NULL}")),
    Kind("oracle.mood[]", "moods", ("{}", "{sad}", "{glad,awful,NULL}"), weight=1),
    Kind("numeric[]", "numerics", ("{}", "{1.0,1.5}", "{1,NaN}"), weight=1),
    Kind("int4range", "int4range", ("empty", "[1,7)", "[1,)", "(,0]"), weight=1),
]

BY_FAMILY: dict[str, list[Kind]] = {}
for _kind in KINDS:
    BY_FAMILY.setdefault(_kind.family, []).append(_kind)
