"""The built-in types, whose OIDs are the same on every server: decoder, equality, name and array type.

Pure data. A type that is not here comes from the catalog as a `TypeInfo`. The manual: "System Catalogs", pg_type.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc.relation import Decode
from cdc.values import booleans, documents, numbers, texts, times, uuids
from cdc.values.equality import Equality

__all__ = ["ARRAYS", "SCALARS", "Scalar"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A built-in type that is not an array.

    Attributes:
        name: as format_type prints it.
        decode: turns a cell into a Python object.
        equality: how its `=` is decided; None when that is not offered.
        delimiter: what stands between the elements of its arrays.
    """

    name: str
    decode: Decode
    equality: Equality | None
    delimiter: bytes


# oid, array's oid, name, decoder, equality
_DECODED: list[tuple[int, int, str, Decode, Equality | None]] = [
    (16, 1000, "boolean", booleans.boolean_of, booleans.BOOLEAN),
    (17, 1001, "bytea", texts.bytes_of, None),
    (19, 1003, "name", texts.text_of, texts.NAME),
    (20, 1016, "bigint", numbers.integer_of, numbers.BIGINT),
    (21, 1005, "smallint", numbers.integer_of, numbers.SMALLINT),
    (23, 1007, "integer", numbers.integer_of, numbers.INTEGER),
    (25, 1009, "text", texts.text_of, texts.TEXT),
    (26, 1028, "oid", numbers.integer_of, numbers.OID),
    (114, 199, "json", documents.document_of, None),
    (700, 1021, "real", numbers.float_of, numbers.REAL),
    (701, 1022, "double precision", numbers.float_of, numbers.DOUBLE),
    (1042, 1014, "character", texts.text_of, texts.CHARACTER),
    (1043, 1015, "character varying", texts.text_of, texts.TEXT),
    (1082, 1182, "date", times.date_of, times.DATE),
    (1083, 1183, "time without time zone", times.time_of, None),
    (1114, 1115, "timestamp without time zone", times.timestamp_of, times.TIMESTAMP),
    (1184, 1185, "timestamp with time zone", times.timestamptz_of, times.TIMESTAMPTZ),
    (1700, 1231, "numeric", numbers.numeric_of, numbers.NUMERIC),
    (2950, 2951, "uuid", uuids.uuid_of, uuids.UUIDS),
    (3802, 3807, "jsonb", documents.document_of, None),
]

# What stays the server's text: oid, array's oid, name
_TEXTUAL = """
18 1002 "char"
22 1006 int2vector
24 1008 regproc
27 1010 tid
28 1011 xid
29 1012 cid
30 1013 oidvector
142 143 xml
600 1017 point
601 1018 lseg
602 1019 path
603 1020 box
604 1027 polygon
628 629 line
650 651 cidr
718 719 circle
774 775 macaddr8
790 791 money
829 1040 macaddr
869 1041 inet
1033 1034 aclitem
1186 1187 interval
1266 1270 time with time zone
1560 1561 bit
1562 1563 bit varying
1790 2201 refcursor
2202 2207 regprocedure
2203 2208 regoper
2204 2209 regoperator
2205 2210 regclass
2206 2211 regtype
2970 2949 txid_snapshot
3220 3221 pg_lsn
3614 3643 tsvector
3615 3645 tsquery
3642 3644 gtsvector
3734 3735 regconfig
3769 3770 regdictionary
3904 3905 int4range
3906 3907 numrange
3908 3909 tsrange
3910 3911 tstzrange
3912 3913 daterange
3926 3927 int8range
4072 4073 jsonpath
4089 4090 regnamespace
4096 4097 regrole
4191 4192 regcollation
4451 6150 int4multirange
4532 6151 nummultirange
4533 6152 tsmultirange
4534 6153 tstzmultirange
4535 6155 datemultirange
4536 6157 int8multirange
5038 5039 pg_snapshot
5069 271 xid8
"""

_BOX = 603


def _textual() -> list[tuple[int, int, str, Decode, Equality | None]]:
    lines = (line.split(" ", 2) for line in _TEXTUAL.strip().splitlines())
    return [(int(oid), int(array), name, texts.text_of, None) for oid, array, name in lines]


_ALL = _DECODED + _textual()

SCALARS: dict[int, Scalar] = {
    oid: Scalar(name, decode, equality, b";" if oid == _BOX else b",") for oid, _, name, decode, equality in _ALL
}
"""The built-in types that are not arrays, by OID. `int2vector` and `oidvector` are here: they print like no array."""

ARRAYS: dict[int, int] = {array: oid for oid, array, *_ in _ALL}
"""The OID of each built-in array type to that of its element."""
