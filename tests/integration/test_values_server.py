"""The server is the oracle: its output is decoded as psycopg decodes it, and its `=` is what ours must be.

Each question is asked of the server for many values at once, under the replication connection's settings.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Hashable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any

import psycopg
import psycopg.types
import pytest

from cdc.catalog import load_types
from cdc.values import Equality, Interval, Types
from cdc.values.builtin import ARRAYS, SCALARS

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
}

USERS_TYPES = """
CREATE SCHEMA shop;
CREATE TYPE mood AS ENUM ('sad', 'glad', 'Sehr froh');
CREATE DOMAIN shop.year AS smallint CHECK (VALUE > 0);
CREATE DOMAIN leap AS shop.year;
CREATE DOMAIN tags AS text[];
CREATE TYPE pair AS (x int, y text);
CREATE TYPE span AS RANGE (subtype = float8);
"""

# What psycopg decodes to a Python object, or refuses because Python has none.
DECODED = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "7"],
    "integer": ["2147483647"],
    "bigint": ["-9223372036854775808"],
    "oid": ["4294967295"],
    "real": ["0.1", "1e10", "-0", "3.4028235e38", "Infinity", "NaN", "16777217"],
    "double precision": ["0.1", "1e300", "-0", "5e-324", "-Infinity", "NaN", "123456789.123456789"],
    "numeric": ["1.500", "0", "-0.00", "1e50", "Infinity", "-Infinity", "NaN", "0.00000000000000000001"],
    "text": ["", " naïve ☃ ", "a\\b\"c'"],
    "varchar(5)": ["abc  "],
    "char(5)": ["ab", ""],
    "name": ["wells"],
    '"char"': ["d"],
    "uuid": ["8FAC1234-0000-4000-8000-00000000000A"],
    "bytea": ["\\x00ff7e", ""],
    "date": ["2024-02-29", "0044-03-15", "9999-12-31", "infinity", "-infinity", "0044-03-15 BC", "10000-01-01"],
    "time": ["12:34:56.7", "00:00", "23:59:59.999999", "24:00:00"],
    "timestamp": ["2024-01-02 03:04:05.6", "0001-01-01", "infinity", "0044-03-15 BC", "294276-12-31"],
    "timestamptz": ["2024-01-02 03:04:05.000006+05:30", "2024-07-01 00:00Z", "-infinity", "12345-01-01 00:00Z"],
    "json": ['{"a": [1, 2.5, null, true, "\\u00e9"]}', "null", "[]", '"x"'],
    "jsonb": ['{"a": {"b": 12345678901234567890123}}', "1.50"],
    "int[]": ["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[1:2]={1,2}"],
    "text[]": ['{a,"b c","NULL",NULL,"",null,"x,y","\\"q\\\\","{z}"}', '{{a},{"b\n"}}'],
    "numeric[]": ["{1.50,2}"],
    "date[]": ["{2024-01-02,NULL}"],
    "timestamptz[]": ["{2024-01-02 03:04+05}"],
    "bool[]": ["{t,f}"],
    "timetz": ["12:00:00+05", "23:59:59.5-05:30", "00:00Z", "24:00:00+01"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1", "2001:db8::1/64"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "int4range": ["[1,5]", "empty", "(,)"],
    "numrange": ["(1.50,)"],
    "daterange": ["[2024-01-01,2024-01-31]"],
    "tsrange": ["[2024-01-01,2024-01-02 03:04)"],
    "nummultirange": ["{[1,2),[3,4)}", "{}"],
    "int8range[]": ['{"[1,2)",NULL}'],
    "uuid[]": ["{8fac1234-0000-4000-8000-00000000000a}"],
    "bytea[]": ['{"\\\\x00ff",NULL}'],
    "jsonb[]": ['{"{\\"a\\": [1, \\"x y\\"]}",null}'],
    "mood": ["Sehr froh"],
    "mood[]": ['{sad,NULL,"Sehr froh"}'],
    "shop.year": ["2024"],
    "leap": ["2024"],
    "tags": ["{a,b}"],
}

# What stays the server's text.
TEXTUAL = {
    "money": ["12.50"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": ["101"],
    "varbit": ["10"],
    "point": ["(1,2)"],
    "box": ["(1,1),(0,0)"],
    "tsvector": ["a b"],
    "pg_lsn": ["16/B374D848"],
    "xid8": ["7"],
    "int2vector": ["1 2 3"],
    "regclass": ["pg_class"],
    "interval": ["infinity"],
}


def listed(literals: str) -> list[str]:
    """The literals between the bars."""
    return literals.split("|")


# What people may write, some of it wrong.
NUMBERS = listed(
    "0|-0|7|007| +7 |-7|1e2|100|100.0|1.0|1.00|1.|.5|0.1|0.10|NaN|nan|Infinity|-inf|inf|16777216|16777217|"
    "0.1000000001|1e-7|123456789012345678901.5|x|"
)
WHOLE = listed(
    "0|-0|7|007| 7 |+7|-7|32767|32768|2147483647|2147483648|9223372036854775807|9223372036854775808||x|1.0|"
    "1e2|4294967295"
)
MOMENTS = listed(
    "2024-01-02|2024-01-02 03:04|2024-01-02T03:04:00|2024-01-02 03:04:00.000|2024-01-02 03:04:00.5|"
    "2024-01-02 03:04:00.50|2024-01-02 03:04Z|2024-01-02 08:34:00+0530|2024-01-02t03:04:00z|2024-02-30|"
    "2024-01-01 22:04 -05|2024-01-02 03:23:32+00:19:32|infinity| -Infinity |0001-01-01|9999-12-31||"
    "2024-01-02 03:04:00.123456|2024-01-02 03:04:00+16|2024-01-02 25:00|0000-01-01 00:00Z|2024-01-02   03:04"
)
WORDS = listed("t|T| true |tru|y|YES|on|1|f|fals|no|n|of|off|0|o||2|yess")
IDS = listed(
    "8fac1234-0000-4000-8000-00000000000a|8FAC1234-0000-4000-8000-00000000000A|"
    "{8fac123400004000800000000000000a}|8fac-1234-0000-4000-8000-0000-0000-000A|"
    "8fac1234-0000-4000-8000-00000000000b|8fac||{8fac123400004000800000000000000a|"
    " 8fac1234-0000-4000-8000-00000000000a|8fac12340-000-4000-8000-00000000000a|"
    "8fac1234-0000-4000-8000-00000000000a-"
)
STRINGS = ["", " ", "a", "a ", "a  ", " a", "A", "ab", "ü", "u\u0308", "☃", "\t"]
STRINGS += ["x" * 63, "x" * 64, "ü" * 31, "ü" * 40]

COMPARED = {
    "boolean": WORDS,
    "smallint": WHOLE,
    "integer": WHOLE,
    "bigint": WHOLE,
    "leap": ["7", " 07", "8", "32768"],
    "oid": ["0", "7", "4294967295", "4294967296", "x"],
    "numeric": NUMBERS,
    "real": [*NUMBERS, "1e39", "1e-50", "1e-45", "3.4028235e38"],
    "double precision": [*NUMBERS, "1e400", "1e-400", "1e300"],
    "text": STRINGS,
    "varchar": STRINGS,
    "name": STRINGS,
    "bpchar": STRINGS,
    "mood": ["sad", "glad", "Sehr froh"],
    "uuid": IDS,
    "date": [*MOMENTS, "2024-02-29", " 2024-01-02 ", "2024-01-03"],
    "timestamp": MOMENTS,
    "timestamptz": MOMENTS,
}


class Server:
    """A connection with the replication connection's settings, and the types of its database."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.types = Types()

    def cells(self, query: str, *arguments: object) -> list[list[bytes]]:
        """The rows of a query as the server's own text; none of their values is NULL."""
        result = self.connection.execute(query, arguments).pgresult
        assert result is not None
        columns = range(result.nfields)
        return [[result.get_value(row, column) or b"" for column in columns] for row in range(result.ntuples)]

    def value(self, query: str, *arguments: object) -> Any:
        """The only value of a query, as psycopg decodes it."""
        row = self.connection.execute(query, arguments).fetchone()
        assert row is not None
        return row[0]

    def oid(self, name: str) -> int:
        """The OID of a type, which is looked up in the catalog if it must be."""
        oid = int(self.value("SELECT %s::regtype::oid", name))
        while missing := self.types.missing([oid]):
            self.types.add(load_types(self.connection, missing))
        return oid

    def equality(self, name: str) -> Equality:
        equality = self.types.equality(self.oid(name))
        assert equality is not None, name
        return equality


