"""One wide row through a slot, in text and in binary form: what PostgreSQL stores equals what Python sees.

Each case is a type, a literal and the value that Python is to see. Infinite intervals exist since version 17, and xml
where the server was built with it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from itertools import chain
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.jsonable import jsonable
from cdc.testing import Sandbox
from cdc.values import BoundedArray, Interval, Types
from cdc.values.builtin import ARRAYS as BUILTIN_ARRAYS
from cdc.values.builtin import SCALARS

D = Decimal
NAN, INFINITE = float("nan"), float("inf")
_COLUMNS = 40
EVERY_BYTE = bytes(range(256))

USERS_TYPES = """
CREATE EXTENSION hstore; CREATE EXTENSION citext;
CREATE SCHEMA shop; CREATE SCHEMA "Odd Shop";
CREATE TYPE mood AS ENUM ('sad', 'Sehr froh', 'with "quotes", and comma', '');
CREATE DOMAIN shop.year AS smallint CHECK (VALUE > 0);
CREATE DOMAIN leap AS shop.year;
CREATE DOMAIN tags AS text[];
CREATE TYPE pair AS (x int, y text);
CREATE TYPE nothing AS ();
CREATE TYPE single AS (z numeric);
CREATE TYPE "Odd Shop"."Odd Type" AS ("A b" pair, moods mood[], "when" timestamptz, pairs pair[],
    doc jsonb, r tstzrange);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TYPE words AS RANGE (subtype = text, collation = "C");
