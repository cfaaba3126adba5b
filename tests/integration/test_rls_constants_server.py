"""Constants as the server writes them into node trees: read, they print as the server prints them."""

from __future__ import annotations

from datetime import UTC

import psycopg
import pytest

from cdc.catalog import load_types
from cdc.operators import Context, Datums
from cdc.rls.constants import constant_datum
from cdc.rls.constructs import NotSupported, Scope
from cdc.rls.nodes import Node, read
from cdc.values import Types
from tests.rls_trees import relation, rights

LITERALS = {
    "boolean": ["t", "f"],
    "smallint": ["-32768", "7"],
    "integer": ["-1", "2147483647"],
    "bigint": ["-9223372036854775808", "1"],
    "oid": ["4294967295"],
    "real": ["0.1", "-0", "NaN", "Infinity", "1e-45"],
    "double precision": ["0.1", "5e-324", "-Infinity", "123456789.123456789"],
    "numeric": [
        *("0", "0.00", "-0.0", "1.50", "1e50", "-1e-20", "NaN", "12345678901234567890.123", "1e130000"),
        *("0.0001", "10000", "1e-16383", "100000000", "Infinity"),
    ],
    "text": ["", "a", "größe 😀", "x" * 9000, "a\\b\"c'"],
    "varchar(5)": ["abc  "],
    "char(5)": ["ab", ""],
    "name": ["wells", "x" * 63],
    "uuid": ["8fac1234-0000-4000-8000-00000000000a"],
    "bytea": ["", "\\x00ff7e"],
    "date": ["2024-02-29", "0044-03-15 BC", "infinity", "-infinity", "5874897-12-31"],
    "time": ["12:34:56.7", "24:00:00"],
    "timetz": ["12:00:00+05", "23:59:59.5-05:30"],
    "timestamp": ["2024-01-02 03:04:05.6", "infinity", "0044-03-15 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["2024-01-02 03:04:05.000006+05:30", "-infinity", "0044-03-15 12:00+00 BC"],
    "interval": ["1 year 2 mons -3 days 04:05:06.789", "0", "-00:00:00.5"],
    "jsonb": [
        *("1", "-0.50", '"x"', "null", "true", "[]", "{}", '[1, "a", null, true, false, [2.50, {}]]'),
        *('{"a": {"b": [1e3]}}', '{"a": 0.0}', '[{"a": 1}, 1000000, "x", 1.0e-5, {"b": [{"c": null}]}]'),
        '{"zz": 1, "b": "größe", "": [[]], "long": "' + "y" * 3000 + '"}',
        "[" + "1.25, " * 200 + "1e100]",
    ],
    "json": ['{"a" : [1, 2.50]}'],
    "integer[]": ["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={1,2}", "{NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,9}"],
    "smallint[]": ["{1,2,3}"],
    "bigint[]": ["{1,NULL,3}"],
    "boolean[]": ["{t,f,NULL}"],
    "text[]": [
        *('{a,"b c","NULL",NULL,"",größe,"x,y","\\"q\\\\"}', "{{a,bb},{ccc,dddd}}", "{" + "x" * 59 + ",a}"),
        "{" + ",".join("y" * n for n in range(1, 70)) + "}",
    ],
    "varchar[]": ["{a,b}"],
    "uuid[]": ["{8fac1234-0000-4000-8000-00000000000a,NULL}"],
    "numeric[]": ["{1.50,NULL,-2,NaN}"],
    "date[]": ["{2024-01-02,infinity}"],
    "timestamptz[]": ["{2024-01-02 03:04+05}"],
    "jsonb[]": ['{"{\\"a\\": 1}","[]",NULL}'],
    "mood": ["sad", "Sehr froh", "ok"],
    "mood[]": ["{sad,NULL,ok}"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1", "2001:db8::1/64"],
    "cidr": ["10.0.0.0/8", "::/0", "10.0.0.1/32"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "bit(3)": ["101"],
    "varbit": ["", "10", "1010101011"],
}
PRINTED = {"char(5)": "bpchar", "bit(3)": "varbit"}
TREES = "SELECT adbin::text FROM pg_attrdef WHERE adrelid = 'constants'::regclass ORDER BY adnum"
ENUM = "CREATE TYPE mood AS ENUM ('sad', 'Sehr froh'); ALTER TYPE mood ADD VALUE 'ok' BEFORE 'Sehr froh'"


def trees(connection: psycopg.Connection, kind: str, literals: list[str]) -> list[Node]:
    """The CONST nodes of literals."""
    quoted = [literal.replace("'", "''") for literal in literals]
    columns = ", ".join(f"c{number} {kind} DEFAULT '{literal}'" for number, literal in enumerate(quoted))
    connection.execute(f"DROP TABLE IF EXISTS constants; CREATE TABLE constants ({columns})")  # type: ignore[arg-type]
    return [constant(read(tree)) for (tree,) in connection.execute(TREES)]


def constant(node: Node) -> Node:
    """The constant below a cast to a length, if there is one."""
    while node.tag != "CONST":
        node = node.nodes("args")[0] if node.tag == "FUNCEXPR" else node.node("arg")
    return node


@pytest.mark.parametrize("kind", LITERALS)
def test_constants_of_node_trees_are_read(database: str, kind: str) -> None:
    with psycopg.connect(database, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute(ENUM)
        types = Types()
        (oid,) = connection.execute("SELECT %s::regtype::oid", (kind,)).fetchone() or (0,)
        types.add(load_types(connection, types.missing([oid])))
        datums, scope = Datums(types), Scope(rights(), relation(), types)
        nodes = trees(connection, kind, LITERALS[kind])
        for literal, node in zip(LITERALS[kind], nodes, strict=True):
            query = f"SELECT format('%%s', %s::{PRINTED.get(kind, kind)})"
            (printed,) = connection.execute(query, (literal,)).fetchone() or ("",)  # type: ignore[arg-type]
            if datums.reader(oid) is None:
                with pytest.raises(NotSupported):
                    constant_datum(node, scope, datums)
                continue
            output = datums.output(oid)
            assert output is not None
            assert output(Context(zone=UTC), constant_datum(node, scope, datums)) == printed, literal
