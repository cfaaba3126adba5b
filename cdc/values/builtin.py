"""The built-in types, whose OIDs are the same on every server: decoders, equality, names and array type.

Pure data. A type that is not here comes from the catalog as a `TypeInfo`. The manual: "System Catalogs", pg_type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cdc.relation import Decode
from cdc.values import (
    binary,
    binary_times,
    bits,
    booleans,
    documents,
    floats,
    geometry,
    internals,
    intervals,
    networks,
    numbers,
    searches,
    texts,
    times,
    uuids,
)
from cdc.values.equality import Equality

__all__ = ["ARRAYS", "MULTIRANGES", "RANGES", "SCALARS", "Scalar"]

_Printed: TypeAlias = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A built-in type that is not an array.

    Attributes:
        name: as format_type prints it.
        typname: as pg_type has it.
        decode: turns a cell into a Python object.
        decode_binary: turns a cell in binary form into the same.
        printed: turns a cell in binary form into the text of the type; None when only the server could.
        equality: how its `=` is decided; None when that is not offered.
        delimiter: what stands between the elements of its arrays.
    """

    name: str
    typname: str
    decode: Decode
    decode_binary: Decode
    printed: _Printed | None = None
    equality: Equality | None = None
    delimiter: bytes = b","


def _scalar(name: str, text: Decode, binary: Decode, equality: Equality | None = None, typname: str = "") -> Scalar:
    return Scalar(name, typname or name, text, binary, None, equality)


def _textual(name: str, printed: _Printed, equality: Equality | None = None, typname: str = "") -> Scalar:
    """A type that is text in both forms."""
    return Scalar(name, typname or name, texts.text_of, printed, printed, equality)


_integer = internals.integer_of_binary
_oid = internals.integer_of_binary(4, signed=False)
_TIMESTAMP, _TIMESTAMPTZ = "timestamp without time zone", "timestamp with time zone"