CREATE TYPE leaps AS RANGE (subtype = leap);
CREATE DOMAIN path_of_pairs AS pair[];
CREATE TYPE deep AS (spans span[], inside path_of_pairs, many tstzmultirange);
CREATE DOMAIN deeper AS deep;
CREATE TABLE things (id int, gone text, name text);
ALTER TABLE things DROP COLUMN gone;
ALTER TYPE pair ADD ATTRIBUTE gone int;
ALTER TYPE pair DROP ATTRIBUTE gone;
"""


@dataclass(frozen=True)
class Case:
    """A type, a literal, and what Python is to see; `binary` is what it sees in binary form, if that is another."""

    type: str
    literal: str
    value: object
    binary: object = None


def cases(type_name: str, *pairs: tuple[str, object]) -> list[Case]:
    return [Case(type_name, literal, value) for literal, value in pairs]


def texts(type_name: str, *literals: str) -> list[Case]:
    """Values that are seen as they are written."""
    return [Case(type_name, literal, literal) for literal in literals]


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def zone(**parts: int) -> timezone:
    return timezone(timedelta(**parts))


NUMBERS = [
    *cases("boolean", ("true", True), ("false", False)),
    *cases("smallint", ("-32768", -32768), ("32767", 32767), ("0", 0)),
    *cases("integer", ("-2147483648", -(2**31)), ("2147483647", 2**31 - 1)),
    *cases("bigint", ("-9223372036854775808", -(2**63)), ("9223372036854775807", 2**63 - 1)),
    *cases("oid", ("4294967295", 2**32 - 1), ("0", 0)),
    *cases("real", ("0.1", 0.1), ("-0", -0.0), ("NaN", NAN), ("Infinity", INFINITE), ("-Infinity", -INFINITE)),
    *cases("real", ("1e-45", 1e-45), ("3.4028235e38", 3.4028235e38), ("16777217", 16777216.0), ("1e10", 1e10)),
    *cases("real", ("1.17549435e-38", 1.1754944e-38), ("123456.789", 123456.79), ("8388608", 8388608.0)),
    *cases("double precision", ("0.1", 0.1), ("-0", -0.0), ("NaN", NAN), ("Infinity", INFINITE), ("5e-324", 5e-324)),
    *cases("double precision", ("1.7976931348623157e308", 1.7976931348623157e308), ("1e23", 1e23), ("1e15", 1e15)),
    *cases("numeric", ("1.500", D("1.500")), ("0", D("0")), ("0.00", D("0.00")), ("-0.0000012300", D("-0.0000012300"))),
    *cases("numeric", ("NaN", D("NaN")), ("Infinity", D("Infinity")), ("-Infinity", D("-Infinity"))),
    *cases(
        "numeric", ("1e50", D("1" + "0" * 50)), ("10000.00010000", D("10000.00010000")), ("-99999999", D("-99999999"))
    ),
    *cases("numeric", ("1e-20", D("0.00000000000000000001")), ("1" * 400 + ".5", D("1" * 400 + ".5"))),
    *cases("numeric", ("1e131071", D("1" + "0" * 131071)), ("1e-16383", D("0." + "0" * 16382 + "1"))),
    *cases("numeric(10,3)", ("2.5", D("2.500")), ("0", D("0.000"))),
    Case("money", "-1234.50", "-$1,234.50", -123450),
]

TEXTS = [
    *texts("text", "", " naïve ☃ ", "a\\b\"c'\n\t", "NULL", "\\x00", "𝄞"),
    *texts("varchar(5)", "abc  ", ""),
    *cases("char(5)", ("ab", "ab   "), ("", "     "), ("äöü", "äöü  ")),
    *texts("name", "wells", "x" * 63),
    *cases('"char"', ("d", "d"), ("", ""), ("é", "\\303"), ("\\", "\\")),
    *texts("citext", "MiXed", ""),
    *texts("mood", "sad", "Sehr froh", 'with "quotes", and comma', ""),
    *cases("bytea", ("\\x" + EVERY_BYTE.hex(), EVERY_BYTE), ("", b""), ("\\x5c78", b"\\x"), ("a\\000b", b"a\x00b")),
    *cases("uuid", ("8FAC1234-0000-4000-8000-00000000000A", UUID("8fac1234-0000-4000-8000-00000000000a"))),
    *cases("uuid", ("0" * 32, UUID(int=0)), ("f" * 32, UUID(int=2**128 - 1))),
    *texts("bit(3)", "101"),
    *texts("bit(8)", "00000001"),
    *texts("varbit", "", "1", "000000001", "1111111111111111"),
]

TIMES = [
    *cases(
        "date", ("2024-02-29", date(2024, 2, 29)), ("0001-01-01", date(1, 1, 1)), ("9999-12-31", date(9999, 12, 31))
    ),
    *texts("date", "infinity", "-infinity", "0001-12-31 BC", "4713-01-01 BC", "10000-01-01", "5874897-12-31"),
    *texts("date", "0044-03-15 BC", "0005-02-29 BC", "0400-02-28 BC", "0401-02-29 BC", "12000-02-29"),
    *cases("time", ("12:34:56.7", time(12, 34, 56, 700000)), ("00:00", time(0)), ("24:00", "24:00:00")),
    *cases("time", ("23:59:59.999999", time(23, 59, 59, 999999))),
    *cases("timetz", ("12:00:00+05", time(12, tzinfo=zone(hours=5))), ("00:00Z", time(0, tzinfo=UTC))),
    *cases("timetz", ("23:59:59.999999-05:30", time(23, 59, 59, 999999, zone(hours=-5, minutes=-30)))),
    *cases("timetz", ("01:02:03.5+15:59:59", time(1, 2, 3, 500000, zone(hours=15, minutes=59, seconds=59)))),
    *texts("timetz", "24:00:00+00", "24:00:00-05:30", "24:00:00+00:00:07"),
    *cases("timestamp", ("2024-01-02 03:04:05.6", datetime(2024, 1, 2, 3, 4, 5, 600000)), ("0001-01-01", datetime.min)),
    *cases("timestamp", ("9999-12-31 23:59:59.999999", datetime.max), ("1999-12-31", datetime(1999, 12, 31))),
    *texts("timestamp", "infinity", "-infinity", "0044-03-15 00:00:00 BC", "294276-12-31 23:59:59.999999"),
    *texts("timestamp", "4713-11-24 00:00:00 BC", "0001-12-31 23:59:59.999999 BC", "10000-01-01 00:00:00.1"),
    *cases("timestamptz", ("2024-01-02 03:04:05.000006+05:30", at(2024, 1, 1, 21, 34, 5, 6))),
    *cases("timestamptz", ("2024-07-01 12:00 Europe/Zurich", at(2024, 7, 1, 10)), ("0001-01-01 00:00Z", at(1, 1, 1))),
    *texts("timestamptz", "infinity", "-infinity", "0044-03-15 12:00:00.5+00 BC", "12345-01-01 00:00:00+00"),
    *cases("interval", ("1 year 2 mons 3 days 04:05:06.7", Interval(14, 3, 14_706_700_000)), ("0", Interval())),
    *cases("interval", ("-1 year +3 days -04:05:06", Interval(-12, 3, -14_706_000_000)), ("1 mon", Interval(1))),
    *cases("interval", ("-14 mons 1 day", Interval(-14, 1)), ("26:00:00.000001", Interval(0, 0, 93_600_000_001))),
    *cases(
        "interval", ("-1 day 25 hours", Interval(0, -1, 90_000_000_000)), ("-0.5 seconds", Interval(0, 0, -500_000))
    ),
    *cases("interval", ("1000000 years 2000000000 days", Interval(12_000_000, 2_000_000_000))),
    *cases("interval(0)", ("1 day 00:00:01.6", Interval(0, 1, 2_000_000))),
]

INFINITE_INTERVALS = texts("interval", "infinity", "-infinity")

BIG = "123456789012345678901234567890"
DOCUMENTS = [
    *cases("json", ('{"a": [1, 2.5, null, true, "\\u00e9"]}', {"a": [1, 2.5, None, True, "é"]}), ("null", None)),
    *cases("json", ("  [ ]  ", []), ('"x"', "x"), (f"[{BIG}, 1e400, 1e-400]", [int(BIG), D("1e400"), D("1e-400")])),
    *cases(
        "json",
        ("[0.1, 1.10, -0, 1E5]", [0.1, 1.1, 0, 1e5]),
        ("[12345678901234567890.5]", [D("12345678901234567890.5")]),
    ),
    *cases("jsonb", ('{"b": 1, "a": {}}', {"a": {}, "b": 1}), ("1.50", 1.5), ("1e400", 10**400), ("1.00", 1.0)),
    *cases("jsonb", (f"[{BIG}.1, 0.1]", [D(f"{BIG}.1"), 0.1]), ("1" * 5000, D("1" * 5000)), ("[1e-7]", [1e-7])),
    *texts("jsonpath", '$."a"[*]?(@ > 1)'),
]
XML = texts("xml", "<a>ü</a>", '<?xml version="1.0" standalone="yes"?><a/>', '<?xml version="1.1"?><a/>', "a<b/>c")

NETWORKS = [
    *cases("inet", ("10.0.0.1", ip_address("10.0.0.1")), ("10.0.0.1/8", ip_interface("10.0.0.1/8"))),
    *cases("inet", ("::1", ip_address("::1")), ("2001:db8::7/64", ip_interface("2001:db8::7/64"))),
    *cases("inet", ("::ffff:1.2.3.4", ip_address("::ffff:1.2.3.4")), ("0.0.0.0/0", ip_interface("0.0.0.0/0"))),
    *cases("cidr", ("10.0.0.0/8", ip_network("10.0.0.0/8")), ("10.1.2.3", ip_network("10.1.2.3/32"))),
    *cases("cidr", ("2001:db8::/32", ip_network("2001:db8::/32")), ("::/0", ip_network("::/0"))),
    *texts("macaddr", "08:00:2b:01:02:03"),
    *texts("macaddr8", "08:00:2b:ff:fe:01:02:03"),
]

GEOMETRY = [
    *texts("point", "(1,2)", "(-0,1e+15)", "(0.1,1e-05)", "(NaN,Infinity)", "(123456789.12345679,100000000000000)"),
    *texts("point", "(0.0001,1.2345678901234567e+19)", "(5e-324,-1.7976931348623157e+308)", "(1e+22,3)"),
    *cases("point", ("(1e23,9007199254740993)", "(9.999999999999999e+22,9.007199254740992e+15)")),
    *texts("lseg", "[(1,2),(3,4)]"),
    *texts("box", "(1,1),(0,0)"),
    *texts("path", "((0,0),(1,1),(2,0))", "[(0,0),(1,1)]"),
    *texts("polygon", "((0,0),(1,1),(2,0))"),
    *texts("line", "{1,-1,0.5}"),
    *texts("circle", "<(1,2),3.5>"),
]

SEARCHES = [
    *texts("tsvector", "", "'a':1A,3C 'b''c':2B,16383 'd\\\\e':4", "'fat' 'naïve' 'rat'"),
    *texts(
        "tsquery", "", "'a'", "'a' & 'b'", "( 'a' | 'b' ) & !'c'", "'a' <-> 'b' <3> 'c'", "'it''s':*AB | 'd\\\\e':D"
    ),
    *texts("tsquery", "!( 'a' & 'b' )", "!!'a'", "'a' <-> ( 'b' <-> 'c' )", "( 'a' | 'b' ) <-> 'c'", "'a' & 'b' | 'c'"),
    *cases("tsquery", (" & ".join(f"w{n}" for n in range(150)), " & ".join(f"'w{n}'" for n in range(150)))),
    *cases("tsquery", ("(" * 40 + "a" + " | b) & c" * 40, "( " * 39 + "( 'a' | 'b' ) & 'c'" + " | 'b' ) & 'c'" * 39)),
]

INTERNALS = [
    *texts("xid", "4294967295"),
    *texts("cid", "7"),
    *texts("xid8", "18446744073709551615"),
    *texts("tid", "(4294967295,65535)", "(0,1)"),
    *texts("pg_lsn", "16/B374D848", "0/0", "FFFFFFFF/FFFFFFFF"),
    *texts("pg_snapshot", "10:20:10,14,15", "10:10:"),
    *texts("txid_snapshot", "10:20:10,14,15"),
    *texts("int2vector", "1 -2 3", ""),
    *texts("oidvector", "1 4294967295"),
    *texts("refcursor", "a cursor"),
    *[Case(name, text, text, oid) for name, text, oid in [("regclass", "pg_class", 1259), ("regtype", "integer", 23)]],
    Case("regnamespace", "pg_catalog", "pg_catalog", 11),
    Case("hstore", 'a=>1, "b c"=>NULL', '"a"=>"1", "b c"=>NULL', b"\x00\x00\x00\x02\x00\x00\x00\x01a\x00\x00\x00\x011"
         b"\x00\x00\x00\x03b c\xff\xff\xff\xff"),
    Case("aclitem", "=r/postgres", "=r/postgres"),
]  # fmt: skip

ARRAYS = [
    *cases("int[]", ("{}", []), ("{1,NULL,-3}", [1, None, -3]), ("{{1,2},{3,NULL}}", [[1, 2], [3, None]])),
    *cases("int[]", ("[0:1]={1,2}", BoundedArray([1, 2], (0,))), ("{{{{{{7}}}}}}", [[[[[[7]]]]]])),
    *cases("int[]", ("[-2:-2][1:2]={{7,8}}", BoundedArray([[7, 8]], (-2, 1))), ("[1:2]={1,2}", [1, 2])),
    *cases("text[]", ('{a,"b c","NULL",NULL,"",null,"x,y","\\"q\\\\","{z}","[1:2]={}"}',
                      ["a", "b c", "NULL", None, "", None, "x,y", '"q\\', "{z}", "[1:2]={}"])),
    *cases("text[]", ('{{a},{"b\n"}}', [["a"], ["b\n"]])),
    *cases("numeric[]", ("{1.50,NaN,NULL}", [D("1.50"), D("NaN"), None])),
    *cases("date[]", ("{2024-01-02,infinity}", [date(2024, 1, 2), "infinity"])),
    *cases("timestamptz[]", ("{2024-01-02 03:04+05}", [at(2024, 1, 1, 22, 4)])),
    *cases("bytea[]", ('{"\\\\x00ff",NULL}', [b"\x00\xff", None])),
    *cases("jsonb[]", ('{"{\\"a\\": [1, \\"x y\\"]}",null}', [{"a": [1, "x y"]}, None])),
    *cases("box[]", ("{(1,1),(0,0);(2,2),(1,1)}", ["(1,1),(0,0)", "(2,2),(1,1)"])),
    *cases("interval[]", ('{"1 day",NULL}', [Interval(0, 1), None])),
    *cases("uuid[]", ("{" + "0" * 32 + "}", [UUID(int=0)])),
    *cases("char(3)[]", ("{a}", ["a  "])),
    *cases('"char"[]', ("{a,é}", ["a", "\\303"])),
    *cases("int4range[]", ('{"[1,3)",empty}', [Range(1, 3), Range(empty=True)])),
    *cases("inet[]", ("{::1}", [ip_address("::1")])),
    *cases("mood[]", ('{sad,NULL,"Sehr froh",""}', ["sad", None, "Sehr froh", ""])),
    *cases("citext[]", ("{A,b}", ["A", "b"])),
    *cases("tags", ("{a,b}", ["a", "b"])),
    *cases("leap[]", ("{4,8}", [4, 8])),
    *cases("tags[]", ('{"{a,b}","{}",NULL,"[0:0]={c}"}', [["a", "b"], [], None, BoundedArray(["c"], (0,))])),
]  # fmt: skip

RANGES = [
    *cases("int4range", ("[1,4]", Range(1, 5)), ("(1,4)", Range(2, 4)), ("empty", Range(empty=True))),
    *cases("int4range", ("(,5]", Range(None, 6, "()")), ("(,)", Range(None, None, "()")), ("[5,)", Range(5, None))),
    *cases("int8range", ("[1,9223372036854775806]", Range(1, 2**63 - 1))),
    *cases(
        "numrange",
        ("(1.50,2.0]", Range(D("1.50"), D("2.0"), "(]")),
        ("[-Infinity,NaN)", Range(D("-Infinity"), D("NaN"))),
    ),
    *cases("daterange", ("[2024-01-01,2024-01-31]", Range(date(2024, 1, 1), date(2024, 2, 1)))),
    *cases("daterange", ("[2024-01-01,infinity]", Range(date(2024, 1, 1), "infinity", "[]"))),
    *cases(
        "tsrange",
        ("[2024-01-01,2024-01-02 03:04:05.6)", Range(datetime(2024, 1, 1), datetime(2024, 1, 2, 3, 4, 5, 600000))),
    ),
    *cases("tstzrange", ("(2024-01-01 00:00+01,)", Range(at(2023, 12, 31, 23), None, "()"))),
    *cases("int4multirange", ("{}", Multirange()), ("{[1,2],[5,6)}", Multirange([Range(1, 3), Range(5, 6)]))),
    *cases("nummultirange", ("{(,1.0],(2,)}", Multirange([Range(None, D("1.0"), "(]"), Range(D(2), None, "()")]))),
    *cases(
        "tstzmultirange",
        ("{[2024-01-01 00:00Z,2024-01-02 00:00Z)}", Multirange([Range(at(2024, 1, 1), at(2024, 1, 2))])),
    ),
    *cases("span", ("[0.1,Infinity]", Range(0.1, INFINITE, "[]"))),
    *cases("span_multirange", ("{[1,2]}", Multirange([Range(1.0, 2.0, "[]")]))),
    *cases("words", ('["",a")"]', Range("", "a)", "[]")), ('["a \\" \\\\","b""c")', Range('a " \\', 'b"c'))),
    *cases("leaps", ("[4,8]", Range(4, 8, "[]"))),
]

ODD = '"Odd Shop"."Odd Type"'
COMPOSITES = [
    *cases("pair", ("(1,x)", {"x": 1, "y": "x"}), ("(,)", {"x": None, "y": None}), ('(7,"")', {"x": 7, "y": ""})),
    *cases("pair", ('(1,"a ""b"", (c)\\\\ ")', {"x": 1, "y": 'a "b", (c)\\ '}), ("(1,NULL)", {"x": 1, "y": "NULL"})),
    *cases("nothing", ("()", {})),
    *cases("single", ("()", {"z": None}), ("(1.50)", {"z": D("1.50")})),
    *cases("things", ("(1,x)", {"id": 1, "name": "x"})),
    *cases("pair[]", ('{"(1,\\"a b\\")",NULL}', [{"x": 1, "y": "a b"}, None])),
    *cases("path_of_pairs", ('[0:0]={"(1,)"}', BoundedArray([{"x": 1, "y": None}], (0,)))),
    *cases(ODD, ("(,,,,,)", dict.fromkeys(["A b", "moods", "when", "pairs", "doc", "r"]))),
    *cases(ODD, (
        '("(1,""a """"q"""""")","{""Sehr froh"",NULL}","2024-01-01 00:00Z","{""(2,)""}","{""k"": [1.5]}",'
        '"[,""2024-01-01 00:00Z"")")',
        {"A b": {"x": 1, "y": 'a "q"'}, "moods": ["Sehr froh", None], "when": at(2024, 1, 1),
         "pairs": [{"x": 2, "y": None}], "doc": {"k": [1.5]}, "r": Range(None, at(2024, 1, 1), "()")},
    )),
    *cases("deeper", ('("{""[1,2]""}","{""(3,z)""}","{[2024-01-01 00:00Z,]}")', {
        "spans": [Range(1.0, 2.0, "[]")], "inside": [{"x": 3, "y": "z"}],
        "many": Multirange([Range(at(2024, 1, 1), None)]),
    })),
]  # fmt: skip

DOMAINS = cases("leap", ("2024", 2024)) + cases("shop.year", ("7", 7))

ALWAYS = [*NUMBERS, *TEXTS, *TIMES, *DOCUMENTS, *NETWORKS, *GEOMETRY, *SEARCHES, *INTERNALS, *ARRAYS, *RANGES]
ALWAYS += [*COMPOSITES, *DOMAINS]
NAMES = sorted({case.type for case in [*ALWAYS, *XML]})

PSYCOPGS = {
    *(
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "oid",
        "real",
        "double precision",
        "numeric",
        "numeric(10,3)",
        "text",
    ),
    *("varchar(5)", "char(5)", "name", "bytea", "uuid", "date", "time", "timetz", "timestamp", "timestamptz", "inet"),
    *("cidr", "int[]", "text[]", "numeric[]", "date[]", "timestamptz[]", "bytea[]", "jsonb[]", "uuid[]", "int4range"),
    *(
        "int8range",
        "numrange",
        "daterange",
        "tsrange",
        "tstzrange",
        "int4multirange",
        "nummultirange",
        "tstzmultirange",
    ),
    *("int4range[]", "inet[]"),
}
"""Types that psycopg reads as this library does, where Python has a value."""


@dataclass(frozen=True)
class Cell:
    """A value as it was streamed: in text, with the option `binary`, and as the server prints it."""

    case: Case
    oid: int
    text: bytes
    is_binary: bool
    sent: bytes
    printed: bytes


class Streamed:
    """What came out of the slot, and the types of the database.

    The row is wider than a page of the server, so it is spread over several tables.
    """

    def __init__(self, connection: psycopg.Connection[Any], wanted: list[Case]) -> None:
        self.connection = connection
        self.tables = [wanted[start : start + _COLUMNS] for start in range(0, len(wanted), _COLUMNS)]
        oids: list[int] = []
        connection.execute("CREATE PUBLICATION p FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot('wide', 'pgoutput')")
        for number, table in enumerate(self.tables):
            oids += self._make(f"wide{number}", table)
        self.types = Types()
        self.types.add(load_types(connection, self.types.missing(oids)))
        texts, sent = (chain.from_iterable(self.peeked(binary=binary)) for binary in (False, True))
        printed = self._printed()
        self.cells = [
            Cell(case, oid, text, kind == "b", cell, shown)
            for case, oid, (_, text), (kind, cell), shown in zip(wanted, oids, texts, sent, printed, strict=True)
        ]

    def _make(self, name: str, table: list[Case]) -> list[int]:
        columns = ", ".join(f"c{number} {case.type}" for number, case in enumerate(table))
        self.connection.execute(f"CREATE TABLE {name} ({columns})".encode())
        values = sql.SQL(", ").join(sql.SQL("{}::" + case.type).format(case.literal) for case in table)
        self.connection.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(name), values))
        query = "SELECT atttypid::int FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"
        return [oid for (oid,) in self.connection.execute(query, (name,)).fetchall()]

    def peeked(self, *, binary: bool) -> list[list[tuple[str, bytes]]]:
        """The cells of each row in the slot."""
        option = ", 'binary', 'true'" if binary else ""
        rows = self.connection.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes('wide', NULL, NULL, "
            f"'proto_version', '1', 'publication_names', 'p'{option})".encode()
        ).fetchall()
        return [list(split(data[6:])) for (data,) in rows if data[:1] == b"I"]

    def _printed(self) -> list[bytes]:
        """The values as the server prints them."""
        cells: list[bytes] = []
        for number in range(len(self.tables)):
            result = self.connection.execute(f"SELECT * FROM wide{number}".encode()).pgresult
            assert result is not None
            cells += [result.get_value(0, column) or b"" for column in range(result.nfields)]
        return cells

    def of(self, name: str) -> list[Cell]:
        """The values of one type."""
        return [cell for cell in self.cells if cell.case.type == name]

    def read_by_psycopg(self, number: int) -> object:
        table, column = divmod(number, _COLUMNS)
        [(value,)] = self.connection.execute(f"SELECT c{column} FROM wide{table}".encode()).fetchall()
        return value


def split(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The kind and the bytes of each cell of a TupleData; none of them is NULL."""
    (count,) = struct.unpack_from(">h", data)
    offset = 2
    for _ in range(count):
        kind, size = struct.unpack_from(">ci", data, offset)
        assert kind in (b"t", b"b")
        offset += 5 + size
        yield kind.decode(), data[offset - size : offset]


