"""Constants of a policy, from their bytes."""

from __future__ import annotations

import struct
from datetime import UTC

import pytest

from cdc.operators import Context, Datums
from cdc.rls import decide
from cdc.rls.constants import constant_datum
from cdc.rls.constructs import NotSupported, Scope
from cdc.rls.nodes import TreeError, read
from cdc.values import Types
from tests.rls_trees import INT, NAMED, SUBJECT, const, op, policy, relation, rights, text, var, varlena


def numeric(*digits: int, weight: int = 0, negative: bool = False, scale: int = 0) -> bytes:
    head = 0x8000 | (0x2000 if negative else 0) | scale << 7 | (0x40 if weight < 0 else 0) | (weight & 0x3F)
    return varlena(struct.pack(f"<H{len(digits)}H", head, *digits))


@pytest.mark.parametrize(
    ("oid", "length", "data", "expected"),
    [
        (16, 1, bytes([1, 0, 0, 0, 0, 0, 0, 0]), "t"),
        (21, 2, struct.pack("<q", -5), "-5"),
        (23, 4, struct.pack("<q", -(2**31)), "-2147483648"),
        (20, 8, struct.pack("<q", 2**62), str(2**62)),
        (26, 4, struct.pack("<q", 4294967295), "4294967295"),
        (19, 64, b"ab" + b"\0" * 62, "ab"),
        (25, -1, varlena("größe".encode()), "größe"),
        (25, -1, varlena(b""), ""),
        (25, -1, bytes([(3 + 1) << 1 | 1]) + b"abc", "abc"),
        (2950, 16, bytes(range(16)), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (701, 8, struct.pack("<d", 0.1), "0.1"),
        (701, 8, struct.pack("<d", float("-inf")), "-Infinity"),
        (701, 8, struct.pack("<d", float("nan")), "NaN"),
        (700, 4, struct.pack("<f", 1.5), "1.5"),
        (1082, 4, struct.pack("<i", 7306) + b"\0" * 4, "2020-01-02"),
        (1082, 4, struct.pack("<i", 2**31 - 1) + b"\0" * 4, "infinity"),
        (1082, 4, struct.pack("<i", -(2**31)) + b"\0" * 4, "-infinity"),
        (1114, 8, struct.pack("<q", 86_400_000_001), "2000-01-02 00:00:00.000001"),
        (1184, 8, struct.pack("<q", 0), "2000-01-01 00:00:00+00"),
        (1184, 8, struct.pack("<q", 2**63 - 1), "infinity"),
        (1700, -1, numeric(12, 5000, scale=2), "12.50"),
        (1700, -1, numeric(1234, weight=2, negative=True), "-123400000000"),
        (1700, -1, numeric(1, weight=-2, scale=8), "0.00000001"),
        (1700, -1, numeric(), "0"),
        (1700, -1, varlena(struct.pack("<HhH", 0x4000 | 2, 100, 7)), "-7" + 400 * "0" + ".00"),
        (1700, -1, varlena(struct.pack("<H", 0xC000)), "NaN"),
        (1700, -1, varlena(struct.pack("<H", 0xF000)), "-Infinity"),
    ],
)
def test_constants(oid: int, length: int, data: bytes, expected: str) -> None:
    scope = Scope(rights(), relation(), Types())
    datums = Datums(scope.types)
    output = datums.output(oid)
    assert output is not None
    assert output(Context(zone=UTC), constant_datum(read(const(oid, data, length)), scope, datums)) == expected


@pytest.mark.parametrize(
    ("oid", "length", "data"),
    [
        (25, -1, b""),
        (25, -1, b"\x01"),
        (25, -1, struct.pack("<I", 100 << 2) + b"abc"),
        (25, -1, struct.pack("<I", (8 << 2) | 2) + b"abcd"),
        (25, -1, varlena(b"\xff")),
        (1700, -1, varlena(b"")),
        (1700, -1, varlena(b"\x00\xe0")),
        (1700, -1, varlena(b"\x00\x80\x01")),
        (1700, -1, numeric(1, 5000, scale=0)),
        (3802, -1, varlena(struct.pack("<II", 0x40000001, 100) + b"x")),
        (1007, -1, varlena(struct.pack("<iiIii", 1, 0, 25, 1, 1) + b"\0" * 4)),
        (1007, -1, varlena(struct.pack("<iiIii", 1, 0, 23, 9, 1) + b"\0" * 4)),
        (600, 16, struct.pack("<dd", 1, 2)),
        (1009, -1, varlena(b"x")),
    ],
)
def test_constants_that_cannot_be_read(oid: int, length: int, data: bytes) -> None:
    scope = Scope(rights(), relation(), Types())
    with pytest.raises(NotSupported):
        constant_datum(read(const(oid, data, length)), scope, Datums(scope.types))


def test_a_constant_shorter_than_its_type() -> None:
    with pytest.raises(TreeError):
        constant_datum(
            read(const(INT, b"\x01", 4).replace("4 [", "1 [")), Scope(rights(), relation(), Types()), Datums(Types())
        )


def test_a_text_beyond_ascii_needs_a_utf8_database() -> None:
    tree = op(98, var("name"), text("größe"))
    for utf8, text_tree in ((True, tree), (False, NAMED)):
        assert decide(rights(policy(text_tree), utf8=utf8), relation(), Types(), SUBJECT).unsupported == ()
    (unsupported,) = decide(rights(policy(tree), utf8=False), relation(), Types(), SUBJECT).unsupported
    assert "not UTF8" in unsupported.construct