# array's OID, OID: type
_ALL: dict[tuple[int, int], Scalar] = {
    (1000, 16): _scalar("boolean", booleans.boolean_of, booleans.boolean_of_binary, booleans.BOOLEAN, "bool"),
    (1001, 17): _scalar("bytea", texts.bytes_of, binary.plain_bytes),
    (1002, 18): Scalar('"char"', "char", internals.char_of, internals.char_of, internals.char_of),
    (1003, 19): _textual("name", texts.text_of, texts.NAME),
    (1016, 20): _scalar("bigint", numbers.integer_of, _integer(8), numbers.BIGINT, "int8"),
    (1005, 21): _scalar("smallint", numbers.integer_of, _integer(2), numbers.SMALLINT, "int2"),
    (1006, 22): _textual("int2vector", internals.vector_of_binary),
    (1007, 23): _scalar("integer", numbers.integer_of, _integer(4), numbers.INTEGER, "int4"),
    (1008, 24): _scalar("regproc", texts.text_of, _oid),
    (1009, 25): _textual("text", texts.text_of, texts.TEXT),
    (1028, 26): _scalar("oid", numbers.integer_of, _oid, numbers.OID),
    (1010, 27): _textual("tid", internals.tid_of_binary),
    (1011, 28): _textual("xid", internals.text_of_number(4)),
    (1012, 29): _textual("cid", internals.text_of_number(4)),
    (1013, 30): _textual("oidvector", internals.vector_of_binary),
    (199, 114): Scalar("json", "json", documents.document_of, documents.document_of, texts.text_of),
    (143, 142): _textual("xml", texts.text_of),
    (1017, 600): _textual("point", geometry.point_of_binary),
    (1018, 601): _textual("lseg", geometry.lseg_of_binary),
    (1019, 602): _textual("path", geometry.path_of_binary),
    (1020, 603): Scalar("box", "box", texts.text_of, geometry.box_of_binary, geometry.box_of_binary, delimiter=b";"),
    (1027, 604): _textual("polygon", geometry.polygon_of_binary),
    (629, 628): _textual("line", geometry.line_of_binary),
    (651, 650): _scalar("cidr", networks.cidr_of, networks.cidr_of_binary),
    (1021, 700): _scalar("real", numbers.float_of, floats.real_of_binary, numbers.REAL, "float4"),
    (1022, 701): _scalar("double precision", numbers.float_of, floats.double_of_binary, numbers.DOUBLE, "float8"),
    (719, 718): _textual("circle", geometry.circle_of_binary),
    (775, 774): _textual("macaddr8", networks.mac_of_binary),
    (791, 790): _scalar("money", texts.text_of, _integer(8)),
    (1040, 829): _textual("macaddr", networks.mac_of_binary),
    (1041, 869): _scalar("inet", networks.inet_of, networks.inet_of_binary),
    (1034, 1033): _scalar("aclitem", texts.text_of, binary.plain_bytes),
    (1014, 1042): _textual("character", texts.text_of, texts.CHARACTER, "bpchar"),
    (1015, 1043): _textual("character varying", texts.text_of, texts.TEXT, "varchar"),
    (1182, 1082): _scalar("date", times.date_of, binary_times.date_of_binary, times.DATE),
    (1183, 1083): _scalar("time without time zone", times.time_of, binary_times.time_of_binary, None, "time"),
    (1115, 1114): _scalar(
        _TIMESTAMP, times.timestamp_of, binary_times.timestamp_of_binary, times.TIMESTAMP, "timestamp"
    ),
    (1185, 1184): _scalar(
        _TIMESTAMPTZ, times.timestamptz_of, binary_times.timestamptz_of_binary, times.TIMESTAMPTZ, "timestamptz"
    ),
    (1187, 1186): _scalar("interval", intervals.interval_of, intervals.interval_of_binary),
    (1270, 1266): _scalar("time with time zone", times.timetz_of, binary_times.timetz_of_binary, None, "timetz"),
    (1561, 1560): _textual("bit", bits.bits_of_binary),
    (1563, 1562): _textual("bit varying", bits.bits_of_binary, None, "varbit"),
    (1231, 1700): _scalar("numeric", numbers.numeric_of, numbers.numeric_of_binary, numbers.NUMERIC),
    (2201, 1790): _textual("refcursor", texts.text_of),
    (2207, 2202): _scalar("regprocedure", texts.text_of, _oid),
    (2208, 2203): _scalar("regoper", texts.text_of, _oid),
    (2209, 2204): _scalar("regoperator", texts.text_of, _oid),
    (2210, 2205): _scalar("regclass", texts.text_of, _oid),
    (2211, 2206): _scalar("regtype", texts.text_of, _oid),
    (2951, 2950): _scalar("uuid", uuids.uuid_of, uuids.uuid_of_binary, uuids.UUIDS),
    (2949, 2970): _textual("txid_snapshot", internals.snapshot_of_binary),
    (3221, 3220): _textual("pg_lsn", internals.lsn_of_binary),
    (3643, 3614): _textual("tsvector", searches.tsvector_of_binary),
    (3645, 3615): _textual("tsquery", searches.tsquery_of_binary),
    (3644, 3642): _scalar("gtsvector", texts.text_of, binary.plain_bytes),
    (3735, 3734): _scalar("regconfig", texts.text_of, _oid),
    (3770, 3769): _scalar("regdictionary", texts.text_of, _oid),
    (3807, 3802): Scalar("jsonb", "jsonb", documents.document_of, documents.document_of_printed, binary.printed_of),
    (4073, 4072): _textual("jsonpath", binary.printed_of),
    (4090, 4089): _scalar("regnamespace", texts.text_of, _oid),
    (4097, 4096): _scalar("regrole", texts.text_of, _oid),
    (4192, 4191): _scalar("regcollation", texts.text_of, _oid),
    (5039, 5038): _textual("pg_snapshot", internals.snapshot_of_binary),
    (271, 5069): _textual("xid8", internals.text_of_number(8)),
}

# name, OID, array's OID, multirange's OID, its array's OID, OID of the bounds' type
_SPANS = [
    ("int4", 3904, 3905, 4451, 6150, 23),
    ("num", 3906, 3907, 4532, 6151, 1700),
    ("ts", 3908, 3909, 4533, 6152, 1114),
    ("tstz", 3910, 3911, 4534, 6153, 1184),
    ("date", 3912, 3913, 4535, 6155, 1082),
    ("int8", 3926, 3927, 4536, 6157, 20),
]

RANGES: dict[int, int] = {oid: bound for _, oid, _, _, _, bound in _SPANS}
"""The OID of each built-in range type to that of its bounds."""

MULTIRANGES: dict[int, int] = {oid: bound for _, _, _, oid, _, bound in _SPANS}
"""The OID of each built-in multirange type to that of its bounds."""

for _name, _range, _array, _multirange, _multiarray, _ in _SPANS:
    _ALL[_array, _range] = _scalar(f"{_name}range", texts.text_of, binary.plain_bytes)
    _ALL[_multiarray, _multirange] = _scalar(f"{_name}multirange", texts.text_of, binary.plain_bytes)

SCALARS: dict[int, Scalar] = {oid: scalar for (_, oid), scalar in _ALL.items()}
"""The built-in types that are not arrays, by OID. `int2vector` and `oidvector` are here: they print like no array.

Ranges and multiranges are here for their names; their decoders depend on those of their bounds.
"""

ARRAYS: dict[int, int] = dict(_ALL.keys())
"""The OID of each built-in array type to that of its element."""