@pytest.fixture
def server_types(database: str) -> Iterator[Server]:
    with psycopg.connect(database, autocommit=True) as connection:
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.execute(USERS_TYPES)
        mood = psycopg.types.TypeInfo.fetch(connection, "mood")
        assert mood is not None
        mood.register(connection)  # or psycopg leaves its arrays as text
        yield Server(connection)


def literals_of(table: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    return ((name, literal) for name, literals in table.items() for literal in literals)


def expected_of(server: Server, name: str, literal: str, cell: bytes) -> object:
    """The value as psycopg decodes it; the text when psycopg says that Python has no value for it."""
    try:
        return server.value(f"SELECT %s::{name}", literal)
    except psycopg.DataError:
        return cell.decode()


def test_decoders_agree_with_psycopg(server_types: Server) -> None:
    for name, literal in literals_of(DECODED):
        decode = server_types.types.decoder(server_types.oid(name))
        [[cell]] = server_types.cells(f"SELECT %s::{name}", literal)
        value, expected = decode(cell), expected_of(server_types, name, literal, cell)
        assert (str(value), type(value)) == (str(expected), type(expected)), (name, literal)
        assert value == expected or str(value).lower() == "nan", (name, literal)


def test_other_types_stay_text(server_types: Server) -> None:
    for name, literal in literals_of(TEXTUAL):
        if name == "interval" and server_types.connection.info.server_version < 170000:
            continue
        decode = server_types.types.decoder(server_types.oid(name))
        decode_array = server_types.types.decoder(server_types.oid(f"{name}[]"))
        [[cell, array]] = server_types.cells(f"SELECT v, ARRAY[v, NULL] FROM (SELECT %s::{name}) _(v)", literal)
        assert decode(cell) == cell.decode(), (name, literal)
        assert decode_array(array) == [cell.decode(), None], (name, literal)


def test_names_are_those_of_format_type(server_types: Server) -> None:
    for name in [*DECODED, *TEXTUAL, "pair", "span", "span_multirange[]"]:
        oid = server_types.oid(name)
        assert server_types.types.name(oid) == server_types.value("SELECT format_type(%s, NULL)", oid)


def test_every_builtin_type_is_where_the_server_has_it(server_types: Server) -> None:
    query = "SELECT oid::int, typelem::int, typdelim::text FROM pg_type WHERE oid = ANY(%s)"
    rows = server_types.connection.execute(query, (list(ARRAYS),)).fetchall()
    assert {oid: element for oid, element, _ in rows} == ARRAYS
    assert all(SCALARS[ARRAYS[oid]].delimiter == delimiter.encode() for oid, _, delimiter in rows)
    names = server_types.connection.execute(
        "SELECT oid::int, format_type(oid, NULL) FROM pg_type WHERE oid = ANY(%s)", (list(SCALARS),)
    ).fetchall()
    assert dict(names) == {oid: scalar.name for oid, scalar in SCALARS.items()}


def read(equality: Equality, literals: list[str]) -> dict[str, Hashable]:
    """Those literals that our equality reads as the type, with their hashables."""
    hashables: dict[str, Hashable] = {}
    for literal in literals:
        with suppress(ValueError):
            hashables[literal] = equality.from_text(literal)
    return hashables


def same(left: Hashable, right: Hashable) -> bool:
    """Equal as keys of a dict are."""
    return right in {left: None}


def of_cell(equality: Equality, cell: bytes) -> Hashable:
    return cell if equality.from_cell is None else equality.from_cell(cell)


def test_equality_is_the_servers(server_types: Server) -> None:
    """For each pair of literals; that the query runs at all shows that the server reads whatever we read."""
    pairs = 0
    for name, literals in COMPARED.items():
        equality = server_types.equality(name)
        decode = server_types.types.decoder(server_types.oid(name))
        ours = read(equality, literals)
        query = f"SELECT a, b, a::{name}, a::{name} = b::{name} FROM unnest(%s::text[]) a, unnest(%s::text[]) b"
        for left, right, cell, equal in server_types.cells(query, list(ours), list(ours)):
            one, two = ours[left.decode()], ours[right.decode()]
            stored = of_cell(equality, cell)
            assert same(one, two) == same(stored, two) == (equal == b"t"), (name, left, right, cell)
            assert same(equality.from_python(decode(cell)), stored), (name, cell)
            pairs += 1
    assert pairs > 2500


def test_padding_of_a_column_does_not_count(server_types: Server) -> None:
    equality = server_types.equality("bpchar")
    fitting = [text for text in STRINGS if len(text) <= 3]
    query = "SELECT a, b, a::char(3), a::char(3) = b::bpchar FROM unnest(%s::text[]) a, unnest(%s::text[]) b"
    for left, right, cell, equal in server_types.cells(query, fitting, fitting):
        assert len(cell.decode()) == 3
        assert same(of_cell(equality, cell), equality.from_text(right.decode())) == (equal == b"t"), (left, right)


def test_times_are_written_as_the_server_writes_them(server_types: Server) -> None:
    chance = random.Random(7)
    moments = [
        datetime(chance.randint(2, 9998), chance.randint(1, 12), chance.randint(1, 28), tzinfo=random_zone(chance))
        + timedelta(
            seconds=chance.randint(0, 86399), microseconds=chance.choice([0, 500000, 10, chance.randint(0, 999999)])
        )
        for _ in range(300)
    ]
    texts = [moment.isoformat(chance.choice("T ")) for moment in moments]
    for name in ("timestamptz", "timestamp"):
        equality = server_types.equality(name)
        for text, cell in server_types.cells(f"SELECT t, t::{name} FROM unnest(%s::text[]) t", texts):
            assert equality.from_text(text.decode()) == cell


def test_numbers_are_printed_as_the_server_prints_them(server_types: Server) -> None:
    """From binary form: the digits of a point are those that the server prints, a real is the one that text gives."""
    chance = random.Random(7)
    doubles = [struct.unpack(">d", chance.randbytes(8))[0] for _ in range(2000)]
    doubles += [sign * 2.0**power for power in range(-1074, 1024) for sign in (1, -1)]
    doubles += [float(f"1e{power}") for power in range(-323, 309)] + [9007199254740993.0, 4503599627370497.5, 1e23]
    doubles += [float(f"{chance.randint(1, 99)}e{chance.randint(-300, 300)}") for _ in range(500)]
    doubles += [float(chance.getrandbits(bits)) for bits in range(50, 80) for _ in range(100)]
    query = "SELECT point(d, 0), point_send(point(d, 0)) FROM unnest(%s::float8[]) d"
    read = server_types.types.binary_decoder(600)
    rows = server_types.cells(query, doubles)
    assert [read(binary_of(sent)) for _, sent in rows] == [printed.decode() for printed, _ in rows]

    reals = [struct.unpack(">f", struct.pack(">I", chance.getrandbits(32)))[0] for _ in range(3000)]
    reals += [2.0**power for power in range(-149, 128)]
    rows = server_types.cells("SELECT r, float4send(r) FROM unnest(%s::float4[]) r", reals)
    from_text, from_binary = server_types.types.decoder(700), server_types.types.binary_decoder(700)
    assert [repr(from_binary(binary_of(sent))) for _, sent in rows] == [repr(from_text(printed)) for printed, _ in rows]


def binary_of(cell: bytes) -> bytes:
    """The bytes of a cell of bytea."""
    return bytes.fromhex(cell[2:].decode())


def test_any_interval_is_printed_as_the_server_prints_it(server_types: Server) -> None:
    chance = random.Random(7)
    sizes = [0, 1, 11, 12, 13, 2**31 - 1]
    parts = [[chance.choice([1, -1]) * chance.choice(sizes) for _ in range(2)] for _ in range(400)]
    micros = [
        chance.choice([0, 1, -1, chance.randint(-(10**17), 10**17), chance.randint(-(10**8), 10**8)]) for _ in parts
    ]
    query = """
        SELECT i, interval_send(i) FROM unnest(%s::int[], %s::int[], %s::bigint[]) _(m, d, u),
        LATERAL (SELECT make_interval(months => m, days => d) + u * '1 microsecond'::interval) _i(i)
    """
    months, days = [part[0] for part in parts], [part[1] for part in parts]
    rows = server_types.cells(query, months, days, micros)
    assert len(rows) == 400
    for printed, sent in rows:
        interval = Interval.from_text(printed.decode())
        assert str(interval) == printed.decode()
        assert server_types.types.binary_decoder(1186)(binary_of(sent)) == interval


def random_zone(chance: random.Random) -> timezone:
    return chance.choice([UTC, timezone(timedelta(minutes=chance.randint(-959, 959)))])


def test_reals_are_rounded_as_the_server_rounds_them(server_types: Server) -> None:
    """Numbers on, and just beside, the middle between two reals."""
    chance = random.Random(7)
    equality = server_types.equality("real")
    texts = [text for _ in range(100) for text in around_a_middle(chance.randint(1, 0x7F7FFFFE))]
    for text, cell in server_types.cells("SELECT t, t::real FROM unnest(%s::text[]) t", texts):
        assert equality.from_text(text.decode()) == of_cell(equality, cell), text


def around_a_middle(bits: int) -> list[str]:
    low, high = (Decimal(struct.unpack("<f", struct.pack("<I", number))[0]) for number in (bits, bits + 1))
    with localcontext(prec=400):
        middle = (low + high) / 2
        return [
            str(middle * factor)
            for factor in (1, Decimal("1.00000000000000000000001"), Decimal("0.99999999999999999999999"))
        ]