def supports_xml(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def wanted(connection: psycopg.Connection[Any]) -> list[Case]:
    """The cases that the server can hold."""
    found = [*ALWAYS, *INFINITE_INTERVALS] if connection.info.server_version >= 170000 else ALWAYS
    return [*found, *XML] if supports_xml(connection) else found


@pytest.fixture(scope="module")
def streamed(server: Sandbox) -> Iterator[Streamed]:
    """The wide row, read on a connection with the settings that a replication connection has."""
    with connect(server.create_database()) as connection:
        connection.execute(USERS_TYPES)
        yield Streamed(connection, wanted(connection))
        connection.execute("SELECT pg_drop_replication_slot('wide')")


def same(left: object, right: object) -> bool:
    """The same value of the same type, all the way down; NaN is the same as NaN."""
    return type(left) is type(right) and repr(left) == repr(right)


@pytest.mark.parametrize("name", NAMES)
def test_type(streamed: Streamed, name: str) -> None:
    """What is stored is what Python sees, in either form; and the text is what the server prints."""
    cells = streamed.of(name)
    assert cells or name == "xml"
    for cell in cells:
        case = cell.case
        assert cell.text == cell.printed, case
        value = streamed.types.decoder(cell.oid)(cell.text)
        assert same(value, case.value), (value, case)
        read = streamed.types.binary_decoder if cell.is_binary else streamed.types.decoder
        value = read(cell.oid)(cell.sent)
        assert same(value, case.value if case.binary is None else case.binary), (value, case)
        assert cell.is_binary != (name == "aclitem")  # which has no binary form


def test_psycopg_reads_the_same(streamed: Streamed) -> None:
    compared = 0
    for number, case in enumerate(cell.case for cell in streamed.cells):
        if case.type not in PSYCOPGS:
            continue
        try:
            value = streamed.read_by_psycopg(number)
        except psycopg.DataError:  # Python has no such value
            assert isinstance(case.value, str) or "infinity" in case.literal
            continue
        assert value == case.value or str(value).lower().count("nan") == str(case.value).lower().count("nan") > 0, case
        compared += 1
    assert compared > 90


def test_everything_has_a_form_in_json(streamed: Streamed) -> None:
    for cell in streamed.cells:
        written = json.dumps(jsonable(streamed.types.decoder(cell.oid)(cell.text)), allow_nan=False)
        assert isinstance(json.loads(written), bool | int | float | str | list | dict | None), cell.case


def test_the_catalog_is_read_to_the_bottom(streamed: Streamed) -> None:
    assert streamed.types.missing(cell.oid for cell in streamed.cells) == frozenset()


def test_every_builtin_type_is_decoded_or_named(streamed: Streamed) -> None:
    """What a column can have as its type, except rows of the catalog's tables and what only statistics are made of."""
    query = """
        SELECT oid::int, typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype <> 'p'
        AND typtype <> 'c' AND NOT (typcategory = 'A' AND typelem IN (SELECT reltype FROM pg_class WHERE reltype <> 0))
    """
    unknown = {
        name for oid, name in streamed.connection.execute(query).fetchall() if oid not in {*SCALARS, *BUILTIN_ARRAYS}
    }
    assert unknown == {
        *("_cstring", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"),
        *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
    }


def test_a_registered_decoder_reads_the_servers_text(streamed: Streamed) -> None:
    [hstore], pairs = streamed.of("hstore"), streamed.of("pair[]")
    types = Types({"hstore": str.upper, "int4": lambda text: f"<{text}>"})
    types.add(load_types(streamed.connection, types.missing([hstore.oid, pairs[0].oid])))
    assert types.decoder(hstore.oid)(hstore.text) == '"A"=>"1", "B C"=>NULL'
    assert types.decoder(pairs[0].oid)(pairs[0].text) == [{"x": "<1>", "y": "a b"}, None]
    with pytest.raises(ValueError, match=r"^hstore: the registered decoder reads text; stream without binary$"):
        types.binary_decoder(hstore.oid)(hstore.sent)
    with pytest.raises(ValueError, match=r"^integer: the registered decoder reads text; stream without binary$"):
        types.binary_decoder(pairs[0].oid)(pairs[0].sent)


def test_an_array_without_binary_form_cannot_be_streamed_in_it(streamed: Streamed) -> None:
    """It is the server that fails, for all of the table."""
    connection = streamed.connection
    connection.execute("CREATE TABLE rights (acl aclitem[])")
    connection.execute("INSERT INTO rights VALUES ('{=r/postgres}')")
    try:
        with pytest.raises(psycopg.errors.UndefinedFunction, match="no binary output function .* aclitem"):
            streamed.peeked(binary=True)
        rights = streamed.peeked(binary=False)[-1]
        assert [streamed.types.decoder(1034)(cell) for _, cell in rights] == [["=r/postgres"]]
    finally:
        connection.execute("DROP TABLE rights")
